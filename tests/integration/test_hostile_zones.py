"""Polygons and ids made to do harm, all the way through a run: the right answer, or one sentence."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rasterio
import shapely
from exactextract import exact_extract
from rasterio.transform import from_bounds, from_origin
from synthetic import make_mirror, random_tile, utm_grid

import zonal
from zonal.cluster.runner import Threads
from zonal.config.settings import Settings
from zonal.engine import run as engine
from zonal.errors import InputError
from zonal.geo.antimeridian import unwrap
from zonal.geo.pieces import one_crs_pieces, utm_pieces
from zonal.io.table.export import export_table
from zonal.io.table.finished import load_table

WEST, SOUTH = 500_000, 4_990_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rasters")


def write(path: Path, height: int, width: int, transform: Any, crs: str) -> Path:
    if not path.exists():
        data = np.random.default_rng(0).normal(size=(1, height, width))
        shape = {"count": 1, "height": height, "width": width, "dtype": "float64"}
        with rasterio.open(path, "w", driver="GTiff", crs=crs, transform=transform, **shape) as out:
            out.write(data)
    return path


@pytest.fixture(scope="module")
def utm(folder: Path) -> Path:
    """10 km x 10 km."""
    return write(folder / "utm.tif", 1000, 1000, from_origin(WEST, SOUTH + 10_000, 10, 10), "EPSG:32616")


@pytest.fixture(scope="module")
def world(folder: Path) -> Path:
    """Pixels of one degree."""
    return write(folder / "world.tif", 180, 360, from_bounds(-180, -90, 180, 90, 360, 180), "EPSG:4326")


@pytest.fixture(scope="module")
def polar(folder: Path) -> Path:
    """The Arctic, pixels of 10 km."""
    return write(
        folder / "polar.tif", 300, 300, from_bounds(-1.5e6, -1.5e6, 1.5e6, 1.5e6, 300, 300), "EPSG:3995"
    )


def box(west: float, south: float, east: float, north: float) -> Any:
    """Metres from the corner of `utm`."""
    return shapely.box(WEST + west, SOUTH + south, WEST + east, SOUTH + north)


def pixels(raster: Path, *zones: Any, crs: Any = "EPSG:32616") -> list[float]:
    frame = gpd.GeoDataFrame({"id": range(len(zones))}, geometry=[*zones], crs=crs)
    table = zonal.zonal_stats(frame, raster, stats="mean")
    return [float(count) for count in table.sort_values("id")["pixel_count"]]


def star(vertices: int) -> Any:
    angle = np.linspace(0, 2 * np.pi, vertices + 1)
    radius = 4000 * (1 + 0.05 * np.sin(5000 * angle))
    middle = (WEST + 5000, SOUTH + 5000)
    return shapely.Polygon(np.column_stack([radius * np.cos(angle), radius * np.sin(angle)]) + middle)


@pytest.mark.parametrize("crs", ["EPSG:32616", "EPSG:4326"])
def test_a_million_vertices_are_right_and_take_seconds(utm: Path, crs: str) -> None:
    zone = star(1_000_000)
    frame = gpd.GeoDataFrame({"id": [1]}, geometry=[zone], crs="EPSG:32616").to_crs(crs)
    start = time.process_time()
    table = zonal.zonal_stats(frame, utm, stats="mean")
    assert time.process_time() - start < 60
    assert table["pixel_count"].iloc[0] == pytest.approx(zone.area / 100, rel=1e-6)
    if crs == "EPSG:32616":
        expected = exact_extract(utm, frame, ["mean"], output="pandas")
        assert table["band1_mean"].iloc[0] == pytest.approx(expected["mean"].iloc[0], abs=1e-6)


def test_thousands_of_holes_are_left_out(utm: Path) -> None:
    x, y = (side.ravel() * 80.0 for side in np.mgrid[0:100, 0:100])
    holes = [box(a + 13, b + 17, a + 40, b + 50).exterior.coords for a, b in zip(x, y, strict=True)]
    zone = shapely.Polygon(box(0, 0, 9000, 9000).exterior.coords, holes)
    assert pixels(utm, zone) == pytest.approx([zone.area / 100])


@pytest.mark.parametrize(
    ("wkt", "count"),
    [
        ("POLYGON ((100 100, 300 300, 300 100, 100 300, 100 100))", 200),  # a bow tie
        ("POLYGON ((0 0, 50 0, 100 0, 100 100, 50 0, 0 100, 0 0))", 50),  # it touches itself
        ("POLYGON ((0 0, 0 0, 0 0, 100 0, 100 0, 100 100, 0 100, 0 100, 0 0))", 100),
        ("POLYGON ZM ((0 0 1 NaN, 100 0 2 2, 100 100 NaN 1, 0 100 1 2, 0 0 1 1))", 100),
        ("GEOMETRYCOLLECTION (GEOMETRYCOLLECTION (POINT (0 0), POLYGON ((0 0, 9 0, 9 100, 0 100, 0 0))))", 9),
        ("POLYGON ((100 100, 100 300, 100 100))", 0),
        ("POLYGON EMPTY", 0),
        ("GEOMETRYCOLLECTION EMPTY", 0),
    ],
)  # fmt: skip
def test_odd_polygons_count_what_they_cover_and_keep_their_row(utm: Path, wkt: str, count: float) -> None:
    zone = shapely.from_wkt(wkt)
    zone = shapely.transform(
        zone, lambda at: at + np.resize([WEST, SOUTH, 0], at.shape[1]), include_z=zone.has_z
    )
    assert pixels(utm, zone, box(0, 0, 100, 100), None) == pytest.approx([count, 100, 0])


@pytest.mark.parametrize(
    ("x", "sentence"),
    [
        (np.nan, "not finite"),
        (np.inf, "not finite"),
        (1e300, "no place on Earth"),
        (1e18, "no place on Earth"),
    ],
)
def test_coordinates_that_are_no_place_are_one_sentence(utm: Path, x: float, sentence: str) -> None:
    zone = shapely.Polygon([(WEST, SOUTH), (x, SOUTH), (WEST, SOUTH + 100)])
    with pytest.raises(InputError, match=f"1 zones .*{sentence}"):
        pixels(utm, box(0, 0, 100, 100), zone)


@pytest.mark.parametrize("zone", [(0, 80, 10, 100), (-200, -95, 200, 95), (0, 0, 1e9, 1), (0, 0, 1e18, 1)])
def test_degrees_that_are_no_place_are_one_sentence(utm: Path, zone: tuple[float, ...]) -> None:
    with pytest.raises(InputError, match="no place on Earth"):
        pixels(utm, shapely.box(*zone), crs="EPSG:4326")


def test_longitudes_may_go_around_once_more(utm: Path) -> None:
    here = shapely.box(-86.99, 45.08, -86.95, 45.1)
    one, two = pixels(utm, here, shapely.transform(here, lambda xy: xy + np.array([360, 0])), crs="EPSG:4326")
    assert one == pytest.approx(two)
    assert one > 1000


# ---------------------------------------------------------------------- the whole Earth, its poles, its seam


def test_a_polygon_of_the_whole_world_covers_every_pixel_of_any_raster(
    utm: Path, world: Path, polar: Path, folder: Path
) -> None:
    mercator = write(folder / "m.tif", 40, 40, from_bounds(-2e7, -2e7, 2e7, 2e7, 40, 40), "EPSG:3857")
    everything = shapely.box(-180, -90, 180, 90)
    for raster, count in ((utm, 1e6), (world, 64_800), (polar, 90_000), (mercator, 1600)):
        assert pixels(raster, everything, crs="EPSG:4326") == pytest.approx([count])


CAP = [(x, 80 + np.sin(np.radians(3 * x))) for x in range(-180, 180)]


@pytest.mark.parametrize(
    "ring", [CAP, CAP[::-1], CAP[100:] + CAP[:100], [*CAP, (180, CAP[0][1]), (180, 90), (-180, 90)]]
)
def test_a_cap_around_the_pole_is_the_cap_however_it_is_written(polar: Path, world: Path, ring: Any) -> None:
    # Sides that are straight in degrees, drawn on the polar map by their own points.
    dense = shapely.segmentize(shapely.LineString([*CAP, (180, CAP[0][1])]), 0.05)
    outline = gpd.GeoSeries([dense], crs="EPSG:4326").to_crs("EPSG:3995")[0]
    area = shapely.Polygon(outline.coords).area
    whole = unwrap(np.array([shapely.make_valid(shapely.Polygon(ring))], object))
    assert pixels(polar, shapely.Polygon(ring), crs="EPSG:4326") == pytest.approx([area / 1e8], rel=1e-5)
    assert pixels(world, shapely.Polygon(ring), crs="EPSG:4326") == pytest.approx([3600], rel=1e-3)
    assert len(whole) == 1


@pytest.mark.parametrize(("crs", "north"), [("EPSG:3995", True), ("EPSG:3031", False)])
def test_a_circle_around_a_pole_on_a_polar_map_is_a_cap_in_degrees_and_in_every_strip(
    world: Path, crs: str, north: bool
) -> None:
    circle = gpd.GeoSeries([shapely.Point(0, 0).buffer(1.1e6, 90)], crs=crs)
    edge = np.abs(shapely.get_coordinates(circle.to_crs("EPSG:4326")[0])[:, 1]).mean()
    assert pixels(world, circle[0], crs=crs) == pytest.approx([360 * (90 - edge)], rel=1e-3)
    pieces = utm_pieces(unwrap(circle.to_crs("EPSG:4326").to_numpy()))
    assert len({*pieces.epsg}) == 60
    assert {code // 100 for code in pieces.epsg} == {326 if north else 327}


def test_parts_far_apart_are_each_where_they_are(world: Path) -> None:
    """One over longitude 0, the others beyond 90 degrees west and east of it."""
    france = [(-5, 44, 8, 50), (-151, -18, -149, -17), (164, -22, 167, -20), (-54, 2, -52, 5)]
    zone = shapely.MultiPolygon([shapely.box(*part) for part in france])
    assert pixels(world, zone, crs="EPSG:4326") == pytest.approx([13 * 6 + 2 + 6 + 6])
    area = shapely.area(unwrap(np.array([zone], object)))[0]
    assert area == pytest.approx(zone.area)


SEAM = [
    shapely.Polygon([(179, 10), (-179, 10), (-179, 20), (179, 20)]),
    shapely.box(179, 10, 181, 20),
    shapely.MultiPolygon([shapely.box(179, 10, 180, 20), shapely.box(-180, 10, -179, 20)]),
]


@pytest.mark.parametrize("zone", SEAM)
def test_a_zone_across_the_antimeridian_lies_on_both_sides_of_it(zone: Any) -> None:
    for west, part in ((-180.0, shapely.union_all([SEAM[2]])), (0.0, SEAM[1])):
        (piece,) = one_crs_pieces(np.array([zone], object), "EPSG:4326", "EPSG:4326", west).geometry
        assert shapely.equals(shapely.union_all([piece]), part)
    pieces = utm_pieces(unwrap(np.array([zone], object)))
    assert sorted(pieces.epsg) == [32601, 32660]


def test_zones_beyond_the_latitudes_of_utm_count_as_any_other(tmp_path: Path) -> None:
    """84 N is where UTM's own grid ends; a strip goes on to the pole."""
    grid = utm_grid(32616, 480_000, 9_370_000, 64, 64, 64)
    tile = random_tile(np.random.default_rng(0), grid, 64, 0.0)
    mirror = make_mirror(tmp_path / "mirror", [tile])
    zone = gpd.GeoSeries([shapely.box(480_100, 9_370_100, 480_300, 9_370_300)], crs="EPSG:32616")
    assert zone.to_crs("EPSG:4326").total_bounds[1] > 84
    frame = gpd.GeoDataFrame({"id": ["x"]}, geometry=zone.to_crs("EPSG:4326"))
    settings = Settings(year=2024, mirror=str(mirror), zone_id="id", output=str(tmp_path / "out"))
    engine.run(settings, frame=frame, runner=Threads(2))
    count = gpd.read_parquet(tmp_path / "out" / "stats.parquet")["pixel_count"].iloc[0]
    assert count == pytest.approx(400, abs=0.1)


