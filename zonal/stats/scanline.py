"""The compiled sweeps behind `cover`: rings in, spans and edge pixels out.

Knows vertices, pixel rows and float arithmetic; knows neither shapely nor a
CRS. What the results mean is said in coverage.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
import numpy.typing as npt
from numba import njit

Ints = npt.NDArray[np.int32]
Offsets = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bytes = npt.NDArray[np.uint8]
Words = npt.NDArray[np.uint64]
Function = TypeVar("Function", bound=Callable[..., Any])
Column = TypeVar("Column", Ints, Floats)

TINY = 1e-9
"""Weights under this are 0 and over 1 - this are 1 (docs/correctness.md, line 2)."""

GRAIN = 2.0**44
"""Parts of a pixel that heights are rounded to."""

BAND_CELLS = 1 << 16
"""Cells of scratch: 1 MiB, which a core's cache holds."""


class Rings(NamedTuple):
    """Zone k of `zone` has polygons ``zone_at[k]:zone_at[k + 1]``, and so on down to vertices."""

    x: Floats
    y: Floats
    ring_at: Offsets
    polygon_at: Offsets
    zone_at: Offsets
    zone: Ints


class Axis(NamedTuple):
    """Pixels along one side of the chunk, on the ground."""

    origin: float
    step: float
    size: int


Spans = tuple[Ints, Ints, Ints]
Edges = tuple[Ints, Ints, Floats]


def no_spans() -> Spans:
    """Return spans of length zero."""
    return np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0, np.int32)


def no_edges() -> Edges:
    """Return edge pixels of length zero."""
    return np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0, np.float64)


def _compiled(function: Function) -> Function:
    """Compile without the GIL and keep the code on disk; no fast-math: sums keep their order."""
    return cast(Function, njit(nogil=True, cache=True)(function))


@_compiled
def _longer(zone: Ints, pixel: Ints, value: Column) -> tuple[Ints, Ints, Column]:
    """Return copies with twice the room."""
    return (
        np.concatenate((zone, np.empty_like(zone))),
        np.concatenate((pixel, np.empty_like(pixel))),
        np.concatenate((value, np.empty_like(value))),
    )


