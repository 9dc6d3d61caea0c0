"""The compiled sweeps behind `cover`: rings in, spans and edge pixels out.

Knows vertices, pixel rows and float arithmetic; knows neither shapely nor a
CRS. What the results mean is said in coverage.py.
"""

from __future__ import annotations

import numpy as np

from zonal.stats.compiling import compiled, inlined
from zonal.stats.rows import (
    Edges,
    Floats,
    Ints,
    Offsets,
    Rings,
    Spans,
    Words,
    by_row,
    extent,
    first_mark,
    longer,
    mark,
    without_first,
    words_for,
)

TINY = 1e-9
"""Weights under this are 0 and over 1 - this are 1 (docs/correctness.md, line 2)."""

GRAIN = 2.0**44
"""Parts of a pixel that heights are rounded to."""

BAND_CELLS = 1 << 16
"""Cells of scratch: 1 MiB, which a core's cache holds."""


@inlined
def _add_piece(
    cells: Floats,
    marks: Words,
    base: int,
    word: int,
    left: int,
    right: int,
    x0: float,
    x1: float,
    dy: float,
) -> None:
    """Add a straight piece of edge that stays in one pixel row and spans `dy` (signed) of its height.

    `base` is the cell of column `left`, and `word` its marks.
    """
    low, high = min(x0, x1), max(x0, x1)
    if low >= right:
        return  # it bounds only pixels east of the window
    if low >= left and high <= int(low) + 1:
        cell = base + int(low) - left
        cells[cell, 0] += dy * (1.0 - (0.5 * (low + high) - int(low)))
        cells[cell, 1] += dy
        mark(marks, word, int(low) - left)
        return
    x, spent, col = low, 0.0, int(max(low, left))
    if low < left:
        # What lies west of the window has all its pixels, the first wholly, to its east.
        spent = dy if high <= left else np.rint((left - low) / (high - low) * dy * GRAIN) / GRAIN
        cells[base, 0] += spent
        cells[base, 1] += spent
        mark(marks, word, 0)
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
        mark(marks, word, col - left)
        spent, x = reached, border
        col += 1


