"""What a failure means: said once, or tried again? Pure; the one place that decides."""

import sqlite3
from pathlib import PurePosixPath

from kb.errors import Permanent, Transient, Unreadable


def classify(error: Exception, path: str) -> Permanent | Transient:
    """The error as one of the two kinds; its message is fit for users and holds no server path.

    What is known to be about the file's content is permanent. The rest may pass: disks fill,
    services restart. That includes what nobody foresaw, because attempts are counted.
    """
    name = PurePosixPath(path).name
    if isinstance(error, Permanent | Transient):
        return error
    if isinstance(error, PermissionError):
        return Unreadable("unreadable", f"{name} may not be read: permission denied")
    if isinstance(error, OSError):
        return Transient(f"{name} could not be read: {error.strerror or type(error).__name__}")
    if isinstance(error, sqlite3.OperationalError):
        return Transient(f"{name} could not be stored: {error}")
    return Transient(f"{name} could not be taken in: {type(error).__name__}")


def code_of(error: Permanent | Transient) -> str:
    """A stable word for programs."""
    if isinstance(error, Unreadable):
        return error.code
    return "temporary" if isinstance(error, Transient) else "failed"
