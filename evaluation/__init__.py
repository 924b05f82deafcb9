"""What is true: data, audio, metrics and intervals. Imports none of the other rooms."""
