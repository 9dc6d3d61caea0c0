"""Plans: every touched chunk once, parts within their caps, and a pure function of its input."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import shapely
from hypothesis import given
from hypothesis import strategies as st
from synthetic import utm_grid

from zonal.geo.pieces import Pieces
from zonal.planning.tiles import Tile, own
from zonal.planning.units import Outlines, Plan, RowGroups, Touches, join, make, touches

ORIGIN = np.array([500_000.0, 4_000_000.0])

Array = npt.NDArray[Any]


def tile_at(west: float, south: float, width: int, height: int, *, up: bool = True, **values: Any) -> Tile:
    epsg = values.get("epsg", 32616)
    grid = utm_grid(epsg, west, south, width, height, values.get("chunk", 32), south_up=up)
    return Tile(values.get("path", f"{epsg}/{west:.0f}/{south:.0f}"), epsg, grid)


def pieces_of(*geometries: Any, epsg: int = 32616) -> Pieces:
    zones = np.empty(len(geometries), dtype=object)
    zones[:] = geometries
    return Pieces(np.arange(len(zones)), np.full(len(zones), epsg, np.int32), zones)


def outlines(pieces: Pieces, row_group: Array) -> Outlines:
    bounds = shapely.bounds(pieces.geometry)
    return Outlines(pieces.epsg, bounds, row_group, pieces.geometry.__getitem__)


def triples(found: Touches) -> set[tuple[int, int, int]]:
    rows = list(zip(found.tile.tolist(), found.chunk.tolist(), found.row_group.tolist(), strict=True))
    assert rows == sorted(set(rows)), "sorted, and each once"
    return set(rows)


# ------------------------------------------------------------------ touches


@st.composite
def worlds(draw: st.DrawFn) -> tuple[Pieces, Array, list[Tile]]:
    """Some tiles, perhaps overlapping, and polygons over and beside them, some along chunk borders."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    tiles = []
    for number in range(rng.integers(1, 4)):
        west, south = 500_000 + 10 * rng.integers(0, 60, 2)
        size = rng.integers(5, 120, 2)
        tiles.append(
            tile_at(
                float(west),
                4_000_000.0 + float(south - 500_000),
                *map(int, size),
                up=bool(rng.integers(2)),
                path=f"p{number}",
                chunk=int(rng.choice([16, 32, 48])),
                epsg=32616 + int(rng.integers(2)),
            )
        )
    zones = []
    for _ in range(rng.integers(1, 12)):
        centre = ORIGIN + rng.uniform(-200, 1800, 2)
        if rng.random() < 0.3:
            corner = np.round((centre - ORIGIN) / 160) * 160 + ORIGIN
            zones.append(shapely.box(*corner, *(corner + 160 * rng.integers(1, 4, 2))))
            continue
        angle = np.sort(rng.uniform(0, 2 * np.pi, 8))
        radius = rng.uniform(0.1, 1, 8) * rng.choice([5, 100, 900])
        star = shapely.Polygon(centre + radius[:, None] * np.c_[np.cos(angle), np.sin(angle)])
        if star.is_valid:
            zones.append(star)
    pieces = pieces_of(*zones)
    epsg = (32616 + rng.integers(0, 2, len(zones))).astype(np.int32)
    row_group = np.sort(rng.integers(0, 4, len(zones)))
    return Pieces(pieces.zone, epsg, pieces.geometry), row_group, own(tiles)


@given(worlds())
def test_touched_chunks_are_those_that_share_ground_with_a_piece(
    world: tuple[Pieces, Array, list[Tile]],
) -> None:
    pieces, row_group, tiles = world
    certain, possible = set(), set()
    for number, tile in enumerate(tiles):
        for chunk in range(tile.grid.chunk_count):
            box = shapely.intersection(shapely.box(*tile.grid.chunk(chunk).bounds), tile.owned)
            for at in np.flatnonzero(pieces.epsg == tile.epsg):
                area = shapely.intersection(pieces.geometry[at], box).area
                if area > 0:
                    possible.add((number, chunk, int(row_group[at])))
                if area > 1e-4:
                    certain.add((number, chunk, int(row_group[at])))
    found = triples(touches(outlines(pieces, row_group), tiles))
    assert certain <= found <= possible


@given(st.integers(0, 2**32 - 1))
def test_among_many_tiles_and_batches_each_piece_finds_the_tiles_under_it(seed: int) -> None:
    """Whatever the order of pieces, as if each were asked alone."""
    rng = np.random.default_rng(seed)
    tiles = own(
        tile_at(500_000 + 300.0 * x, 4e6 + 320.0 * y, 32, 32, path=f"{x} {y} {epsg}", chunk=16, epsg=epsg)
        for x in range(6)
        for y in range(6)
        for epsg in (32616, 32617)
        if rng.random() < 0.8
    )
    centre = ORIGIN + rng.uniform(0, 1900, (50, 2))
    half = rng.choice([1, 40, 300], (50, 1)) * rng.uniform(0.1, 1, (50, 2))
    pieces = pieces_of(*shapely.box(*(centre - half).T, *(centre + half).T))
    epsg = (32616 + rng.integers(0, 2, 50)).astype(np.int32)
    pieces = Pieces(pieces.zone, epsg, pieces.geometry)
    row_group = rng.integers(0, 9, 50)
    alone = [touches(outlines(pieces.take(row), row_group[row]), tiles) for row in np.arange(50)[:, None]]
    expected = {row for found in alone for row in triples(found)}
    assert triples(touches(outlines(pieces, row_group), tiles)) == expected
    assert (
        triples(
            join(
                [
                    touches(outlines(pieces.take(half), row_group[half]), tiles)
                    for half in np.array_split(rng.permutation(50), 3)
                ]
            )
        )
        == expected
    )