def test_a_raster_whose_crs_is_none_is_one_sentence(folder: Path) -> None:
    raster = write(folder / "odd.tif", 20, 20, from_origin(WEST, SOUTH, 10, 10), "EPSG:32616")
    raw = raster.read_bytes().replace((32616).to_bytes(2, "little"), (9999).to_bytes(2, "little"))
    (folder / "none.tif").write_bytes(raw)
    zones = gpd.GeoDataFrame({"id": [1]}, geometry=[box(0, -100, 50, -50)], crs="EPSG:32616")
    text = "r: {data_type: RasterTiles, driver: cog, uri: none.tif}\n"
    (folder / "c.yaml").write_text(text)
    with pytest.raises(InputError, match="EPSG:9999"):
        zonal.zonal_stats(zones, "r", catalog=str(folder / "c.yaml"))


# ---------------------------------------------------------------------- ids

ODD = [
    "a\nb", 'e"f', "g'h", "😀", "\u202eabc", "x" * 10_240, "007", "7", "; DROP TABLE zones; --", "a,b",
    "a\tb", "\r\n", " lead", "é", "e\u0301", "", "NULL", "nan", "c\0d",
]  # fmt: skip


def finished(utm: Path, output: Path, ids: Any) -> list[Any]:
    geometry = [box(30 * n, 0, 30 * n + 30, 30) for n in range(len(ids))]
    frame = gpd.GeoDataFrame({"id": ids}, geometry=geometry, crs="EPSG:32616")
    asked = Settings(raster=(str(utm),), zone_id="id", output=str(output))
    engine.run(asked, frame=frame, runner=Threads(2))
    table = gpd.read_parquet(output / "stats.parquet")
    assert (table["pixel_count"] - 9).abs().max() < 1e-6
    return table["id"].iloc[np.argsort(table.geometry.bounds["minx"])].tolist()


