"""Which pixels of a chunk a zone covers, and by how much.

Knows polygons and one chunk's grid; knows no pixel values, no bands, no files
and no ownership of ground. Everything downstream is a walk over what `cover` returns.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeVar, cast

import numpy as np
import numpy.typing as npt
import shapely
from numba import njit

from zonal.grid import Grid

Rule = Literal["fractional", "center"]
Engine = Literal["native", "exactextract"]

Ints = npt.NDArray[np.int32]
Offsets = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bytes = npt.NDArray[np.uint8]
Words = npt.NDArray[np.uint64]
Function = TypeVar("Function", bound=Callable[..., Any])
Column = TypeVar("Column", Ints, Floats)

TINY = 1e-9
"""Weights under this are 0 and over 1 - this are 1 (docs/correctness.md, line 2)."""

_GRAIN = 2.0**44  # parts of a pixel that heights are rounded to
_BAND_CELLS = 1 << 16  # cells of scratch: 1 MiB, which a core's cache holds
_FARTHEST = 1e12  # pixels from the chunk that a vertex may lie


@dataclass(frozen=True, slots=True)
class Coverage:
    """Zones x one chunk. Pixels are flat offsets ``row * width + col`` inside the chunk.

    Spans and edge pixels are each sorted by (pixel, zone). A zone that misses
    the chunk has no entries.

    Parameters
    ----------
    zones : int
        Number of geometries given; they are numbered from 0 in their order.
    span_zone, span_start, span_length : int32[s]
        Runs of pixels of weight exactly 1, none longer than its pixel row.
    edge_zone, edge_pixel : int32[e]
        Pixels that a zone covers in part.
    edge_weight : float64[e]
        Fraction of the pixel's area inside the zone, 0 < weight < 1.
    """

    zones: int
    span_zone: Ints
    span_start: Ints
    span_length: Ints
    edge_zone: Ints
    edge_pixel: Ints
    edge_weight: Floats


def cover(
    geometries: npt.NDArray[Any], grid: Grid, rule: Rule = "fractional", engine: Engine = "native"
) -> Coverage:
    """Cover one chunk's pixels with zones.

    ``fractional`` is the exact share of each pixel's area, found by adding up every
    edge's signed area and height ("cover") cell by cell and summing along pixel rows,
    as anti-aliasing font rasterisers do (R. Levien, font-rs; D. Turner, FreeType
    ``ftgrays.c``). Shares under 1e-9 are 0 and over 1 - 1e-9 are 1.

    ``center`` is 1 where a pixel's centre is inside, else 0. Ties are half-open, east
    and north: a centre exactly on a zone's border is inside if the zone lies on the
    border's eastern side or, where the border runs east-west, on its northern side.
    So a zone owns its western and southern borders, and a partition of the plane counts
    each centre once. The rule looks at ground coordinates, not at rows: north-up and
    south-up rasters agree.

    Parameters
    ----------
    geometries : object ndarray[zone] of shapely Polygon or MultiPolygon
        Valid, in the grid's CRS; rings may run either way. None and empty cover nothing.
    grid : Grid
        Of one chunk; ``chunk_width`` and ``chunk_height`` are not looked at.
    rule : {"fractional", "center"}
        See above.
    engine : {"native", "exactextract"}
        ``exactextract`` asks that library for the fractions, which it gives in float32;
        the same thresholds hold, and differences stay near 1e-7.

    Returns
    -------
    Coverage
        The same bytes for the same input.

    Raises
    ------
    ValueError
        Rule ``center`` with engine ``exactextract``; a geometry that is no polygon, or
        has coordinates that are not finite or absurdly far away; an unknown word.
    """
    if rule not in ("fractional", "center") or engine not in ("native", "exactextract"):
        raise ValueError(f"unknown coverage {rule=} or {engine=}")
    if rule == "center" and engine == "exactextract":
        raise ValueError(
            "engine 'exactextract' knows only rule 'fractional'; use engine 'native' for 'center'"
        )
    if grid.width * grid.height > np.iinfo(np.int32).max:
        raise ValueError(f"a chunk of {grid.width} x {grid.height} pixels is too large: offsets are int32")
    width, height = int(grid.width), int(grid.height)
    kept = _touching(geometries, grid)
    spans, edges = _no_spans(), _no_edges()
    if kept.size and engine == "exactextract":
        spans, edges = _ask_exactextract(geometries, kept, grid)
    elif kept.size and rule == "center":
        across = _Axis(float(grid.x0), float(grid.dx), width)
        along = _Axis(float(grid.y0), float(grid.dy), height)
        spans = _center(_flatten(geometries, kept, grid), across, along)
    elif kept.size:
        rings = _flatten(geometries, kept, grid)
        # In pixels from the chunk's corner; near the chunk the subtraction is exact.
        x = (rings.x - grid.x0) / grid.dx
        # Multiples of 2^-44 pixel (6e-14): why, says _add_edge.
        y = np.rint((rings.y - grid.y0) / grid.dy * _GRAIN) / _GRAIN
        spans, edges = _fractional(rings._replace(x=x, y=y), width, height)
    return Coverage(len(geometries), *_sort(*spans), *_sort(*edges))


class _Rings(NamedTuple):
    """Zone k of `zone` has polygons ``zone_at[k]:zone_at[k + 1]``, and so on down to vertices."""

    x: Floats
    y: Floats
    ring_at: Offsets
    polygon_at: Offsets
    zone_at: Offsets
    zone: Ints


class _Axis(NamedTuple):
    """Pixels along one side of the chunk, on the ground."""

    origin: float
    step: float
    size: int


_Spans = tuple[Ints, Ints, Ints]
_Edges = tuple[Ints, Ints, Floats]


def _no_spans() -> _Spans:
    return np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0, np.int32)


def _no_edges() -> _Edges:
    return np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0, np.float64)


def _sort(zone: Ints, pixel: Ints, value: Column) -> tuple[Ints, Ints, Column]:
    """Sort by (pixel, zone) what comes zone by zone and row by row."""
    # Stable keeps the zones' order; and as a merge sort it feeds on the runs that are there.
    # Two counting passes, rows then columns, took as long.
    order = np.argsort(pixel, kind="stable")
    return zone[order], pixel[order], value[order]


def _touching(geometries: npt.NDArray[Any], grid: Grid) -> Offsets:
    """Return the numbers of the zones whose box meets the chunk's."""
    kinds = shapely.get_type_id(geometries)
    wrong = (kinds != -1) & (kinds != 3) & (kinds != 6)
    if wrong.any():
        zone = int(np.flatnonzero(wrong)[0])
        raise ValueError(f"zone {zone} is a {geometries[zone].geom_type}, expected a Polygon or MultiPolygon")
    present = (kinds != -1) & ~shapely.is_empty(geometries)
    boxes = shapely.bounds(geometries)
    west, south, east, north = grid.bounds
    # Closed, so that the rounding of grid.bounds loses nothing that the kernels would find.
    near = (boxes[:, 0] <= east) & (boxes[:, 2] >= west) & (boxes[:, 1] <= north) & (boxes[:, 3] >= south)
    astray = ~np.isfinite(boxes).all(axis=1)  # kept, for _flatten to refuse
    return np.flatnonzero(present & (near | astray))


