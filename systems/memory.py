"""Settings of memory allocation that make computations on a CPU faster."""

import ctypes
import os
import sys

# Parameters of mallopt, from glibc's malloc.h, and the values that glibc's own adjustment reaches at most.
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
KEPT_BYTES, LARGEST_KEPT_BLOCK = 64 << 20, 32 << 20


def configure_allocation() -> None:
    """Let torch use huge pages, and let glibc keep freed memory instead of returning it to Linux at once.

    Without huge pages, training steps with large tensors spend much time on small pages. If glibc returns the memory of
    each layer's values, an encoder gets the same memory again for the next clip, and Linux clears it again. Each
    thread may keep 64 MB. On systems other than Linux, this function does nothing.
    """
    if sys.platform != "linux":
        return
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # torch reads it when it first allocates memory
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # only glibc has it
    if mallopt:
        mallopt(TRIM_THRESHOLD, KEPT_BYTES)
        mallopt(MMAP_THRESHOLD, LARGEST_KEPT_BLOCK)