@_compiled
def _next_mark(marks: Bytes, words: Words, at: int, end: int) -> int:
    """Return the first place from `at` on whose mark is set, or `end`; eight places at a glance."""
    while at < end:
        if at % 8 == 0 and words[at // 8] == 0:
            at += 8
        elif marks[at]:
            return at
        else:
            at += 1
    return end


@_compiled
def _add_piece(
    cells: Floats, marks: Bytes, base: int, left: int, right: int, x0: float, x1: float, dy: float
) -> None:
    """Add a straight piece of edge that stays in one pixel row and spans `dy` (signed) of its height."""
    low, high = min(x0, x1), max(x0, x1)
    if low >= right:
        return  # it bounds only pixels east of the window
    if low >= left and high <= int(low) + 1:
        cell = base + int(low) - left
        cells[cell, 0] += dy * (1.0 - (0.5 * (low + high) - int(low)))
        cells[cell, 1] += dy
        marks[cell] = 1
        return
    x, spent, col = low, 0.0, int(max(low, left))
    if low < left:
        # What lies west of the window has all its pixels, the first wholly, to its east.
        spent = dy if high <= left else np.rint((left - low) / (high - low) * dy * GRAIN) / GRAIN
        cells[base, 0] += spent
        cells[base, 1] += spent
        marks[base] = 1
        x = float(left)
    while spent != dy and x < right:
        reached, border = dy, high
        if high > col + 1:
            border = col + 1.0
            # The quotient first: it is at most 1, however short the piece.
            reached = np.rint((border - low) / (high - low) * dy * GRAIN) / GRAIN
        cell = base + col - left
        cells[cell, 0] += (reached - spent) * (1.0 - (0.5 * (x + border) - col))
        cells[cell, 1] += reached - spent
        marks[cell] = 1
        spent, x = reached, border
        col += 1


@_compiled
def _add_edge(
    cells: Floats,
    marks: Bytes,
    window: tuple[int, int, int, int],
    stride: int,
    x0: float,
    y0: float,
    x1: float,
    y1: float,
    sign: float,
) -> None:
    """Add one edge's signed area and cover to the window's cells; rows outside it are dropped.

    All heights are multiples of 2^-44 pixel: their sums are exact in float64, so the
    running cover of a row comes back to exactly 0 or 1 however wide the zone is. Areas
    are rounded, but each stays in its own cell and cannot pile up.
    """
    left, right, top, bottom = window
    if y0 > y1:
        # One direction for both zones of a shared edge, so that their shares add up to 1.
        x0, y0, x1, y1, sign = x1, y1, x0, y0, -sign
    low, high = min(x0, x1), max(x0, x1)
    if y0 == y1 or y1 <= top or y0 >= bottom or low >= right:
        return
    slope = (x1 - x0) / (y1 - y0)
    x, y = x0, y0
    if y < top:
        y = float(top)
        x = min(max(x0 + (y - y0) * slope, low), high)
    row = int(y)
    end = min(y1, float(bottom))
    while y < end:
        next_x, next_y = x1, y1
        if row + 1 < y1:
            next_y = row + 1.0
            next_x = min(max(x0 + (next_y - y0) * slope, low), high)
        _add_piece(cells, marks, (row - top) * stride, left, right, x, next_x, sign * (next_y - y))
        x, y = next_x, next_y
        row += 1


@_compiled
def _turn(x: Floats, y: Floats, start: int, stop: int) -> float:
    """Return the sign that makes a ring's inside positive (shoelace formula about its first vertex)."""
    twice = 0.0
    for i in range(start + 1, stop - 1):
        twice += (x[i] - x[start]) * (y[i + 1] - y[start]) - (x[i + 1] - x[start]) * (y[i] - y[start])
    return -1.0 if twice > 0.0 else 1.0


@_compiled
def _clip(low: float, high: float, size: int) -> tuple[int, int]:
    """Clip an extent in pixels to the chunk: first pixel, one past the last."""
    return int(np.floor(min(max(low, 0.0), size))), int(np.ceil(min(max(high, 0.0), size)))


@_compiled
def fractional(rings: Rings, width: int, height: int) -> tuple[Spans, Edges]:
    """Cover zone by zone; coordinates in pixels, rows downwards, `y` in multiples of 2^-44."""
    x, y, ring_at, polygon_at, zone_at, zone = rings
    size = 1024 + width
    span_zone, span_start, span_length = (
        np.empty(size, np.int32),
        np.empty(size, np.int32),
        np.empty(size, np.int32),
    )
    edge_zone, edge_pixel, edge_weight = (
        np.empty(size, np.int32),
        np.empty(size, np.int32),
        np.empty(size, np.float64),
    )
    spans = edges = 0
    signs = np.empty(ring_at.size - 1, np.float64)
    for polygon in range(polygon_at.size - 1):
        for ring in range(polygon_at[polygon], polygon_at[polygon + 1]):
            # Rings after the first are holes, whichever way they run.
            flip = 1.0 if ring == polygon_at[polygon] else -1.0
            signs[ring] = flip * _turn(x, y, ring_at[ring], ring_at[ring + 1])
    # Area and cover of each cell of a band of rows, and a mark on cells that an edge has
    # touched: all zero between bands. A band fits the cache; a zone too large for one has
    # its edges walked once per band.
    size = max(BAND_CELLS, width + 8)
    cells = np.zeros((size, 2), np.float64)
    marks = np.zeros(size // 8 * 8, np.uint8)
    words = marks.view(np.uint64)
    for k in range(zone.size):
        first_ring, end_ring = polygon_at[zone_at[k]], polygon_at[zone_at[k + 1]]
        first, end = ring_at[first_ring], ring_at[end_ring]
        left, right = _clip(x[first:end].min(), x[first:end].max(), width)
        top, bottom = _clip(y[first:end].min(), y[first:end].max(), height)
        if left >= right:
            continue
        stride = (right - left + 7) // 8 * 8
        band_rows = marks.size // stride
        for band in range(top, bottom, band_rows):
            window = (left, right, band, min(band + band_rows, bottom))
            for ring in range(first_ring, end_ring):
                for i in range(ring_at[ring], ring_at[ring + 1] - 1):
                    _add_edge(cells, marks, window, stride, x[i], y[i], x[i + 1], y[i + 1], signs[ring])
            for row in range(band, window[3]):
                if spans + width > span_zone.size:
                    span_zone, span_start, span_length = _longer(span_zone, span_start, span_length)
                if edges + width > edge_zone.size:
                    edge_zone, edge_pixel, edge_weight = _longer(edge_zone, edge_pixel, edge_weight)
                covered = 0.0
                run = -1
                col = left
                while col < right:
                    cell = (row - band) * stride + col - left
                    weight = covered
                    if marks[cell]:
                        until = col + 1
                        weight += cells[cell, 0]
                        covered += cells[cell, 1]
                        cells[cell, 0] = 0.0
                        cells[cell, 1] = 0.0
                        marks[cell] = 0
                    else:
                        until = col + _next_mark(marks, words, cell, cell + right - col) - cell
                    if weight > 1.0 - TINY:
                        if run < 0:
                            run = col
                    else:
                        if run >= 0:
                            span_zone[spans] = zone[k]
                            span_start[spans] = row * width + run
                            span_length[spans] = col - run
                            spans += 1
                            run = -1
                        if weight >= TINY:
                            for pixel in range(col, until):
                                edge_zone[edges] = zone[k]
                                edge_pixel[edges] = row * width + pixel
                                edge_weight[edges] = weight
                                edges += 1
                    col = until
                if run >= 0:
                    span_zone[spans] = zone[k]
                    span_start[spans] = row * width + run
                    span_length[spans] = right - run
                    spans += 1
    return (
        (span_zone[:spans], span_start[:spans], span_length[:spans]),
        (edge_zone[:edges], edge_pixel[:edges], edge_weight[:edges]),
    )


@_compiled
def _centre(i: int, axis: Axis) -> float:
    """Return the ground coordinate of the i-th pixel centre of an axis, counted from the lowest."""
    return axis.origin + ((i if axis.step > 0.0 else axis.size - 1 - i) + 0.5) * axis.step


@_compiled
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


@_compiled
def center(rings: Rings, across: Axis, along: Axis) -> Spans:
    """Cover zone by zone; coordinates on the ground, rows counted from the south.

    Where an edge crosses a row of centres is a function of the edge and of the row's y
    alone, both on the ground: a chunk's border cannot move it. What is left to float64
    is the centre itself, ``x0 + (col + 0.5) * dx`` of the chunk: the uncut grid's to the
    last bit where corner and pixel size are short binary numbers (whole metres are),
    within a unit in the last place elsewhere. A pixel lies in one chunk only, so all
    zones that ask for it see the same centre.
    """
    x, y, ring_at, polygon_at, zone_at, zone = rings
    width, height = across.size, along.size
    size = 1024 + width
    span_zone, span_start, span_length = (
        np.empty(size, np.int32),
        np.empty(size, np.int32),
        np.empty(size, np.int32),
    )
    spans = 0
    # Crossings between a column's centre and the one to its west, modulo 2; zero between zones.
    marks = np.zeros((width + 7) // 8 * 8 * height, np.uint8)
    words = marks.view(np.uint64)
    for k in range(zone.size):
        first_ring, end_ring = polygon_at[zone_at[k]], polygon_at[zone_at[k + 1]]
        first, end = ring_at[first_ring], ring_at[end_ring]
        left = _centres_below(x[first:end].min(), across)
        right = _centres_below(x[first:end].max(), across)
        bottom = _centres_below(y[first:end].min(), along)
        top = _centres_below(y[first:end].max(), along)
        if left >= right:
            continue
        stride = (right - left + 7) // 8 * 8
        # No ring needs a direction here: inside is where the number of crossings is odd.
        for ring in range(first_ring, end_ring):
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
                        marks[(j - bottom) * stride + col - left] ^= 1
        for j in range(bottom, top):
            if spans + width > span_zone.size:
                span_zone, span_start, span_length = _longer(span_zone, span_start, span_length)
            row = height - 1 - j if along.step < 0.0 else j
            west = (j - bottom) * stride
            east = west + right - left
            at = _next_mark(marks, words, west, east)
            while at < east:
                marks[at] = 0
                until = _next_mark(marks, words, at, east)
                span_zone[spans] = zone[k]
                span_start[spans] = row * width + left + at - west
                span_length[spans] = until - at
                spans += 1
                if until < east:
                    marks[until] = 0
                at = _next_mark(marks, words, until, east)
    return span_zone[:spans], span_start[:spans], span_length[:spans]