@pytest.mark.parametrize(
    "ids",
    [
        ODD,
        [3, 1, 2],
        [2**63 - 1, -(2**63)],
        np.array([2**64 - 1, 1], np.uint64),
        [1.5, 2.0, 1e300],
        [True, False],
    ],
)
def test_odd_ids_come_out_as_they_went_in(utm: Path, tmp_path: Path, ids: Any) -> None:
    assert finished(utm, tmp_path / "out", ids) == list(ids)


@pytest.mark.parametrize("name", ["zones.gpkg", "zones.geojson", "zones.parquet"])
def test_odd_ids_of_files_come_out_as_they_went_in(utm: Path, tmp_path: Path, name: str) -> None:
    ids = [text for text in ODD if "\0" not in text]
    geometry = [box(30 * n, 0, 30 * n + 30, 30) for n in range(len(ids))]
    frame = gpd.GeoDataFrame({"id": ids}, geometry=geometry, crs="EPSG:32616")
    path = tmp_path / name
    frame.to_parquet(path) if name.endswith("parquet") else frame.to_file(path)
    asked = Settings(raster=(str(utm),), zones=str(path), zone_id="id", output=str(tmp_path / "out"))
    engine.run(asked, runner=Threads(2))
    assert sorted(gpd.read_parquet(tmp_path / "out" / "stats.parquet")["id"]) == sorted(ids)


