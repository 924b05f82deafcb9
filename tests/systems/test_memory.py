"""Freed memory stays in the process, so that Linux does not clear it again for each clip."""

import subprocess
import sys

import pytest

# Allocate and free 16 MB 30 times, write to every page, and print the number of page faults.
PROGRAM = """
import ctypes, resource, sys
from systems.memory import configure_allocation
if sys.argv[1] == "configured":
    configure_allocation()
library = ctypes.CDLL(None)
library.malloc.restype = ctypes.c_void_p
library.free.argtypes = [ctypes.c_void_p]
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(30):
    block = library.malloc(16 << 20)
    ctypes.memset(block, 1, 16 << 20)
    library.free(block)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(setting):
    # A fixed threshold, as glibc has before a process frees its first large block.
    environment = {"GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=131072"}
    command = [sys.executable, "-c", PROGRAM, setting]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc has these settings")
def test_freed_blocks_are_used_again():
    assert page_faults("configured") * 5 < page_faults("not configured")
