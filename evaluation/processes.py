"""Worker processes of commands that process many files."""

import multiprocessing
import os
import signal
import threading
from multiprocessing.process import BaseProcess
from typing import cast


def start_worker() -> None:
    """Let a worker process ignore Ctrl-C, which its parent handles, and end when its parent ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = cast(BaseProcess, multiprocessing.parent_process())  # not None in a worker process

    def end_with_parent() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
