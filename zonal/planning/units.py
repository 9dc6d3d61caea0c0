"""The plan of a run: units of chunks and parts of zones.

A pure value, made of staged zones, tiles and settings alone, so it is the same
on any cluster. Knows no file and no task.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import shapely

from zonal.geo.antimeridian import Geometries
from zonal.geo.grid import Bounds, Grid
from zonal.geo.pieces import areas
from zonal.planning.tiles import Tile

Ints = npt.NDArray[np.int64]

HAIR = 1e-9
"""Pixels by which a chunk is shrunk when asked whether a zone touches it: less than that weighs nothing."""


@dataclass(frozen=True, slots=True)
class RowGroups:
    """The runs of zones that are staged, and read, together; g row groups.

    Parameters
    ----------
    bounds : int64 ndarray[g + 1]
        Row group i holds zones ``bounds[i]`` to ``bounds[i + 1]``.
    batch : int64 ndarray[g]
        Number of the staged file (one for each state) that holds it.
    """

    bounds: Ints
    batch: Ints


@dataclass(frozen=True, slots=True)
class Outlines:
    """Pieces as planning needs them: their boxes, and few of their polygons; p pieces.

    Parameters
    ----------
    epsg : int32 ndarray[p]
        EPSG code of each piece's UTM zone.
    bounds : float64 ndarray[p, 4]
        Its (west, south, east, north) there.
    row_group : int64 ndarray[p]
    polygons : callable
        Gives the polygons of some pieces (indices into these arrays).
    """

    epsg: npt.NDArray[np.int32]
    bounds: npt.NDArray[np.float64]
    row_group: Ints
    polygons: Callable[[Ints], Geometries]


@dataclass(frozen=True, slots=True)
class Touches:
    """Which row groups have a piece on which chunks; unique, sorted (tile, chunk, row group)."""

    tile: Ints
    chunk: Ints
    row_group: Ints


@dataclass(frozen=True, slots=True)
class Unit:
    """One task: chunks of one tile, the row groups whose pieces they reduce, the parts they serve."""

    number: int
    tile: int
    chunks: tuple[int, ...]
    row_groups: tuple[int, ...]
    parts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Part:
    """Zones start..stop (row groups first..last of one batch), finished and written together."""

    number: int
    batch: int
    row_groups: tuple[int, int]
    zones: tuple[int, int]
    units: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run does: `units` make moments, `parts` gather them and finish zones.

    Parameters
    ----------
    tiles : tuple of Tile
        Those that a piece touches, ordered by (EPSG, path).
    units, parts : tuples
        Their `number` is their place.
    row_groups : RowGroups
        Of the staged zones.
    """

    tiles: tuple[Tile, ...]
    units: tuple[Unit, ...]
    parts: tuple[Part, ...]
    row_groups: RowGroups

    @property
    def zones(self) -> int:
        """Zones to summarise."""
        return int(self.row_groups.bounds[-1])

    @property
    def chunks(self) -> int:
        """Chunks to fetch."""
        return sum(len(unit.chunks) for unit in self.units)

    @property
    def chunks_of_whole_files(self) -> int:
        """Chunks that the tiles hold in all."""
        return sum(tile.grid.chunk_count for tile in self.tiles)


def touches(pieces: Outlines, tiles: Sequence[Tile]) -> Touches:
    """Find the chunks that each piece touches.

    Parameters
    ----------
    pieces : Outlines
    tiles : sequence of Tile
        With the ground they own; `Touches.tile` counts in this order.
    """
    # Runs of pieces of one row group lie close together: most tiles are far from most runs.
    order = np.lexsort((pieces.row_group, pieces.epsg))
    bounds, epsg, row_group = pieces.bounds[order], pieces.epsg[order], pieces.row_group[order]
    start = np.flatnonzero(np.diff(row_group, prepend=-1) | np.diff(epsg, prepend=-1))
    stop = np.append(start[1:], len(order))
    run_epsg = epsg[start]
    runs = _union(bounds, start)
    touched = [np.zeros((3, 0), np.int64)]
    for number, tile in enumerate(tiles):
        near = np.flatnonzero((run_epsg == tile.epsg) & _meet(runs, tile.grid.bounds))
        if not len(near):
            continue
        rows = np.concatenate([np.arange(start[run], stop[run]) for run in near])
        rows = rows[_meet(bounds[rows], tile.grid.bounds)]
        if tile.ground is None:
            polygons = _some(pieces.polygons, order[rows])
            boxes = bounds[rows]
        else:
            owned = areas(shapely.intersection(areas(pieces.polygons(order[rows])), tile.owned))
            real = shapely.area(owned) > 0
            rows, polygons = rows[real], owned[real].__getitem__
            boxes = shapely.bounds(owned[real])
        at, chunk = _chunks(polygons, boxes, row_group[rows], tile.grid)
        touched.append(_distinct(np.full(len(at), number), chunk, row_group[rows[at]])[0])
    return Touches(*np.concatenate(touched, axis=1))


