"""The seam between bytes and numbers: what every raster format must offer.

A new format is one class with these members. Fetching (I/O) and decoding
(CPU) are apart, so that the next chunk can be in flight while this one is
decoded; neither knows what the pixels are for. Pixels that the caller has no
more use for are offered for reuse: a chunk's are 64 MB, and fresh pages cost as
much as reading it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from zonal.geo.grid import Grid
from zonal.io.store.ranges import Counters, FileStat

DecodeRule = Literal["aef", "linear"]
"""How stored numbers become values: ``aef`` is v = sign(q) (q / 127.5)^2 of int8 q
(applied later, exactly, by the moments); ``linear`` values are delivered ready as float64."""


@dataclass(frozen=True, slots=True)
class Pixels:
    """One decoded chunk.

    Parameters
    ----------
    values : ndarray[band, y, x]
        C-contiguous; int8 codes where the raster's rule is ``aef``, else float64
        values with scale and offset applied.
    valid : bool ndarray[y, x] or bool ndarray[band, y, x]
        False where a pixel (in that band) is nodata.
    """

    values: npt.NDArray[Any]
    valid: npt.NDArray[np.bool_]


def linear_pixels(
    numbers: npt.NDArray[Any],
    valid: npt.NDArray[np.bool_],
    scales: npt.NDArray[np.float64],
    shifts: npt.NDArray[np.float64],
) -> Pixels:
    """Apply scale and offset: what the rule ``linear`` means for any reader.

    Parameters
    ----------
    numbers : ndarray[band, y, x]
        As stored; NaN is never valid.
    valid : bool ndarray[band, y, x]
        Written to.
    scales, shifts : float64 ndarray[band]

    Returns
    -------
    Pixels
        float64 values, 0 where invalid; valid[y, x] where all bands agree, else [band, y, x].
    """
    if numbers.dtype.kind == "f":
        valid &= ~np.isnan(numbers)
    values = numbers.astype(np.float64)
    if (scales != 1).any() or (shifts != 0).any():
        values *= scales[:, None, None]
        values += shifts[:, None, None]
    values[~valid] = 0.0
    return Pixels(values, valid[0].copy() if (valid == valid[0]).all() else valid)


class Stored(Protocol):
    """The stored bytes of a chunk, between `fetch` and `decode`."""

    @property
    def nbytes(self) -> int:
        """Bytes read for it."""


class Raster(Protocol):
    """A raster file, readable chunk by chunk, by several threads at once."""

    @property
    def name(self) -> str:
        """Path or URL, for messages."""

    @property
    def grid(self) -> Grid:
        """Placement and chunks, as the file itself states them."""

    @property
    def bands(self) -> tuple[str, ...]:
        """Band names: the file's descriptions, else band1, band2, ..."""

    @property
    def nodata(self) -> tuple[float | None, ...]:
        """Stored value that means nothing, band by band, as the file states it."""

    @property
    def rule(self) -> DecodeRule:
        """How stored numbers become values."""

    @property
    def counters(self) -> Counters:
        """What was read so far."""

    @property
    def stat(self) -> FileStat:
        """Size and version of the file when it was opened."""

    @property
    def header(self) -> Any:
        """What another process opens the file with, without reading it again; None if it must read it."""

    @property
    def header_bytes(self) -> int:
        """Bytes that opening it read."""

    def chunk_bytes(self, chunk: int) -> int:
        """Bytes of a chunk as stored, as far as the header tells; what `fetch` will hold."""

    def fetch(self, chunk: int) -> Stored:
        """Read the stored bytes of a chunk (I/O only)."""

    def decode(self, fetched: Any, reuse: Pixels | None = None) -> Pixels:
        """Turn what `fetch` returned into pixels (CPU only); may write them over those of `reuse`."""