def _flatten(geometries: npt.NDArray[Any], kept: Offsets, grid: Grid) -> _Rings:
    kind, xy, offsets = shapely.to_ragged_array(geometries[kept], include_z=False)
    at = [np.asarray(offset, dtype=np.int64) for offset in offsets]
    if kind == shapely.GeometryType.POLYGON:
        at.append(np.arange(kept.size + 1, dtype=np.int64))
    x, y = np.ascontiguousarray(xy[:, 0]), np.ascontiguousarray(xy[:, 1])
    # NaN and infinity fail this too; the kernels index memory by these numbers.
    fine = (np.abs(x - grid.x0) < _FARTHEST * grid.dx) & (np.abs(y - grid.y0) < _FARTHEST * abs(grid.dy))
    if not fine.all():
        vertex = int(np.flatnonzero(~fine)[0])
        ring = np.searchsorted(at[0], vertex, side="right") - 1
        polygon = np.searchsorted(at[1], ring, side="right") - 1
        zone = kept[np.searchsorted(at[2], polygon, side="right") - 1]
        raise ValueError(f"zone {zone} has a vertex at ({x[vertex]}, {y[vertex]}): no place in {grid.crs}")
    return _Rings(x, y, at[0], at[1], at[2], kept.astype(np.int32))


def _ask_exactextract(geometries: npt.NDArray[Any], kept: Offsets, grid: Grid) -> tuple[_Spans, _Edges]:
    """Build spans and edge pixels from exactextract's ``cell_id`` and ``coverage``.

    Version 0.3 can crash the process on parts of a multipolygon that lie along the raster's
    border or beyond it. So it gets single polygons, cut half a pixel outside the chunk, and
    a raster with a margin of one pixel, which is dropped from its answer.
    """
    from exactextract import exact_extract
    from exactextract.feature import JSONFeatureSource
    from exactextract.raster import NumPyRasterSource

    west, south, east, north = grid.bounds
    margin_x, margin_y = grid.dx / 2, abs(grid.dy) / 2
    frame = shapely.box(west - margin_x, south - margin_y, east + margin_x, north + margin_y)
    polygons, of = shapely.get_parts(shapely.intersection(geometries[kept], frame), return_index=True)
    flat = (shapely.get_type_id(polygons) == 3) & ~shapely.is_empty(polygons)
    # In pixels, north-up, as it wants it; vertices that miss a grid line by rounding are put on it.
    corner, steps = (grid.x0, grid.y0), (grid.dx, -grid.dy)
    polygons = shapely.transform(
        polygons[flat], lambda xy: np.rint((xy - corner) / steps * 2.0**30) / 2.0**30 + (0, grid.height)
    )
    zones = JSONFeatureSource(
        [
            {"type": "Feature", "properties": {"zone": int(k)}, "geometry": json.loads(shape)}
            for k, shape in zip(kept[of[flat]], shapely.to_geojson(polygons), strict=True)
        ]
    )
    width, height = grid.width + 2, grid.height + 2
    blank = np.zeros((height, width), dtype=np.int8)
    raster = NumPyRasterSource(blank, xmin=-1, ymin=-1, xmax=grid.width + 1, ymax=grid.height + 1)
    found = exact_extract(raster, zones, ["cell_id", "coverage"], include_cols=["zone"], output="pandas")
    if len(found) == 0:
        return _no_spans(), _no_edges()
    cells = [np.asarray(cell, dtype=np.int64) for cell in found["cell_id"]]
    of_cell = np.repeat(found["zone"].to_numpy(dtype=np.int64), [cell.size for cell in cells])
    row, col = np.divmod(np.concatenate(cells), width)
    shares = np.concatenate([np.asarray(share, dtype=np.float64) for share in found["coverage"]])
    inside = (row > 0) & (row < height - 1) & (col > 0) & (col < width - 1)
    size = grid.width * grid.height
    key = (of_cell * size + (row - 1) * grid.width + col - 1)[inside]
    # A pixel shared by several parts of a zone has the sum of their shares.
    key, same = np.unique(key, return_inverse=True)
    weight = np.bincount(same, shares[inside], len(key)).astype(np.float64)
    zone, pixel = (key // size).astype(np.int32), (key % size).astype(np.int32)
    full = weight > 1 - TINY
    edge = ~full & (weight >= TINY)
    # A span ends where adjacency, which holds inside one zone only, or the row breaks.
    key = key[full]
    breaks = (np.diff(key) != 1) | (key[1:] % grid.width == 0)
    first = np.flatnonzero(np.concatenate([np.ones(min(1, key.size), dtype=bool), breaks]))
    length = np.diff(np.append(first, key.size)).astype(np.int32)
    return (zone[full][first], pixel[full][first], length), (zone[edge], pixel[edge], weight[edge])


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
        spent = dy if high <= left else np.rint((left - low) / (high - low) * dy * _GRAIN) / _GRAIN
        cells[base, 0] += spent
        cells[base, 1] += spent
        marks[base] = 1
        x = float(left)
    while spent != dy and x < right:
        reached, border = dy, high
        if high > col + 1:
            border = col + 1.0
            # The quotient first: it is at most 1, however short the piece.
            reached = np.rint((border - low) / (high - low) * dy * _GRAIN) / _GRAIN
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
def _fractional(rings: _Rings, width: int, height: int) -> tuple[_Spans, _Edges]:
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
    size = max(_BAND_CELLS, width + 8)
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
def _centre(i: int, axis: _Axis) -> float:
    """Return the ground coordinate of the i-th pixel centre of an axis, counted from the lowest."""
    return axis.origin + ((i if axis.step > 0.0 else axis.size - 1 - i) + 0.5) * axis.step


@_compiled
def _centres_below(value: float, axis: _Axis) -> int:
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
def _center(rings: _Rings, across: _Axis, along: _Axis) -> _Spans:
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
