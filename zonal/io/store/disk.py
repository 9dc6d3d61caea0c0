"""What a disk of this machine is asked, so that a file is whole or not there.

Knows paths and the operating system's refusals; knows no store and no content.
"""

from __future__ import annotations

import contextlib
import errno
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

from zonal.errors import InputError, StoreError

_REFUSED = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.ENAMETOOLONG, errno.ELOOP}
_AWAY = {errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENOTCONN}


def draft_of(final: Path) -> Path:
    """Name a file beside the final one, on the same file system, as nobody else does."""
    return final.with_name(f".{final.name}.{uuid.uuid4().hex}.tmp")


def make(folder: Path) -> None:
    """Make a folder and those it lies in, so that they are there after a loss of power."""
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in new:
        flush_to_disk(path.parent)


def flush_to_disk(path: Path) -> None:
    """Have the operating system write a file, or the names in a folder, to the disk now."""
    folder = path.is_dir()
    if folder and os.name != "posix":
        return
    number = os.open(path, os.O_RDONLY if folder else os.O_RDWR)
    try:
        os.fsync(number)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a file system that cannot
            raise
    finally:
        os.close(number)


@contextlib.contextmanager
def writable(folder: str) -> Iterator[None]:
    """Turn the operating system's refusals into one sentence."""
    try:
        yield
    except (
        PermissionError,
        NotADirectoryError,
        FileExistsError,
        FileNotFoundError,  # also what /proc and dead mounts say of a new folder
        IsADirectoryError,
        NotImplementedError,
    ) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise InputError(f"cannot write to {folder}: {reason}") from error
    except OSError as error:
        if error.errno in _REFUSED:
            raise InputError(f"cannot write to {folder}: {os.strerror(error.errno)}") from error
        if error.errno in _AWAY:  # a network's disk
            raise StoreError(
                f"cannot write to {folder}: {os.strerror(error.errno)}; try again later"
            ) from error
        raise
