"""Training systems and predicting with them. Of the kit's packages, this one imports only `evaluation`."""

import os

# torch then asks Linux for huge pages. Without them, much of a training step with large tensors on a CPU is spent on
# new pages of memory. torch reads the variable before it creates the first tensor.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
