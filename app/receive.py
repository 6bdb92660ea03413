"""A multipart file as it arrives: its name made safe, its size checked."""

from fastapi import UploadFile

from app.errors import TooLarge
from app.uploads import safe_name


def received(file: UploadFile, max_mb: int) -> str:
    """The safe name of a file that may be kept.

    Raises BadRequest, UnsupportedType (`safe_name`), TooLarge.
    """
    name = safe_name(file.filename)
    if (file.size or 0) > max_mb * 2**20:
        raise TooLarge(f"{name} has more than {max_mb} MB")
    return name
