"""A page on which users try trained runs. They search for clips with a text, or read captions of their own sounds."""

import os

# Gradio reads this variable when it is imported. The page must not send anything to other machines.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