def _some(polygons: Callable[[Ints], Geometries], rows: Ints) -> Callable[[Ints], Geometries]:
    """Give the polygons of some of some rows."""
    return lambda some: polygons(rows[some])


def _union(bounds: npt.NDArray[np.float64], start: Ints) -> npt.NDArray[np.float64]:
    """Box around each run of boxes."""
    if not len(start):
        return np.zeros((0, 4))
    low, high = np.minimum.reduceat(bounds[:, :2], start), np.maximum.reduceat(bounds[:, 2:], start)
    return np.concatenate([low, high], axis=1)


def _meet(boxes: npt.NDArray[np.float64], box: Bounds) -> npt.NDArray[np.bool_]:
    """Which boxes share ground with a box."""
    west, south, east, north = box
    meet = (boxes[:, 0] < east) & (boxes[:, 2] > west) & (boxes[:, 1] < north) & (boxes[:, 3] > south)
    return np.asarray(meet)


def _distinct(*columns: Ints) -> tuple[Ints, Ints]:
    """Distinct rows in ascending order, an array row for each column, and the place of each row given."""
    order = np.lexsort(columns[::-1])
    rows = np.stack(columns)[:, order]
    new = np.ones(len(order), bool)
    new[1:] = (rows[:, 1:] != rows[:, :-1]).any(axis=0)
    place = np.empty(len(order), np.int64)
    place[order] = np.cumsum(new) - 1
    return rows[:, new], place


def join(batches: Iterable[Touches]) -> Touches:
    """Touches of several batches as one."""
    rows = [np.stack([t.tile, t.chunk, t.row_group]) for t in batches]
    return Touches(*_distinct(*np.concatenate([np.zeros((3, 0), np.int64), *rows], axis=1))[0])


def _chunks(
    polygons: Callable[[Ints], Geometries], boxes: npt.NDArray[np.float64], row_group: Ints, grid: Grid
) -> tuple[Ints, Ints]:
    """Pairs (row of `boxes`, chunk) that touch, enough to know each row group's chunks.

    `polygons` gives what is in some of the boxes.
    """
    across = (boxes[:, [0, 2]] - grid.x0) / (grid.dx * grid.chunk_width)
    down = np.sort((boxes[:, [1, 3]] - grid.y0) / (grid.dy * grid.chunk_height), axis=1)
    first_column, last_column = _cells(across, grid.chunk_columns)
    first_row, last_row = _cells(down, grid.chunk_rows)
    wide, high = last_column - first_column + 1, last_row - first_row + 1
    count = wide * high
    at = np.repeat(np.arange(len(boxes)), count)
    within = np.arange(len(at)) - np.repeat(np.cumsum(count) - count, count)
    row = first_row[at] + within // wide[at]
    column = first_column[at] + within % wide[at]
    chunk = row * grid.chunk_columns + column
    # A box that is not inside one chunk says little of the polygon inside it: ask the polygon, unless
    # another of its row group is known to touch the chunk.
    west, south, east, north = grid.bounds
    beyond = (boxes[:, :2] < (west, south)).any(axis=1) | (boxes[:, 2:] > (east, north)).any(axis=1)
    touched = ((count == 1) & ~beyond)[at]
    pair = chunk * (row_group.max(initial=0) + 1) + row_group[at]
    ask = np.flatnonzero(~touched & ~np.isin(pair, pair[touched]))
    hair = HAIR * grid.dx
    left = grid.x0 + column[ask] * grid.chunk_width * grid.dx
    edge = grid.y0 + row[ask] * grid.chunk_height * grid.dy
    far = edge + grid.chunk_height * grid.dy
    cells = shapely.box(
        left + hair,
        np.maximum(np.minimum(edge, far), south) + hair,
        np.minimum(left + grid.chunk_width * grid.dx, east) - hair,
        np.minimum(np.maximum(edge, far), north) - hair,
    )
    if len(ask):
        rows, row_of = np.unique(at[ask], return_inverse=True)
        touched[ask] = shapely.intersects(polygons(rows)[row_of], cells)
    return at[touched], chunk[touched]