@pytest.mark.parametrize("ids", [["a", None], [1.0, np.nan]])
def test_a_zone_without_an_id_is_one_sentence(utm: Path, tmp_path: Path, ids: Any) -> None:
    with pytest.raises(InputError, match="1 zones have no id"):
        finished(utm, tmp_path / "out", ids)


@pytest.mark.parametrize(
    "ids", [["a", 1], [b"a", b"b"], [[1], [2]], [{"a": 1}, {"a": 2}], ["\ud800", "b"], [2**70, 1]]
)
def test_ids_of_no_one_type_are_refused_by_the_check(ids: Any) -> None:
    from zonal.planning.zones import ZoneColumns, check

    geometry = [shapely.box(n, 0, n + 1, 1) for n in range(len(ids))]
    frame = gpd.GeoDataFrame({"id": pd.Series(ids, dtype=object)}, geometry=geometry, crs="EPSG:4326")
    with pytest.raises(InputError, match=r"zones: (column 'id' has values of no one type|the ids in id are)"):
        check(frame, ZoneColumns("id"), "zones")


@pytest.mark.parametrize("zone", SEAM)
@pytest.mark.parametrize("west", [-180, 0, 170])
def test_a_run_across_the_antimeridian_counts_both_sides_of_it(folder: Path, west: int, zone: Any) -> None:
    place = from_bounds(west, -90, west + 360, 90, 360, 180)
    raster = write(folder / f"{west}.tif", 180, 360, place, "EPSG:4326")
    assert pixels(raster, zone, shapely.box(-87, 40, -85, 41), crs="EPSG:4326") == pytest.approx([20, 2])


@pytest.mark.parametrize("ids", [["a", 1], [b"a", b"b"], ["\ud800", "b"], [2**70, 1]])
def test_ids_of_no_one_type_are_one_sentence_of_a_run(utm: Path, tmp_path: Path, ids: Any) -> None:
    with pytest.raises(InputError, match=r"of no one type|the ids in id are"):
        finished(utm, tmp_path / "out", pd.Series(ids, dtype=object))


@pytest.mark.parametrize("to", ["gpkg", "fgb"])
@pytest.mark.parametrize("ids", [["c\0d", "e"], np.array([2**64 - 1, 1], np.uint64)])
def test_ids_that_a_format_cannot_hold_are_not_exported_otherwise(
    utm: Path, tmp_path: Path, ids: Any, to: str
) -> None:
    finished(utm, tmp_path / "out", ids)
    with pytest.raises(InputError, match="column 'id'"):
        export_table(load_table(str(tmp_path / "out")), to)
