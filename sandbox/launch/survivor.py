"""Ends a process once whoever started this one is gone, however that happened.

A demo that is killed outright cannot stop its broker, which would keep its ports and its database. The demo holds the
other end of this program's standard input, which ends with it, and writes one line: the process id of its broker.
"""

import os
import signal
import sys
import time

_STOP_SECONDS = 20.0
_LOOK_SECONDS = 0.1


def main() -> None:
    """Wait for the end of standard input, then stop the process that it named: kindly, and after a while not so."""
    named = sys.stdin.read().strip()
    if not named or not _signal(int(named), signal.SIGTERM):
        return
    # It is no child of this process: nothing tells when it ends, so somebody has to look.
    deadline = time.monotonic() + _STOP_SECONDS
    while time.monotonic() < deadline:
        if not _signal(int(named), 0):
            return
        time.sleep(_LOOK_SECONDS)
    _signal(int(named), signal.SIGKILL)


def _signal(pid: int, number: int) -> bool:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


if __name__ == "__main__":
    main()