def _cells(span: npt.NDArray[np.float64], count: int) -> tuple[Ints, Ints]:
    """First and last cell of each (low, high), in units of cells, clipped to 0..count-1."""
    first = np.clip(np.floor(span[:, 0]), 0, count - 1).astype(np.int64)
    last = np.clip(np.ceil(span[:, 1]) - 1, 0, count - 1).astype(np.int64)
    return first, np.maximum(first, last)


def make(
    row_groups: RowGroups,
    touched: Touches,
    tiles: Sequence[Tile],
    *,
    part_zones: int,
    part_chunks: int,
    unit_chunks: int,
) -> Plan:
    """Make the plan.

    Parameters
    ----------
    row_groups : RowGroups
    touched : Touches
        `tile` counts in `tiles`.
    tiles : sequence of Tile
        Ordered by (EPSG, path); those that nothing touches are left out.
    part_zones, part_chunks : int
        Caps of a part; a single row group may exceed them.
    unit_chunks : int
        Chunks of a unit.
    """
    used, tile = np.unique(touched.tile, return_inverse=True)
    (tile_of, chunk_of), of_chunk = _distinct(tile, touched.chunk)
    first_row, last_row = _part_bounds(row_groups, of_chunk, touched.row_group, part_zones, part_chunks)
    part_of = np.repeat(np.arange(len(first_row)), last_row - first_row)
    part = part_of[touched.row_group] if len(part_of) else touched.row_group
    first_part = np.full(len(tile_of), len(first_row), np.int64)
    np.minimum.at(first_part, of_chunk, part)

    # Chunks of a tile in the order in which parts need them, so that parts finish early.
    order = np.lexsort((chunk_of, first_part, tile_of))
    begins = np.searchsorted(tile_of[order], np.arange(len(used)))
    place = np.arange(len(order)) - begins[tile_of[order]]
    starts = np.flatnonzero(place % unit_chunks == 0)
    unit_of = np.empty(len(order), np.int64)
    unit_of[order] = np.searchsorted(starts, np.arange(len(order)), side="right") - 1
    groups_of = _grouped(unit_of[of_chunk], touched.row_group, len(starts))
    parts_of = _grouped(unit_of[of_chunk], part, len(starts))
    units_of = _grouped(part, unit_of[of_chunk], len(first_row))
    units = tuple(
        Unit(
            number=number,
            tile=int(tile_of[chunks[0]]),
            chunks=tuple(chunk_of[chunks].tolist()),
            row_groups=groups_of[number],
            parts=parts_of[number],
        )
        for number, chunks in enumerate(np.split(order, starts[1:]) if len(order) else [])
    )
    parts = tuple(
        Part(
            number=number,
            batch=int(row_groups.batch[first]),
            row_groups=(int(first), int(last)),
            zones=(int(row_groups.bounds[first]), int(row_groups.bounds[last])),
            units=units_of[number],
        )
        for number, (first, last) in enumerate(zip(first_row, last_row, strict=True))
    )
    return Plan(tuple(tiles[t] for t in used), units, parts, row_groups)


def _part_bounds(
    row_groups: RowGroups, chunk: Ints, row_group: Ints, part_zones: int, part_chunks: int
) -> tuple[Ints, Ints]:
    """First and one-past-last row group of each part."""
    chunks_of = _grouped(row_group, chunk, len(row_groups.batch))
    starts: list[int] = []
    seen: set[int] = set()
    for group, batch in enumerate(row_groups.batch):
        if starts:
            zones = row_groups.bounds[group + 1] - row_groups.bounds[starts[-1]]
            more = seen.union(chunks_of[group])
            if batch == row_groups.batch[starts[-1]] and zones <= part_zones and len(more) <= part_chunks:
                seen = more
                continue
        starts.append(group)
        seen = set(chunks_of[group])
    return np.array(starts, np.int64), np.array([*starts[1:], len(row_groups.batch)][: len(starts)], np.int64)


def _grouped(key: Ints, value: Ints, count: int) -> list[tuple[int, ...]]:
    """For each key 0..count, its distinct values in ascending order."""
    (keys, values), _ = _distinct(key, value)
    cuts = np.searchsorted(keys, np.arange(1, count))
    return [tuple(some.tolist()) for some in np.split(values, cuts)] if count else []