@inlined
def _add_edge(
    cells: Floats,
    marks: Words,
    window: tuple[int, int, int, int],
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
    words = words_for(right - left)
    while y < end:
        next_x, next_y = x1, y1
        if row + 1 < y1:
            next_y = row + 1.0
            next_x = min(max(x0 + (next_y - y0) * slope, low), high)
        base, word = (row - top) * (right - left), (row - top) * words
        _add_piece(cells, marks, base, word, left, right, x, next_x, sign * (next_y - y))
        x, y = next_x, next_y
        row += 1


@compiled
def _turn(x: Floats, y: Floats, start: int, stop: int) -> float:
    """Return the sign that makes a ring's inside positive (shoelace formula about its first vertex)."""
    twice = 0.0
    for i in range(start + 1, stop - 1):
        twice += (x[i] - x[start]) * (y[i + 1] - y[start]) - (x[i + 1] - x[start]) * (y[i] - y[start])
    return -1.0 if twice > 0.0 else 1.0


@inlined
def _clip(low: float, high: float, size: int) -> tuple[int, int]:
    """Clip an extent in pixels to the chunk: first pixel, one past the last."""
    return int(np.floor(min(max(low, 0.0), size))), int(np.ceil(min(max(high, 0.0), size)))


@compiled
def _add_rings(
    cells: Floats, marks: Words, window: tuple[int, int, int, int], rings: Rings, k: int, signs: Floats
) -> None:
    """Add all edges of a zone to the window's cells."""
    x, y, ring_at = rings.x, rings.y, rings.ring_at
    polygons = rings.zone_at[k], rings.zone_at[k + 1]
    for ring in range(rings.polygon_at[polygons[0]], rings.polygon_at[polygons[1]]):
        for i in range(ring_at[ring], ring_at[ring + 1] - 1):
            _add_edge(cells, marks, window, x[i], y[i], x[i + 1], y[i + 1], signs[ring])


@compiled
def _signs(rings: Rings) -> Floats:
    """Return the sign of each ring: rings after a polygon's first are holes, whichever way they run."""
    signs = np.empty(rings.ring_at.size - 1, np.float64)
    for polygon in range(rings.polygon_at.size - 1):
        for ring in range(rings.polygon_at[polygon], rings.polygon_at[polygon + 1]):
            flip = 1.0 if ring == rings.polygon_at[polygon] else -1.0
            signs[ring] = flip * _turn(rings.x, rings.y, rings.ring_at[ring], rings.ring_at[ring + 1])
    return signs


@inlined
def _sweep_row(
    cells: Floats,
    marks: Words,
    window: tuple[int, int, int, int],
    row: int,
    span_col: Ints,
    span_length: Ints,
    spans: int,
    edge_col: Ints,
    edge_weight: Floats,
    edges: int,
) -> tuple[int, int]:
    """Write down a row's spans and edge pixels, and wipe its cells; return how many there are now."""
    left, right, top, _ = window
    words = words_for(right - left)
    base, word_base = (row - top) * (right - left) - left, (row - top) * words
    covered, run, col = 0.0, -1, left
    for i in range(words + 1):
        word = np.uint64(0)
        if i < words:
            word = marks[word_base + i]
            marks[word_base + i] = 0
        # Unmarked pixels up to the next mark, or to the row's end, have the running cover.
        while word != 0 or (i == words and col < right):
            until = left + 64 * i + first_mark(word) if i < words else right
            weight = covered
            if col == until:
                word = without_first(word)
                weight += cells[base + col, 0]
                covered += cells[base + col, 1]
                cells[base + col, 0] = 0.0
                cells[base + col, 1] = 0.0
                until += 1
            if weight > 1.0 - TINY:
                if run < 0:
                    run = col
            else:
                if run >= 0:
                    span_col[spans], span_length[spans] = run, col - run
                    spans += 1
                    run = -1
                if weight >= TINY:
                    for pixel in range(col, until):
                        edge_col[edges], edge_weight[edges] = pixel, weight
                        edges += 1
            col = until
    if run >= 0:
        span_col[spans], span_length[spans] = run, right - run
        spans += 1
    return spans, edges


@compiled
def _boxes(rings: Rings, width: int, height: int) -> tuple[Offsets, int, int]:
    """Return each zone's box in pixels of the chunk (left, right, top, bottom), all rows and all sides."""
    boxes = np.zeros((rings.zone.size, 4), np.int64)
    rows = sides = 0
    for k in range(rings.zone.size):
        left, right = _clip(*extent(rings.x, rings, k), width)
        top, bottom = _clip(*extent(rings.y, rings, k), height)
        if left < right:
            boxes[k, 0], boxes[k, 1], boxes[k, 2], boxes[k, 3] = left, right, top, bottom
            rows += bottom - top
            sides += 2 * (right - left + bottom - top)
    return boxes, rows, sides


@compiled
def _sweep(
    rings: Rings,
    boxes: Offsets,
    width: int,
    zone: Ints,
    row_of: Ints,
    span_end: Offsets,
    edge_end: Offsets,
    span_col: Ints,
    span_length: Ints,
    edge_col: Ints,
    edge_weight: Floats,
) -> tuple[Ints, Ints, Ints, Floats]:
    """Sweep zone by zone; return columns, lengths and weights, in longer arrays where there was no room."""
    stretch = spans = edges = 0
    signs = _signs(rings)
    # Area and cover of each cell of a band of rows, and a mark on cells that an edge has
    # touched: all zero between bands. A band fits the cache; a zone too large for one has
    # its edges walked once per band.
    size = max(BAND_CELLS, width)
    cells = np.zeros((size, 2), np.float64)
    marks = np.zeros(size, np.uint64)
    for k in range(rings.zone.size):
        left, right, top, bottom = boxes[k, 0], boxes[k, 1], boxes[k, 2], boxes[k, 3]
        if left >= right:
            continue
        slot = rings.zone[k]
        band_rows = size // (right - left)
        for band in range(top, bottom, band_rows):
            window = (left, right, band, min(band + band_rows, bottom))
            _add_rings(cells, marks, window, rings, k, signs)
            if spans + size > span_col.size:
                span_col, span_length = longer(span_col, span_length)
            if edges + size > edge_col.size:
                edge_col, edge_weight = longer(edge_col, edge_weight)
            for row in range(band, window[3]):
                spans, edges = _sweep_row(
                    cells, marks, window, row, span_col, span_length, spans, edge_col, edge_weight, edges
                )
                zone[stretch], row_of[stretch] = slot, row
                span_end[stretch], edge_end[stretch] = spans, edges
                stretch += 1
    return span_col, span_length, edge_col, edge_weight


def fractional(rings: Rings, width: int, height: int) -> tuple[Spans, Edges]:
    """Cover zone by zone; coordinates in pixels, rows downwards, `y` in multiples of 2^-44."""
    boxes, rows, sides = _boxes(rings, width, height)
    zone, row, span_end, edge_end = (
        np.empty(rows, np.int32),
        np.empty(rows, np.int32),
        np.empty(rows, np.int64),
        np.empty(rows, np.int64),
    )
    # A guess that blocks do not outgrow; memory that is not written to costs nothing. One block of
    # NumPy's comes in large pages: page faults of arrays made here and there took a third of the time.
    size = max(BAND_CELLS, width) + min(2 * sides, 1 << 22)
    weights = np.empty(5 * size // 2 + 1)
    ints = weights[size:].view(np.int32)
    col, length, edge_col, weight = _sweep(
        rings, boxes, width, zone, row, span_end, edge_end,
        ints[:size], ints[size : 2 * size], ints[2 * size : 3 * size], weights[:size],
    )  # fmt: skip
    return (
        by_row(zone, row, span_end, col, length, width, height),
        by_row(zone, row, edge_end, edge_col, weight, width, height),
    )
