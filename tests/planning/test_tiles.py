"""The tile index, and which ground each tile owns: every bit of ground once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyproj
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from synthetic import Tile as SyntheticTile
from synthetic import index_frame, utm_grid

from zonal.errors import InputError
from zonal.geo.antimeridian import unwrap
from zonal.geo.pieces import Pieces, utm_pieces
from zonal.planning.tiles import (
    INDEX_COLUMNS,
    Tile,
    TileSpec,
    boxes_covered,
    foreign_pieces,
    from_index,
    near,
    own,
)

SPEC = TileSpec(resolution=10.0, chunk=64, south_up=True)
GEOD = pyproj.Geod(ellps="WGS84")

Array = npt.NDArray[Any]


def index_of(*grids: Any, year: int = 2024) -> pd.DataFrame:
    blank = np.empty((1, 1, 1), np.int8)
    tiles = [SyntheticTile(grid, blank, name=f"t{number}") for number, grid in enumerate(grids)]
    return pd.DataFrame(index_frame(tiles, year).drop(columns="geometry"))


def row_of(**values: Any) -> pd.DataFrame:
    row = {"path": "s3://b/t.tiff", "year": 2024, "crs": "EPSG:32616"}
    row |= {"utm_west": 500_000.0, "utm_south": 4e6, "utm_east": 505_120.0, "utm_north": 4_001_280.0}
    row |= {"wgs84_west": -87.0, "wgs84_south": 36.1, "wgs84_east": -86.9, "wgs84_north": 36.2}
    return pd.DataFrame([row | values])


def tile_at(
    epsg: int, west: float, south: float, width: int = 100, height: int = 100, path: str = ""
) -> Tile:
    """Make a tile by its south-western corner and its pixels of 10 m."""
    grid = utm_grid(epsg, west, south, width, height, 64)
    return Tile(path or f"{epsg}/{west:.0f}-{south:.0f}", epsg, grid)


# ------------------------------------------------------------------ index rows


def test_an_index_row_becomes_the_grid_its_file_should_have() -> None:
    (tile,) = from_index(row_of(), SPEC, "index")
    assert (tile.path, tile.epsg, tile.ground) == ("s3://b/t.tiff", 32616, None)
    assert tile.grid == utm_grid(32616, 500_000, 4e6, 512, 128, 64)
    (tile,) = from_index(row_of(), replace(SPEC, south_up=False), "index")
    assert tile.grid == utm_grid(32616, 500_000, 4e6, 512, 128, 64, south_up=False)


def test_an_index_row_that_comes_twice_is_one_tile() -> None:
    assert len(from_index(pd.concat([row_of(), row_of()]), SPEC, "index")) == 1


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:32661", "EPSG:26910", "EPSG:32600", "32616N", None])
def test_a_tile_outside_utm_is_an_error(crs: Any) -> None:
    with pytest.raises(InputError) as caught:
        from_index(row_of(crs=crs), SPEC, "aef_index.parquet")
    assert str(caught.value) == (
        f"aef_index.parquet: tile s3://b/t.tiff: crs {crs!r} is no WGS 84 UTM zone (EPSG:326xx, 327xx)"
    )


@pytest.mark.parametrize(
    ("bounds", "shown"),
    [
        ({"utm_east": 505_125.0}, "500000.0, 4000000.0, 505125.0, 4001280.0"),
        ({"utm_north": 4e6}, "500000.0, 4000000.0, 505120.0, 4000000.0"),
        ({"utm_west": 6e5}, "600000.0, 4000000.0, 505120.0, 4001280.0"),
        ({"utm_west": float("nan")}, "nan, 4000000.0, 505120.0, 4001280.0"),
    ],
)
def test_bounds_that_are_no_whole_pixels_are_an_error(bounds: dict[str, float], shown: str) -> None:
    with pytest.raises(InputError) as caught:
        from_index(row_of(**bounds), SPEC, "aef_index.parquet")
    assert str(caught.value) == (
        f"aef_index.parquet: tile s3://b/t.tiff: bounds {shown} are not a whole number of 10 m pixels"
    )


# ------------------------------------------------------------------ near


@pytest.mark.parametrize("column", INDEX_COLUMNS)
def test_a_missing_index_column_is_named(column: str) -> None:
    with pytest.raises(InputError) as caught:
        near(row_of().drop(columns=column), 2024, np.array([[-87, 36, -86, 37.0]]), "aef_index.parquet")
    assert (
        str(caught.value) == f"aef_index.parquet: no column {column!r}; is it the index of another product?"
    )


def test_an_index_without_rows_says_so() -> None:
    with pytest.raises(InputError) as caught:
        near(row_of()[:0], 2024, np.array([[-87, 36, -86, 37.0]]), "aef_index.parquet")
    assert str(caught.value) == "aef_index.parquet: the tile index has no rows; was it written in full?"


@pytest.mark.parametrize(
    ("years", "have"),
    [
        ([2017, 2018, 2019], "2017 to 2019"),
        ([2017, 2019], "2017, 2019"),
        ([2020], "2020"),
    ],
)
def test_a_year_without_tiles_is_an_error_that_tells_the_years(years: list[int], have: str) -> None:
    index = pd.concat([row_of(year=year) for year in years])
    with pytest.raises(InputError) as caught:
        near(index, 2031, np.array([[-87, 36, -86, 37.0]]), "aef_index.parquet")
    assert str(caught.value) == f"aef_index.parquet: no tiles of 2031; it has {have}"


def test_near_takes_the_years_own_rows_only() -> None:
    index = pd.concat([row_of(year=2023, path="old"), row_of(path="new")])
    assert near(index, 2024, np.array([[-87, 36.15, -86.95, 36.16]]), "i")["path"].tolist() == ["new"]


@pytest.mark.parametrize(
    ("box", "hit"),
    [
        ((-86.95, 36.15, -86.94, 36.16), True),
        ((-87.10, 36.15, -87.005, 36.16), True),  # 0.005 degrees beside it: the box is grown by 0.01
        ((-87.10, 36.15, -87.015, 36.16), False),
        ((-86.95, 36.209, -86.94, 36.3), True),
        ((-86.95, 36.211, -86.94, 36.3), False),
    ],
)
def test_near_grows_the_boxes_of_tiles_by_a_hundredth_of_a_degree(box: tuple[float, ...], hit: bool) -> None:
    assert len(near(row_of(), 2024, np.array([box]), "i")) == hit


@pytest.mark.parametrize(
    ("west", "east"), [(179.98, 180.03), (-180.02, -179.97), (-179.99, -179.97), (179.95, 179.96)]
)
@pytest.mark.parametrize(("tile_west", "tile_east"), [(179.9, -179.9), (179.9, 180.1), (-180.1, -179.9)])
def test_near_finds_tiles_across_the_antimeridian_however_they_are_written(
    west: float, east: float, tile_west: float, tile_east: float
) -> None:
    rows = row_of(wgs84_west=tile_west, wgs84_east=tile_east)
    assert len(near(rows, 2024, np.array([[west, 36.1, east, 36.2]]), "i")) == 1
    assert len(near(rows, 2024, np.array([[0, 36.1, 1, 36.2]]), "i")) == 0


def test_near_finds_each_tile_once_for_many_boxes_and_none_for_none() -> None:
    index = index_of(utm_grid(32616, 500_000, 4e6), utm_grid(32616, 505_120, 4e6), utm_grid(32617, 3e5, 6e6))
    boxes = np.array([[-87, 36.14, -86.99, 36.15], [-86.93, 36.15, -86.92, 36.16]] * 3)
    assert near(index, 2024, boxes, "i")["fid"].tolist() == [1, 2]
    assert len(near(index, 2024, np.zeros((0, 4)), "i")) == 0


# ------------------------------------------------------------------ own


@given(st.integers(0, 2**32 - 1), st.integers(1, 7))
def test_overlapping_extents_own_disjoint_ground_that_leaves_nothing_out(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    tiles = []
    for number in range(count):
        west, south = rng.integers(0, 20, 2) * 100 + [500_000, 4_000_000]
        size = rng.integers(1, 120, 2)
        epsg = int(rng.choice([32616, 32617]))
        tiles.append(tile_at(epsg, west, south, *size, path=f"p{number}"))
    owned = own([tiles[i] for i in rng.permutation(count)])
    assert [(tile.epsg, tile.path) for tile in owned] == sorted((tile.epsg, tile.path) for tile in tiles)
    for epsg in (32616, 32617):
        group = [tile for tile in owned if tile.epsg == epsg]
        union = shapely.union_all([tile.extent for tile in group])
        grounds = [tile.owned for tile in group]
        # A tile that lies in an earlier one owns nothing.
        assert all(g.is_empty or g.geom_type in ("Polygon", "MultiPolygon") for g in grounds)
        assert sum(g.area for g in grounds) == pytest.approx(union.area, abs=1e-3)
        assert shapely.union_all(grounds).symmetric_difference(union).area < 1e-3
        for tile in group:
            assert tile.owned.difference(tile.extent).area < 1e-3


def test_the_first_path_wins_where_tiles_overlap() -> None:
    b, a = tile_at(32616, 5e5, 4e6, path="b"), tile_at(32616, 500_500, 4e6, path="a")
    first, second = own([b, a])
    assert (first.path, first.ground) == ("a", None)
    assert second.path == "b"
    assert second.owned.bounds == (5e5, 4e6, 500_500, 4_001_000)


def test_tiles_side_by_side_own_all_of_themselves() -> None:
    tiles = own([tile_at(32616, 5e5, 4e6), tile_at(32616, 501_000, 4e6), tile_at(32616, 5e5, 4_001_000)])
    assert all(tile.ground is None for tile in tiles)


def test_a_tile_under_another_owns_nothing() -> None:
    first, second = own([tile_at(32616, 5e5, 4e6, path="a"), tile_at(32616, 5e5, 4e6, path="b")])
    assert first.ground is None
    assert second.owned.is_empty


# ------------------------------------------------------------------ ground of a neighbour


def project(geometry: Any, source: int, target: int) -> Any:
    """Project a polygon of short edges with pyproj alone; longitudes come out near the first one."""
    transformer = pyproj.Transformer.from_crs(source, target, always_xy=True)
    fine = shapely.segmentize(geometry, 1e-4 if source == 4326 else 5)

    def points(xy: Array) -> Array:
        x, y = transformer.transform(xy[:, 0], xy[:, 1])
        if target == 4326:
            x = x[0] + (np.asarray(x) - x[0] + 180) % 360 - 180
        return np.column_stack([x, y])

    return shapely.transform(fine, points)


def ground(geometry: Any) -> float:
    """Area on the ellipsoid of polygons in degrees, m2."""
    geometry = shapely.orient_polygons(shapely.segmentize(geometry, 1e-4))
    rings = shapely.get_rings(shapely.get_parts(geometry))
    return abs(sum(GEOD.polygon_area_perimeter(*shapely.get_coordinates(ring).T)[0] for ring in rings))


def ground_of(pieces: Pieces) -> float:
    """Area on the ellipsoid of pieces, m2."""
    pairs = zip(pieces.epsg, pieces.geometry, strict=True)
    return sum(ground(project(geometry, epsg, 4326)) for epsg, geometry in pairs)


def tile_over(epsg: int, polygon: Any, margin: float = 200, path: str = "") -> Tile:
    """Make a tile of a UTM zone that covers a polygon in degrees and a little more."""
    west, south, east, north = project(polygon, 4326, epsg).bounds
    west, south = np.floor((np.array([west, south]) - margin) / 10) * 10
    width, height = (int(np.ceil((d + margin) / 10)) for d in (east - west, north - south))
    return tile_at(epsg, float(west), float(south), width, height, path)


def near_seam(lon: float, lat: float, west: float = -0.01, east: float = 0.008) -> Any:
    """A zone across the meridian `lon`, its edges short."""
    return shapely.segmentize(shapely.box(lon + west, lat, lon + east, lat + 0.01), 1e-4)


SEAMS = [(-120.0, 47.0, 32610, 32611), (180.0, -17.0, 32760, 32701), (-180.0, 60.0, 32660, 32601)]


@pytest.mark.parametrize(("lon", "lat", "left", "right"), SEAMS)
def test_nothing_is_taken_where_the_owners_hold_all(lon: float, lat: float, left: int, right: int) -> None:
    zone = near_seam(lon, lat)
    tiles = own([tile_over(left, zone), tile_over(right, zone)])
    assert len(foreign_pieces(utm_pieces(np.array([zone])), tiles)) == 0


@pytest.mark.parametrize(("lon", "lat", "left", "right"), SEAMS)
@pytest.mark.parametrize("missing", ["left", "right"])
def test_ground_that_only_the_neighbour_holds_is_taken_whole(
    lon: float, lat: float, left: int, right: int, missing: str
) -> None:
    zone = near_seam(lon, lat)
    there = right if missing == "left" else left
    taken = foreign_pieces(utm_pieces(np.array([zone])), own([tile_over(there, zone)]))
    assert taken.zone.tolist() == [0]
    assert taken.epsg.tolist() == [there]
    half = shapely.box(lon - 1, -90, lon, 90) if missing == "left" else shapely.box(lon, -90, lon + 1, 90)
    expected = project(zone.intersection(half), 4326, there)
    # The cut along the meridian is 1.1 km long and may leave its course by less than a chord of 5 cm.
    assert taken.geometry[0].symmetric_difference(expected).area < 20
    assert taken.geometry[0].area == pytest.approx(expected.area, rel=1e-5)


@pytest.mark.parametrize(("lon", "lat", "left", "right"), SEAMS)
def test_ground_is_neither_lost_nor_doubled_where_files_hold_parts_of_it(
    lon: float, lat: float, left: int, right: int
) -> None:
    zone = near_seam(lon, lat)
    west, south, _, north = project(zone, 4326, left).bounds
    middle = (south + north) / 2 // 10 * 10
    # The western file holds the south-western quarter; the eastern one all but the southern sixth.
    lower = tile_at(left, west // 10 * 10 - 200, south // 10 * 10 - 200, 80, int((middle - south) // 10) + 20)
    upper = tile_over(right, shapely.box(lon - 0.02, lat + 0.0033, lon + 0.02, lat + 0.02))
    tiles = own([lower, upper])
    pieces = utm_pieces(np.array([zone]))
    taken = foreign_pieces(pieces, tiles)
    kept = Pieces(
        np.concatenate([pieces.zone, taken.zone]),
        np.concatenate([pieces.epsg, taken.epsg]),
        np.concatenate([pieces.geometry, taken.geometry]),
    )
    counted = sum(
        ground(project(geometry.intersection(tile.owned), epsg, 4326))
        for epsg, geometry in zip(kept.epsg, kept.geometry, strict=True)
        for tile in tiles
        if tile.epsg == epsg and geometry.intersects(tile.owned)
    )
    extents = [project(tile.extent, tile.epsg, 4326) for tile in tiles]
    held = unwrap(np.array([shapely.union_all(shapely.transform(extents, lambda p: turned(p, lon)))]))[0]
    assert 0.6 < held.intersection(zone).area / zone.area < 0.999
    assert counted == pytest.approx(ground(held.intersection(zone)), rel=2e-5)


def turned(points: Array, lon: float) -> Array:
    """Longitudes within half a turn of `lon`."""
    return np.column_stack([lon + (points[:, 0] - lon + 180) % 360 - 180, points[:, 1]])


def test_the_western_half_asks_the_western_neighbour_first() -> None:
    # Narrow strips near the pole: both neighbours hold the ground of a zone in strip 10.
    for lon, first, second in ((-123.5, 32609, 32611), (-122.5, 32611, 32609)):
        zone = shapely.segmentize(shapely.box(lon - 0.01, 83, lon + 0.01, 83.002), 1e-3)
        pieces = utm_pieces(np.array([zone]))
        both = own([tile_over(32609, zone), tile_over(32611, zone)])
        assert foreign_pieces(pieces, both).epsg.tolist() == [first]
        assert foreign_pieces(pieces, own([tile_over(second, zone)])).epsg.tolist() == [second]


@pytest.mark.parametrize(("lat", "owner", "over"), [(0.0, 32616, 32716), (-0.01, 32716, 32616)])
def test_across_the_equator_the_same_strip_is_asked_last(lat: float, owner: int, over: int) -> None:
    zone = shapely.segmentize(shapely.box(-84.02, lat, -84.01, lat + 0.01), 1e-4)
    pieces = utm_pieces(np.array([zone]))
    assert pieces.epsg.tolist() == [owner]
    assert foreign_pieces(pieces, own([tile_over(over, zone)])).epsg.tolist() == [over]
    east = (owner // 100) * 100 + 17
    both = own([tile_over(over, zone), tile_over(east, zone)])
    assert foreign_pieces(pieces, both).epsg.tolist() == [east]
    assert len(foreign_pieces(pieces, own([tile_over(owner, zone), tile_over(over, zone)]))) == 0


def test_ground_that_no_file_holds_is_taken_by_nobody() -> None:
    zone = near_seam(-120, 47)
    far = tile_at(32611, 3e5, 5.5e6)
    assert len(foreign_pieces(utm_pieces(np.array([zone])), own([far]))) == 0
    assert len(foreign_pieces(utm_pieces(np.array([zone])), [])) == 0


def test_what_two_neighbours_hold_together_is_taken_once() -> None:
    zone = shapely.segmentize(shapely.box(-123.51, 83, -123.49, 83.002), 1e-3)
    pieces = utm_pieces(np.array([zone]))
    west = tile_over(32609, shapely.box(-123.51, 83, -123.5, 83.002), margin=0)
    east = tile_over(32611, zone)
    taken = foreign_pieces(pieces, own([west, east]))
    assert taken.epsg.tolist() == [32609, 32611]
    total = sum(
        ground(project(geometry, epsg, 4326))
        for epsg, geometry in zip(taken.epsg, taken.geometry, strict=True)
    )
    assert total == pytest.approx(ground(zone), rel=2e-5)


def test_ground_at_the_antimeridian_that_two_neighbours_hold_is_taken_once() -> None:
    # 8 km along 180 degrees, as one edge: its chord leaves the meridian by 4 cm, to the western side.
    zone = shapely.box(-180, -0.07, -179.99, 0)
    pieces = utm_pieces(np.array([zone]))
    assert pieces.epsg.tolist() == [32701]
    middle = tile_over(32760, shapely.box(179.99, -0.05, 180.02, -0.03))
    taken = foreign_pieces(pieces, own([middle, tile_over(32601, zone)]))
    assert taken.epsg.tolist() == [32601, 32760]
    total = sum(
        ground(project(geometry, epsg, 4326))
        for epsg, geometry in zip(taken.epsg, taken.geometry, strict=True)
    )
    assert total == pytest.approx(ground(zone), rel=2e-4)


@given(st.integers(0, 2**32 - 1))
def test_boxes_are_covered_by_extents_as_by_their_union(seed: int) -> None:
    rng = np.random.default_rng(seed)
    extents = rng.integers(0, 8, (rng.integers(0, 7), 4)).astype(float)
    extents[:, 2:] = extents[:, :2] + rng.integers(1, 5, (len(extents), 2))
    boxes = rng.integers(-1, 11, (30, 4)) + rng.choice([0, 0.5], (30, 4))
    boxes[:, 2:] = boxes[:, :2] + rng.integers(1, 8, (30, 2)) * rng.choice([0.5, 1.0])
    union = shapely.union_all(shapely.box(*extents.T))
    expected = shapely.covered_by(shapely.box(*boxes.T), union)
    assert boxes_covered(boxes, extents).tolist() == expected.tolist()