def test_a_bent_zone_beside_a_tile_does_not_touch_it() -> None:
    """Its box does: an L around the tile's corner."""
    tile = tile_at(500_000, 4_000_000, 32, 32)
    around = shapely.box(499_000, 3_999_000, 500_500, 4_000_500) - shapely.box(
        499_900, 3_999_900, 500_500, 4_000_500
    )
    assert around.envelope.intersects(tile.extent)
    assert not triples(touches(outlines(pieces_of(around), np.zeros(1, np.int64)), [tile]))


def test_a_zone_along_chunk_borders_touches_only_its_own_chunks() -> None:
    tile = tile_at(500_000, 4_000_000, 96, 96)
    middle = shapely.box(500_320, 4_000_320, 500_640, 4_000_640)
    for up in (True, False):
        tile = tile_at(500_000, 4_000_000, 96, 96, up=up)
        assert triples(touches(outlines(pieces_of(middle), np.zeros(1, np.int64)), [tile])) == {(0, 4, 0)}


def test_the_direction_of_rows_numbers_the_chunks() -> None:
    corner = pieces_of(shapely.box(500_010, 4_000_010, 500_020, 4_000_020))
    one = np.zeros(1, np.int64)
    assert triples(touches(outlines(corner, one), [tile_at(500_000, 4_000_000, 64, 64)])) == {(0, 0, 0)}
    assert triples(touches(outlines(corner, one), [tile_at(500_000, 4_000_000, 64, 64, up=False)])) == {
        (0, 2, 0)
    }


def test_pieces_of_other_utm_zones_touch_nothing() -> None:
    tile = tile_at(500_000, 4_000_000, 64, 64)
    assert not triples(touches(outlines(pieces_of(tile.extent, epsg=32617), np.zeros(1, np.int64)), [tile]))


def test_ground_of_another_tile_is_not_touched_twice() -> None:
    tiles = own(
        [tile_at(500_000, 4_000_000, 64, 64, path="a"), tile_at(500_320, 4_000_000, 64, 64, path="b")]
    )
    zone = pieces_of(shapely.box(500_400, 4_000_010, 500_500, 4_000_020))
    assert triples(touches(outlines(zone, np.zeros(1, np.int64)), tiles)) == {(0, 1, 0)}


def test_touches_of_batches_join_into_one() -> None:
    tile = tile_at(500_000, 4_000_000, 64, 64)
    one = touches(outlines(pieces_of(tile.extent), np.zeros(1, np.int64)), [tile])
    two = touches(outlines(pieces_of(tile.extent), np.ones(1, np.int64)), [tile])
    assert triples(join([two, one, one])) == triples(one) | triples(two)
    assert not triples(join([]))


# ------------------------------------------------------------------ make


@st.composite
def incidences(draw: st.DrawFn) -> tuple[RowGroups, Touches, list[Tile], dict[str, int]]:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    groups = int(rng.integers(1, 40))
    bounds = np.concatenate([[0], np.cumsum(rng.integers(1, 50, groups))])
    batch = np.sort(rng.integers(0, rng.integers(1, 5), groups))
    tiles = [tile_at(500_000 + 960 * n, 4e6, 96, 96) for n in range(5)]
    size = int(rng.integers(0, 120))
    rows = np.stack([rng.integers(0, 5, size), rng.integers(0, 9, size), rng.integers(0, groups, size)])
    rows = rows[:, rows[0] != rng.integers(0, 5)]  # a tile that nothing touches
    caps = {
        "part_zones": int(rng.integers(1, 200)),
        "part_chunks": int(rng.integers(1, 20)),
        "unit_chunks": int(rng.integers(1, 6)),
    }
    touched = Touches(*np.unique(rows, axis=1))
    return RowGroups(bounds.astype(np.int64), batch.astype(np.int64)), touched, tiles, caps


def chunks_of(touched: Touches, first: int, last: int) -> set[tuple[int, int]]:
    mine = (touched.row_group >= first) & (touched.row_group < last)
    return set(zip(touched.tile[mine].tolist(), touched.chunk[mine].tolist(), strict=True))


