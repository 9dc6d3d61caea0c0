"""What the sweeps of scanline.py and centres.py share: rings in, marks on touched cells, output row by row.

Knows vertices, bits, columns and rows; knows no rule by which a pixel is covered.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from zonal.stats.compiling import compiled, inlined, trailing_zeros

Ints = npt.NDArray[np.int32]
Offsets = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Words = npt.NDArray[np.uint64]
Column = TypeVar("Column", Ints, Floats)

Spans = tuple[Ints, Ints, Ints]
Edges = tuple[Ints, Ints, Floats]

_ONE = np.uint64(1)
_LOW_BITS = np.uint64(63)


class Rings(NamedTuple):
    """Polygons as flat arrays of vertices.

    Zone k of `zone` has polygons ``zone_at[k]:zone_at[k + 1]``, and so on down to vertices.
    """

    x: Floats
    y: Floats
    ring_at: Offsets
    polygon_at: Offsets
    zone_at: Offsets
    zone: Ints


@compiled
def extent(values: Floats, rings: Rings, k: int) -> tuple[float, float]:
    """Return the least and the greatest of a zone's coordinates along one axis."""
    first = rings.ring_at[rings.polygon_at[rings.zone_at[k]]]
    end = rings.ring_at[rings.polygon_at[rings.zone_at[k + 1]]]
    low = high = values[first]
    for i in range(first + 1, end):
        low, high = min(low, values[i]), max(high, values[i])
    return low, high


def no_spans() -> Spans:
    """Return spans of length zero."""
    return np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0, np.int32)


def no_edges() -> Edges:
    """Return edge pixels of length zero."""
    return np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0, np.float64)


@inlined
def words_for(columns: int) -> int:
    """Return how many words hold one mark for each of a row's columns."""
    return (columns + 63) >> 6


@inlined
def mark(words: Words, base: int, column: int) -> None:
    """Set the mark of a column, counted from the row's first."""
    words[base + (column >> 6)] |= _ONE << (np.uint64(column) & _LOW_BITS)


@inlined
def flip(words: Words, base: int, column: int) -> None:
    """Set the mark of a column if it is not set, else take it away."""
    words[base + (column >> 6)] ^= _ONE << (np.uint64(column) & _LOW_BITS)


@inlined
def first_mark(word: np.uint64) -> Any:
    """Return the place of the first mark of a word that has any."""
    return np.int64(trailing_zeros(word))


@inlined
def without_first(word: np.uint64) -> np.uint64:
    """Return the word less its first mark."""
    return word & (word - _ONE)


@compiled
def longer(column: Ints, value: Column) -> tuple[Ints, Column]:
    """Return copies with twice the room."""
    return (
        np.concatenate((column, np.empty_like(column))),
        np.concatenate((value, np.empty_like(value))),
    )


@compiled
def _scatter(
    zone: Ints,
    row: Ints,
    end: Offsets,
    column: Ints,
    value: Column,
    width: int,
    height: int,
    to_zone: Ints,
    to_pixel: Ints,
    to_value: Column,
) -> None:
    at = np.zeros(height + 1, np.int64)
    start = 0
    for i in range(zone.size):
        at[row[i] + 1] += end[i] - start
        start = end[i]
    for i in range(height):
        at[i + 1] += at[i]
    start = 0
    for i in range(zone.size):
        to = at[row[i]]
        for j in range(start, end[i]):
            to_zone[to] = zone[i]
            to_pixel[to] = row[i] * width + column[j]
            to_value[to] = value[j]
            to += 1
        at[row[i]] = to
        start = end[i]


def by_row(
    zone: Ints, row: Ints, end: Offsets, column: Ints, value: Column, width: int, height: int
) -> tuple[Ints, Ints, Column]:
    """Put in order of rows what comes zone by zone; a row's zones, and a zone's columns, keep their order.

    Stretch i, of zone ``zone[i]`` on row ``row[i]``, has the entries from ``end[i - 1]`` to ``end[i]``.
    One counting pass: nothing is compared, and each stretch moves as a whole.

    Returns
    -------
    (zone, pixel, value) of each entry
    """
    size = int(end[-1]) if end.size else 0
    block = np.empty(size + size * value.itemsize // 8 + 1)
    ints = block[:size].view(np.int32)
    to_value = block[size:].view(value.dtype)[:size]
    _scatter(zone, row, end, column, value, width, height, ints[:size], ints[size:], to_value)
    return ints[:size], ints[size:], to_value
