"""A page in which a user tries trained runs: search for clips with a text, and read captions of a sound."""

import os

# Gradio reads this variable when it is imported. The page must not send anything to other machines.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
