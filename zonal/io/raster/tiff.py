"""The tags of a TIFF's first directory: classic and BigTIFF, both byte orders.

Knows the container, not what its tags mean; reads no pixel. Trusts no count or
offset that it has not compared with the file's size.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from zonal.errors import InputError
from zonal.io.store.ranges import Blob

HEAD = 64 * 1024
"""Bytes of the first read: for AEF, the directory and most of its arrays."""

_MAX_TAGS = 4096
_MAX_ARRAYS = 256 * 1024 * 1024  # bytes of all tag arrays: 16 million tiles
_MAX_TEXT = 4 * 1024 * 1024  # of XML takes some 100 MB
_MAX_DIRECTORIES = 64

_TYPES = {
    1: "u1", 2: "S1", 3: "u2", 4: "u4", 5: "u4", 6: "i1", 7: "S1", 8: "i2", 9: "i4", 10: "i4",
    11: "f4", 12: "f8", 13: "u4", 16: "u8", 17: "i8", 18: "u8",
}  # fmt: skip


class Tag(IntEnum):
    """The tags that matter here; all others are passed over."""

    SUBFILE = 254
    WIDTH = 256
    HEIGHT = 257
    BITS = 258
    COMPRESSION = 259
    PHOTOMETRIC = 262
    FILL_ORDER = 266
    STRIP_OFFSETS = 273
    SAMPLES = 277
    ROWS_PER_STRIP = 278
    STRIP_COUNTS = 279
    PLANAR = 284
    PREDICTOR = 317
    TILE_WIDTH = 322
    TILE_HEIGHT = 323
    TILE_OFFSETS = 324
    TILE_COUNTS = 325
    EXTRA_SAMPLES = 338
    SAMPLE_FORMAT = 339
    PIXEL_SCALE = 33550
    TIEPOINT = 33922
    TRANSFORMATION = 34264
    GEO_KEYS = 34735
    GDAL_METADATA = 42112
    GDAL_NODATA = 42113


_WANTED = frozenset(Tag)


def damaged(name: str, what: str) -> InputError:
    """Build the error for a file that contradicts the format."""
    return InputError(f"{name}: {what}; the file is damaged or no GeoTIFF")


def unsupported(name: str, what: str, expected: str) -> InputError:
    """Build the error for a file that is right, but not for this reader."""
    return InputError(
        f"{name}: {what}, expected {expected}; give its source `driver: rasterio` in the catalog to read it"
    )


class _Window:
    """The blocks of a file read so far; a small read fetches what surrounds it."""

    def __init__(self, blob: Blob, size: int) -> None:
        self.blob = blob
        self.size = size
        self.blocks: list[tuple[int, bytes]] = []

    def check(self, offset: int, length: int, what: str) -> None:
        if offset + length > self.size:
            raise damaged(
                self.blob.name,
                f"{what} ({length} bytes at {offset}) lies beyond the end of the file ({self.size} bytes)",
            )

    def held(self, offset: int, length: int) -> bytes | None:
        for start, data in self.blocks:
            if start <= offset and offset + length <= start + len(data):
                return data[offset - start : offset - start + length]
        return None

    def get(self, offset: int, length: int, what: str) -> bytes:
        self.check(offset, length, what)
        data = self.held(offset, length)
        if data is None:
            (data,) = self.blob.read([(offset, min(max(length, HEAD), self.size - offset))])
            self.blocks.append((offset, data))
        return data[:length]

    def get_all(self, wanted: list[tuple[int, int]]) -> list[bytes]:
        """Read checked ranges, those not held yet together."""
        held = [self.held(offset, length) for offset, length in wanted]
        missing = [at for at, data in zip(wanted, held, strict=True) if data is None]
        fetched = iter(self.blob.read(missing) if missing else ())
        return [next(fetched) if data is None else data for data in held]


class Directory:
    """The tags of a file's first directory, as arrays in native byte order."""

    def __init__(self, blob: Blob, size: int) -> None:
        self.name = blob.name
        self._window = window = _Window(blob, size)
        head = window.get(0, min(16, size), "the header")
        self.order, self.big, self.first = _header(self.name, head)
        entries, self.next = self._entries(self.first)
        self.tags: dict[int, npt.NDArray[Any]] = {}
        inline = 8 if self.big else 4
        long: list[tuple[int, int, int, str]] = []
        total = 0
        for code, kind, count, value in entries:
            if code not in _WANTED or code in self.tags or any(code == item[0] for item in long):
                continue
            if kind not in _TYPES:
                raise damaged(self.name, f"tag {code} has the unknown type {kind}")
            stored = self.order + _TYPES[kind]
            length = count * np.dtype(stored).itemsize * (2 if kind in (5, 10) else 1)
            if length <= inline:
                self.tags[code] = _native(value[:length], stored)
                continue
            offset = int.from_bytes(value, "little" if self.order == "<" else "big")
            window.check(offset, length, f"tag {code}")
            total += length
            if total > _MAX_ARRAYS:
                raise damaged(self.name, f"its tags claim more than {_MAX_ARRAYS} bytes")
            long.append((code, offset, length, stored))
        values = window.get_all([(offset, length) for _, offset, length, _ in long])
        for (code, _, _, stored), data in zip(long, values, strict=True):
            self.tags[code] = _native(data, stored)

    def _entries(self, offset: int) -> tuple[list[tuple[int, int, int, bytes]], int]:
        """Return (code, type, count, value bytes) of a directory's tags and the offset of the next one."""
        lead, entry = (8, "HHQ8s") if self.big else (2, "HHI4s")
        size = struct.calcsize(self.order + entry)
        what = f"the directory at {offset}"
        count = int.from_bytes(self._window.get(offset, lead, what), "little" if self.order == "<" else "big")
        if not 0 < count <= _MAX_TAGS:
            raise damaged(self.name, f"{what} claims {count} tags")
        tail = 8 if self.big else 4
        body = self._window.get(offset + lead, count * size + tail, what)
        entries = list(struct.iter_unpack(self.order + entry, body[:-tail]))
        following = int.from_bytes(body[-tail:], "little" if self.order == "<" else "big")
        return entries, following

    def has_mask(self) -> bool:
        """Whether a later directory of the chain is a transparency mask."""
        seen = {self.first}
        offset = self.next
        while offset:
            if offset in seen:
                raise damaged(self.name, f"its directories form a loop at {offset}")
            if len(seen) == _MAX_DIRECTORIES:
                raise damaged(self.name, f"more than {_MAX_DIRECTORIES} directories")
            seen.add(offset)
            entries, following = self._entries(offset)
            for code, kind, _, value in entries:
                if (
                    code == Tag.SUBFILE
                    and kind in (3, 4)
                    and int(_native(value[: 2 * kind - 4], self.order + _TYPES[kind])[0]) & 4
                ):
                    return True
            offset = following
        return False

    def whole(self, code: int, default: int | None = None, tag: str = "") -> int:
        """Return a tag of one integer."""
        values = self.wholes(code)
        if values is None:
            if default is None:
                raise damaged(self.name, f"no tag {code} ({tag})")
            return default
        return int(values[0])

    def wholes(self, code: int) -> npt.NDArray[Any] | None:
        """Return a tag of integers, or None if absent."""
        values = self.tags.get(code)
        if values is not None and (values.dtype.kind not in "ui" or not values.size):
            raise damaged(self.name, f"tag {code} holds no integers")
        return values

    def reals(self, code: int, count: int) -> list[float] | None:
        """Return a tag of at least `count` finite reals, or None if absent."""
        values = self.tags.get(code)
        if values is None:
            return None
        if values.dtype.kind != "f" or values.size < count or not np.isfinite(values[:count]).all():
            raise damaged(self.name, f"tag {code} does not hold {count} finite numbers")
        return [float(value) for value in values]

    def text(self, code: int) -> str | None:
        """Return a text tag, or None if absent."""
        values = self.tags.get(code)
        if values is None:
            return None
        if values.dtype.kind != "S" or values.size > _MAX_TEXT:
            raise damaged(self.name, f"tag {code} is no text, or too long")
        return values.tobytes().split(b"\0", 1)[0].decode("utf-8", errors="replace")


def _header(name: str, head: bytes) -> tuple[str, bool, int]:
    """Return (byte order, is BigTIFF, offset of the first directory)."""
    order = {b"II": "<", b"MM": ">"}.get(head[:2])
    if order is None or len(head) < 8:
        raise damaged(name, f"begins with {head[:4]!r}, not with a TIFF's header")
    (magic,) = struct.unpack(order + "H", head[2:4])
    if magic == 42:
        return order, False, struct.unpack(order + "I", head[4:8])[0]
    if magic == 43 and len(head) >= 16 and struct.unpack(order + "HH", head[4:8]) == (8, 0):
        return order, True, struct.unpack(order + "Q", head[8:16])[0]
    raise damaged(name, f"has the TIFF version {magic}, expected 42 or 43")


def _native(data: bytes, stored: str) -> npt.NDArray[Any]:
    values = np.frombuffer(data, stored)
    return values.astype(values.dtype.newbyteorder("="), copy=False)