@given(incidences())
def test_parts_hold_all_zones_in_order_within_their_caps_and_batches(
    given_: tuple[RowGroups, Touches, list[Tile], dict[str, int]],
) -> None:
    groups, touched, tiles, caps = given_
    plan = make(groups, touched, tiles, **caps)
    at = 0
    for number, part in enumerate(plan.parts):
        first, last = part.row_groups
        assert part.number == number
        assert first == at < last
        assert part.zones == (groups.bounds[first], groups.bounds[last])
        assert set(groups.batch[first:last].tolist()) == {part.batch}
        if last - first > 1:  # one row group alone may exceed the caps
            assert part.zones[1] - part.zones[0] <= caps["part_zones"]
            assert len(chunks_of(touched, first, last)) <= caps["part_chunks"]
        at = last
    assert at == len(groups.batch)
    assert plan.zones == groups.bounds[-1]


@given(incidences())
def test_every_part_gets_each_of_its_chunks_from_just_one_unit(
    given_: tuple[RowGroups, Touches, list[Tile], dict[str, int]],
) -> None:
    groups, touched, tiles, caps = given_
    plan = make(groups, touched, tiles, **caps)
    path = [tile.path for tile in plan.tiles]
    assert path == [tiles[n].path for n in np.unique(touched.tile)], "tiles that are touched, in order"
    held: dict[tuple[str, int], int] = {}
    for number, unit in enumerate(plan.units):
        assert unit.number == number
        assert 1 <= len(unit.chunks) <= caps["unit_chunks"]
        for chunk in unit.chunks:
            assert (path[unit.tile], chunk) not in held, "a chunk is fetched once"
            held[path[unit.tile], chunk] = number
    assert held.keys() == {(tiles[tile].path, chunk) for tile, chunk in chunks_of(touched, 0, 10**9)}
    assert plan.chunks == len(held)
    for part in plan.parts:
        wanted = {held[tiles[tile].path, chunk] for tile, chunk in chunks_of(touched, *part.row_groups)}
        assert part.units == tuple(sorted(wanted))
        for unit in plan.units:
            assert (part.number in unit.parts) == (unit.number in part.units)
    for unit in plan.units:
        assert unit.parts == tuple(sorted(set(unit.parts)))
        mine = np.array([held[tiles[t].path, c] for t, c in zip(touched.tile, touched.chunk, strict=True)])
        rows = touched.row_group[mine == unit.number]
        assert unit.row_groups == tuple(np.unique(rows).tolist())


@given(incidences())
def test_equal_input_gives_an_equal_plan(
    given_: tuple[RowGroups, Touches, list[Tile], dict[str, int]],
) -> None:
    groups, touched, tiles, caps = given_
    copy = Touches(touched.tile.copy(), touched.chunk.copy(), touched.row_group.copy())
    one, two = make(groups, touched, tiles, **caps), make(groups, copy, list(tiles), **caps)
    assert (one.tiles, one.units, one.parts) == (two.tiles, two.units, two.parts)
    assert repr(one.units) == repr(two.units)


def test_a_units_chunks_come_in_the_order_in_which_parts_need_them() -> None:
    tiles = [tile_at(500_000, 4e6, 96, 96)]
    groups = RowGroups(np.arange(5) * 10, np.zeros(4, np.int64))
    # Row group g touches chunk 8 - g.
    touched = Touches(np.zeros(4, np.int64), np.arange(5, 9), np.arange(4)[::-1])
    plan = make(groups, touched, tiles, part_zones=10, part_chunks=9, unit_chunks=2)
    assert [unit.chunks for unit in plan.units] == [(8, 7), (6, 5)]
    assert [part.units for part in plan.parts] == [(0,), (0,), (1,), (1,)]


def test_parts_are_cut_when_they_would_need_too_many_chunks() -> None:
    tiles = [tile_at(500_000, 4e6, 96, 96)]
    groups = RowGroups(np.arange(7) * 10, np.zeros(6, np.int64))
    touched = Touches(np.zeros(6, np.int64), np.arange(6), np.arange(6))
    plan = make(groups, touched, tiles, part_zones=1000, part_chunks=4, unit_chunks=4)
    assert [part.row_groups for part in plan.parts] == [(0, 4), (4, 6)]


def test_a_plan_over_zones_that_no_tile_holds_has_parts_without_units() -> None:
    nothing = Touches(*np.zeros((3, 0), np.int64))
    groups = RowGroups(np.array([0, 10, 20]), np.zeros(2, np.int64))
    tiles = [tile_at(500_000, 4e6, 96, 96)]
    plan = make(groups, nothing, tiles, part_zones=100, part_chunks=4, unit_chunks=4)
    assert (plan.tiles, plan.units, plan.chunks, plan.chunks_of_whole_files) == ((), (), 0, 0)
    assert [part.zones for part in plan.parts] == [(0, 20)]
    assert plan.parts[0].units == ()


def test_a_plan_of_nothing_is_empty() -> None:
    nothing = Touches(*np.zeros((3, 0), np.int64))
    groups = RowGroups(np.zeros(1, np.int64), np.zeros(0, np.int64))
    plan = make(groups, nothing, [], part_zones=100, part_chunks=4, unit_chunks=4)
    assert plan.zones == 0
    assert (plan.tiles, plan.units, plan.parts) == ((), (), ())
    assert isinstance(plan, Plan)
