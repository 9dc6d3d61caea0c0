"""A blob as a Python file, for libraries that want to seek and read.

Knows positions and a window of bytes read ahead; what the bytes mean, and how
they are fetched, is known elsewhere.
"""

from __future__ import annotations

import io
from typing import Any

from zonal.io.store.ranges import Blob

WINDOW = 256 * 1024
"""Bytes of the smallest request: footers and zip directories come in one or two."""


class Seekable(io.RawIOBase):
    """Read-only file over the byte ranges of a blob, with its retries and its errors.

    Parameters
    ----------
    blob : Blob
    size : int
        From `Blob.stat`.
    window : int
        Bytes of the smallest request; 0 asks for what is read and no more.
    """

    def __init__(self, blob: Blob, size: int, window: int = WINDOW) -> None:
        self._blob = blob
        self._size = size
        self._window = window
        self._at = 0
        self._start = 0
        self._held = b""

    def readable(self) -> bool:
        """Say yes."""
        return True

    def seekable(self) -> bool:
        """Say yes."""
        return True

    def tell(self) -> int:
        """Position, bytes from the start."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move; nothing is read."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError(f"a position before the file: {base + offset}")
        self._at = base + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer, as far as the file goes."""
        data = self._bytes(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def read(self, size: int | None = -1) -> bytes:
        """Read `size` bytes, or all that are left."""
        left = max(0, self._size - self._at)
        return self._bytes(left if size is None or size < 0 else size)

    def _bytes(self, length: int) -> bytes:
        length = min(length, max(0, self._size - self._at))
        if length == 0:
            return b""
        end = self._at + length
        if not (self._start <= self._at and end <= self._start + len(self._held)):
            # Towards the end of the file readers go backwards: the window ends there.
            start = max(0, min(self._at, self._size - self._window))
            stop = min(self._size, max(end, start + self._window))
            (self._held,) = self._blob.read([(start, stop - start)])
            self._start = start
        data = self._held[self._at - self._start : end - self._start]
        self._at = end
        return data
