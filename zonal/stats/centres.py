"""The compiled sweep behind rule ``center``: rings in, spans of pixel centres out.

Knows vertices, pixel centres and float arithmetic; knows neither shapely nor a
CRS. What the result means, and what ties do, is said in coverage.py.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from zonal.stats.compiling import compiled, inlined
from zonal.stats.rows import (
    Ints,
    Offsets,
    Rings,
    Spans,
    by_row,
    extent,
    first_mark,
    flip,
    longer,
    without_first,
    words_for,
)


class Axis(NamedTuple):
    """Pixels along one side of the chunk, on the ground."""

    origin: float
    step: float
    size: int


@inlined
def _centre(i: int, axis: Axis) -> float:
    """Return the ground coordinate of the i-th pixel centre of an axis, counted from the lowest."""
    return axis.origin + ((i if axis.step > 0.0 else axis.size - 1 - i) + 0.5) * axis.step


@inlined
def _centres_below(value: float, axis: Axis) -> int:
    """Return how many pixel centres of an axis lie below `value` on the ground."""
    guess = (value - axis.origin) / axis.step - 0.5
    if axis.step < 0.0:
        guess = axis.size - 1 - guess
    i = int(min(max(np.ceil(guess), 0.0), axis.size))
    # The division only guesses; the comparison with the centre itself decides.
    while i > 0 and _centre(i - 1, axis) >= value:
        i -= 1
    while i < axis.size and _centre(i, axis) < value:
        i += 1
    return i


def center(rings: Rings, across: Axis, along: Axis) -> Spans:
    """Cover zone by zone; coordinates on the ground, rows counted from the south.

    Where an edge crosses a row of centres is a function of the edge and of the row's y
    alone, both on the ground: a chunk's border cannot move it. What is left to float64
    is the centre itself, ``x0 + (col + 0.5) * dx`` of the chunk: the uncut grid's to the
    last bit where corner and pixel size are short binary numbers (whole metres are),
    within a unit in the last place elsewhere. A pixel lies in one chunk only, so all
    zones that ask for it see the same centre.
    """
    return by_row(*_center(rings, across, along), across.size, along.size)


@compiled
def _center(rings: Rings, across: Axis, along: Axis) -> tuple[Ints, Ints, Offsets, Ints, Ints]:
    x, y, ring_at = rings.x, rings.y, rings.ring_at
    width, height = across.size, along.size
    zones = rings.zone.size
    boxes = np.empty((zones, 4), np.int64)
    rows = 0
    for k in range(zones):
        low, high = extent(x, rings, k)
        boxes[k, 0], boxes[k, 1] = _centres_below(low, across), _centres_below(high, across)
        low, high = extent(y, rings, k)
        boxes[k, 2], boxes[k, 3] = _centres_below(low, along), _centres_below(high, along)
        if boxes[k, 0] < boxes[k, 1]:
            rows += boxes[k, 3] - boxes[k, 2]
    # One stretch for each zone and row: where its spans end.
    zone, row_of, end = np.empty(rows, np.int32), np.empty(rows, np.int32), np.empty(rows, np.int64)
    size = 1024 + width + min(2 * rows, 1 << 22)
    span_col, span_length = np.empty(size, np.int32), np.empty(size, np.int32)
    stretch = spans = 0
    # Crossings between a column's centre and the one to its west, modulo 2; zero between zones.
    marks = np.zeros(words_for(width) * height, np.uint64)
    for k in range(zones):
        slot = rings.zone[k]
        left, right, bottom, top = boxes[k, 0], boxes[k, 1], boxes[k, 2], boxes[k, 3]
        if left >= right:
            continue
        words = words_for(right - left)
        # No ring needs a direction here: inside is where the number of crossings is odd.
        rings_of = rings.polygon_at[rings.zone_at[k]], rings.polygon_at[rings.zone_at[k + 1]]
        for ring in range(rings_of[0], rings_of[1]):
            for i in range(ring_at[ring], ring_at[ring + 1] - 1):
                xa, ya, xb, yb = x[i], y[i], x[i + 1], y[i + 1]
                if ya > yb:
                    # One direction for both zones of a shared edge: the same crossing to the bit.
                    xa, ya, xb, yb = xb, yb, xa, ya
                low, high = min(xa, xb), max(xa, xb)
                # The southern end counts, the northern does not.
                for j in range(_centres_below(ya, along), _centres_below(yb, along)):
                    # Product before quotient: exact for a centre on an edge between whole metres.
                    crossing = xa + (_centre(j, along) - ya) * (xb - xa) / (yb - ya)
                    col = _centres_below(min(max(crossing, low), high), across)
                    if col < right:
                        flip(marks, (j - bottom) * words, col - left)
        for j in range(bottom, top):
            if spans + width > span_col.size:
                span_col, span_length = longer(span_col, span_length)
            run = -1
            for i in range(words):
                word = marks[(j - bottom) * words + i]
                marks[(j - bottom) * words + i] = 0
                while word != 0:
                    col = left + 64 * i + first_mark(word)
                    word = without_first(word)
                    if run < 0:
                        run = col
                    else:
                        span_col[spans], span_length[spans] = run, col - run
                        spans += 1
                        run = -1
            if run >= 0:
                span_col[spans], span_length[spans] = run, right - run
                spans += 1
            zone[stretch], row_of[stretch] = slot, height - 1 - j if along.step < 0.0 else j
            end[stretch] = spans
            stretch += 1
    return zone, row_of, end, span_col, span_length
