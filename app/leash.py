"""Runs one command on a leash: when standard input closes, everything it started is killed.

    python leash.py COMMAND...

`vademecum up` starts each child through this file and holds the other end of that pipe. However
the supervisor ends, SIGKILL included, the pipe closes, and no grandchild (vLLM starts several)
stays behind to hold a port or memory. Linux only; runs alone, on the standard library; knows
nothing of what the command is. SIGTERM is handed on; the exit code is the command's, or 128 + the
signal that ended it.
"""

import ctypes
import os
import select
import signal
import sys
import time
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
NOT_FOUND = 127


def main(command: list[str]) -> int:
    # As subreaper, processes whose own parent ends become ours and can still be found.
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    awake, wake = os.pipe()
    for end in (awake, wake):
        os.set_blocking(end, False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake)
    child = _start(command)
    signal.signal(signal.SIGTERM, lambda *_: _kill(child, signal.SIGTERM))
    status = _watch(child, awake)
    _kill_all()
    return status


def _watch(child: int, awake: int) -> int:
    """Wait until the command ends or the leash is let go. Returns the exit code."""
    while True:
        ready, _, _ = select.select([0, awake], [], [])
        if awake in ready:
            os.read(awake, 4096)
            status = _reap(child)
            if status is not None:
                return status
        if 0 in ready and not os.read(0, 4096):
            return 128 + signal.SIGKILL


def _start(command: list[str]) -> int:
    parent = os.getpid()
    child = os.fork()
    if child:
        return child
    try:
        # Should the leash itself be killed, its command ends with it.
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(NOT_FOUND)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.execvp(command[0], command)
    except OSError as error:
        os.write(2, f"{command[0]} cannot be started: {error.strerror}\n".encode())
    os._exit(NOT_FOUND)


def _reap(child: int) -> int | None:
    """Collect all that ended; the command's exit code if it is among them."""
    found = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return found
        if pid == 0:
            return found
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            found = code if code >= 0 else 128 - code


def _kill_all() -> None:
    """Kill every descendant, also those that come while we look."""
    while pids := _descendants(os.getpid()):
        for pid in pids:
            _kill(pid, signal.SIGKILL)
        _reap(0)
        time.sleep(0.01)


def _descendants(root: int) -> set[int]:
    """Living processes below `root`."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text(errors="replace").rpartition(")")[2].split()
        except OSError:
            continue  # it ended while we looked
        parents[int(stat.parent.name)] = int(fields[1])
    found: set[int] = set()
    new = {root}
    while new:
        new = {pid for pid, parent in parents.items() if parent in new} - found
        found |= new
    return found


def _kill(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl failed")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
