"""Example systems, to copy and change; `systems list` leaves them out."""
