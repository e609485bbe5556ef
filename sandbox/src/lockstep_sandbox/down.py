"""`make down`: stops what `make up` started, and waits for its end."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Final

from lockstep_sandbox.runtime import RuntimeDirectory
from lockstep_sandbox.up import BASE

STOP_SECONDS_MAX: Final = 180.0


def stop(base: Path) -> bool:
    """Whether a sandbox ran; it is gone afterwards.

    Raises:
        TimeoutError: it does not stop.
    """
    current = RuntimeDirectory.current(base)
    if current is None:
        return False
    pid = current.read_description().supervisor_pid
    os.kill(pid, signal.SIGTERM)
    give_up = time.monotonic() + STOP_SECONDS_MAX
    while RuntimeDirectory.current(base) is not None:
        if time.monotonic() > give_up:
            raise TimeoutError(f"process {pid} does not stop")
        time.sleep(0.1)
    return True


if __name__ == "__main__":
    print("stopped" if stop(BASE) else "no sandbox runs here")
