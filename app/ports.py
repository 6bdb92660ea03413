"""Ports of this machine: one that is free, and one that must become so. Knows no program."""

import errno
import socket
import time
from collections.abc import Callable

from kb.errors import VademecumError

LEFTOVER_SECONDS = 5.0
"""How long a port may stay in use by what an earlier, killed run is just leaving behind."""


class PortTaken(VademecumError):
    """Another program listens on a port that is needed here."""


def await_port(
    host: str,
    port: int,
    setting: str,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Return when `port` can be listened on. Raises PortTaken naming it and the `setting`."""
    until = clock() + LEFTOVER_SECONDS
    while not _is_free(host, port):
        if clock() >= until:
            raise PortTaken(
                f"port {port} is taken by another program: stop that, or choose another with"
                f" {setting}"
            )
        sleep(0.2)


def _is_free(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # As servers do: a connection that is only winding down does not hold a port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            raise PortTaken(f"cannot listen on {host}:{port}: {error.strerror}") from error
    return True


def free_port(host: str) -> int:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])
