"""Whole runs over made-up tiles, for what real samples lack, against exactextract and pyproj alone.

The oracle here shares no code with the package: it cuts zones in degrees, projects each part with
pyproj, takes coverage from exactextract, and adds up weighted sums.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow.parquet as pq
import pyproj
import pytest
import shapely
from exactextract import exact_extract
from exactextract.feature import JSONFeatureSource
from exactextract.raster import NumPyRasterSource
from rasterio.features import geometry_mask
from synthetic import Tile, jittered_blocks, make_mirror, random_tile, utm_grid

from zonal.cluster.runner import Threads
from zonal.config.settings import Settings
from zonal.engine import run as engine
from zonal.geo.grid import Grid

BANDS = [f"A{band:02d}" for band in range(64)]
MEANS, STDS = ([f"{band}_{stat}" for band in BANDS] for stat in ("mean", "std"))

Array = npt.NDArray[Any]


# ------------------------------------------------------------------ runs


@dataclass(frozen=True)
class Ran:
    """A finished run: its table by id, its manifest and what it said."""

    table: pd.DataFrame
    manifest: dict[str, Any]
    warnings: list[str]

    def row(self, zone: str) -> pd.Series:
        return self.table.loc[zone]


def run(folder: Path, tiles: Sequence[Tile], zones: gpd.GeoDataFrame, **values: Any) -> Ran:
    """Write a mirror and a file of zones below `folder`, and run on them."""
    folder.mkdir(exist_ok=True)
    zones.to_parquet(folder / "zones.parquet")
    if not (folder / "mirror").exists():
        make_mirror(folder / "mirror", tiles)
    settings = Settings(
        **{
            "zones": str(folder / "zones.parquet"),
            "zone_id": "GEOID20",
            "year": 2024,
            "mirror": str(folder / "mirror"),
            "output": str(folder / f"out-{len(list(folder.iterdir()))}"),
            "keep_water": True,
            "part_zones": 25,
            "part_chunks": 6,
            "unit_chunks": 2,
        }
        | values
    )
    events: list[engine.Event] = []
    (result,) = engine.run(settings, runner=Threads(2), notify=events.append)
    table = pq.read_table(result.table).to_pandas().set_index("GEOID20")
    said = [event.message for event in events if event.kind == "warning"]
    assert table.index.is_unique
    assert len(table) == len(zones)
    return Ran(table, result.manifest, said)


def zones_of(geometries: dict[str, Any], crs: str) -> gpd.GeoDataFrame:
    shapes = np.empty(len(geometries), dtype=object)
    shapes[:] = [*geometries.values()]
    return gpd.GeoDataFrame({"GEOID20": [*geometries]}, geometry=shapes, crs=crs)


# ------------------------------------------------------------------ the oracle


@dataclass(frozen=True)
class Sums:
    """Weight, weighted sum and weighted sum of squares by band."""

    weight: float
    first: Array
    second: Array

    def __add__(self, other: Sums) -> Sums:
        return Sums(self.weight + other.weight, self.first + other.first, self.second + other.second)


NOTHING = Sums(0.0, np.zeros(64), np.zeros(64))


def weights(polygon: Any, grid: Grid) -> Array:
    """exactextract's coverage [y, x] of a polygon in the grid's CRS, row 0 in the north."""
    west, south, east, north = grid.bounds
    polygon = polygon.intersection(shapely.box(*grid.bounds))
    # A margin, because exactextract may fail on parts along the raster's border.
    height, width = grid.height + 2, grid.width + 2
    raster = NumPyRasterSource(
        np.zeros((height, width)), west - grid.dx, south - grid.dx, east + grid.dx, north + grid.dx
    )
    found = np.zeros(height * width)
    for part in shapely.get_parts(polygon):
        if part.geom_type == "Polygon" and part.area > 0:
            feature = {"type": "Feature", "geometry": shapely.geometry.mapping(part), "properties": {}}
            (answer,) = exact_extract(raster, JSONFeatureSource([feature]), ["cell_id", "coverage"])
            ids, shares = (answer["properties"][name] for name in ("cell_id", "coverage"))
            np.add.at(found, np.asarray(ids, int), shares)
    return found.reshape(height, width)[1:-1, 1:-1]


def sums(polygon: Any, tile: Tile) -> Sums:
    """Weighted sums of a tile's valid pixels under a polygon in the tile's CRS."""
    values, _ = tile.north_up()
    share = weights(polygon, tile.grid)
    rows, cols = np.nonzero((share > 0) & ~np.isnan(values[0]))
    v, w = values[:, rows, cols], share[rows, cols]
    return Sums(float(w.sum()), (v * w).sum(axis=1), (v * v * w).sum(axis=1))


def assert_right(row: pd.Series, expected: Sums, tolerance: float = 1e-6) -> None:
    """Compare a row of the table with the oracle: count, means and standard deviations of all bands."""
    assert expected.weight > 0
    mean = expected.first / expected.weight
    std = np.sqrt(np.maximum(expected.second / expected.weight - mean**2, 0))
    assert row["pixel_count"] == pytest.approx(expected.weight, rel=2e-6, abs=1e-6)
    assert np.abs(row[MEANS].to_numpy(float) - mean).max() < tolerance
    assert np.abs(row[STDS].to_numpy(float) - std).max() < tolerance


def assert_null(row: pd.Series) -> None:
    assert row["pixel_count"] == 0
    assert row[MEANS + STDS].isna().all()


def project(geometry: Any, source: int, target: int) -> Any:
    """Project each vertex with pyproj."""
    transformer = pyproj.Transformer.from_crs(source, target, always_xy=True)
    return shapely.transform(geometry, lambda p: np.column_stack(transformer.transform(*p.T)))


# ------------------------------------------------------------------ tiles side by side

WEST, SOUTH, SIDE = 640_000, 5_200_000, 2_560


def cut(
    whole: Tile, row: int, col: int, height: int, width: int, name: str, *, north_up: bool = False
) -> Tile:
    """Make a tile of a window of another one."""
    grid = whole.grid
    data = whole.data[:, row : row + height, col : col + width]
    west, south = grid.x0 + col * grid.dx, grid.y0 + row * grid.dy
    epsg = int(grid.crs.removeprefix("EPSG:"))
    placed = utm_grid(epsg, west, south, width, height, 64, south_up=not north_up)
    return Tile(placed, data[:, ::-1] if north_up else data, name)


@pytest.fixture(scope="module")
def whole() -> Tile:
    return random_tile(np.random.default_rng(1), utm_grid(32616, WEST, SOUTH, 256, 256, 64), 64, 0.03)


@pytest.fixture(scope="module")
def blocks() -> gpd.GeoDataFrame:
    """A partition of more than the tiles hold: 8 x 9 blocks of some 350 m."""
    around = (WEST - 250, SOUTH - 250, WEST + SIDE + 250, SOUTH + SIDE + 250)
    return jittered_blocks(around, 8, 9, "EPSG:32616", seed=5)


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory, whole: Tile, blocks: gpd.GeoDataFrame) -> tuple[Path, Ran]:
    """Four tiles that meet in a point, cut unevenly; one of them is north-up."""
    tiles = [
        cut(whole, 0, 0, 128, 140, "sw"),
        cut(whole, 0, 140, 128, 116, "se", north_up=True),
        cut(whole, 128, 0, 128, 140, "nw"),
        cut(whole, 128, 140, 128, 116, "ne"),
    ]
    folder = tmp_path_factory.mktemp("four")
    return folder, run(folder, tiles, blocks)


def test_zones_cut_by_two_and_by_four_tiles_equal_the_uncut_zones(
    four: tuple[Path, Ran], whole: Tile, blocks: gpd.GeoDataFrame
) -> None:
    ran = four[1]
    for zone, polygon in blocks.set_index("GEOID20").to_crs(32616).geometry.items():
        assert_right(ran.row(zone), sums(polygon, whole))
    assert set(ran.table["tile_count"]) == {1, 2, 4}
    assert ran.manifest["plan"]["parts"] > 2
    assert ran.manifest["plan"]["tiles"] == 4
    assert ran.warnings == []


def test_a_tiles_edge_does_not_show_in_the_tile_count_of_zones_beside_it(
    four: tuple[Path, Ran], blocks: gpd.GeoDataFrame
) -> None:
    middle = shapely.Point(WEST + 1400, SOUTH + 1280)
    polygons = blocks.set_index("GEOID20").to_crs(32616).geometry
    for zone, polygon in polygons.items():
        west, south, east, north = polygon.intersection(
            shapely.box(WEST, SOUTH, WEST + SIDE, SOUTH + SIDE)
        ).bounds
        crosses = (west < middle.x < east) + (south < middle.y < north)
        if crosses == 0:
            assert four[1].row(zone)["tile_count"] == 1
    assert four[1].row(polygons.index[polygons.contains(middle)][0])["tile_count"] == 4


def test_a_partition_counts_every_valid_pixel_once(four: tuple[Path, Ran], whole: Tile) -> None:
    assert four[1].table["pixel_count"].sum() == pytest.approx(whole.valid.sum(), rel=1e-9)


def test_valid_fraction_is_the_share_of_ground_with_pixels(
    four: tuple[Path, Ran], blocks: gpd.GeoDataFrame
) -> None:
    area = blocks.set_index("GEOID20").to_crs(32616).area / 100
    table = four[1].table
    expected = table["pixel_count"] / area.loc[table.index]
    assert np.abs(table["valid_fraction"] - expected).max() < 1e-9
    inside = (
        blocks.set_index("GEOID20").to_crs(32616).within(shapely.box(WEST, SOUTH, WEST + SIDE, SOUTH + SIDE))
    )
    assert table["valid_fraction"][inside.loc[table.index]].between(0.93, 1).all()
    assert (table["valid_fraction"] < 0.9).any(), "blocks on the rim stick out"


def test_the_centre_rule_equals_a_rasterio_mask_and_counts_each_centre_once(
    four: tuple[Path, Ran], whole: Tile, blocks: gpd.GeoDataFrame
) -> None:
    ran = run(four[0], [], blocks, coverage="center")
    assert ran.table["pixel_count"].sum() == whole.valid.sum()
    values, transform = whole.north_up()
    for zone, polygon in blocks.set_index("GEOID20").to_crs(32616).geometry.items():
        inside = geometry_mask([polygon], values.shape[1:], transform, invert=True) & ~np.isnan(values[0])
        row, v = ran.row(zone), values[:, inside]
        assert row["pixel_count"] == inside.sum()
        assert np.abs(row[MEANS].to_numpy(float) - v.mean(axis=1)).max() < 1e-6
        assert np.abs(row[STDS].to_numpy(float) - v.std(axis=1)).max() < 1e-6


def test_all_statistics_of_a_cut_zone_are_right(
    four: tuple[Path, Ran], whole: Tile, blocks: gpd.GeoDataFrame
) -> None:
    ran = run(four[0], [], blocks, stats="max,count,min,sum")
    polygons = blocks.set_index("GEOID20").to_crs(32616).geometry
    zone = polygons.index[polygons.contains(shapely.Point(WEST + 1400, SOUTH + 1280))][0]
    values, _ = whole.north_up()
    share = weights(polygons[zone], whole.grid)
    used = (share > 0) & ~np.isnan(values[0])
    row = ran.row(zone)
    columns = {
        "max": values[:, used].max(axis=1),
        "min": values[:, used].min(axis=1),
        "count": np.full(64, share[used].sum()),
        "sum": (values[:, used] * share[used]).sum(axis=1),
    }
    for stat, expected in columns.items():
        found = row[[f"{band}_{stat}" for band in BANDS]].to_numpy(float)
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-4 if stat == "sum" else 1e-6)


# ------------------------------------------------------------------ the seam of two UTM zones


@dataclass(frozen=True)
class Seam:
    """A border on the ground and the UTM zones on its two sides.

    `first` is the western (or northern) UTM zone; `side` cuts a zone in degrees to either side.
    """

    lon: float
    lat: float
    first: int
    second: int
    equator: bool = False

    def side(self, first: bool) -> Any:
        if self.equator:
            return shapely.box(-400, 0, 400, 90) if first else shapely.box(-400, -90, 400, 0)
        return shapely.box(-400, -90, self.lon, 90) if first else shapely.box(self.lon, -90, 400, 90)

    @property
    def area(self) -> tuple[float, float, float, float]:
        """Degrees: some 1.2 km around the seam, more of it on the first side."""
        wide = 0.006 / np.cos(np.radians(self.lat))
        west, east = (-wide, 0.8 * wide)
        return (self.lon + west, self.lat - 0.005, self.lon + east, self.lat + 0.006)

    def tile(self, epsg: int, seed: int, *, south_up: bool = True, share: float = 1.0) -> Tile:
        """Make a tile of one UTM zone that holds all of the area, or the southern `share` of it."""
        box = shapely.segmentize(shapely.box(*self.area), 1e-4)
        west, south, east, north = np.array(project(box, 4326, epsg).bounds)
        west, south = (np.floor((v - 100) / 10) * 10 for v in (west, south))
        width, height = (int(np.ceil((d + 100) / 10)) for d in (east - west, (north - south) * share))
        grid = utm_grid(epsg, float(west), float(south), width, height, 64, south_up=south_up)
        return random_tile(np.random.default_rng(seed), grid, 64, 0.02)

    def zones(self) -> gpd.GeoDataFrame:
        """A partition of the area into 5 x 4 zones, an odd row of them across the seam, with short edges."""
        west, south, east, north = self.area
        blocks = jittered_blocks((0, 0, 1, 1), 5, 4, seed=9)

        def place(points: Array) -> Array:
            return np.array([west, south]) + points * [east - west, north - south]

        moved = shapely.segmentize(shapely.transform(blocks.geometry.to_numpy(), place), 1e-4)
        return zones_of({f"z{n:02d}": shape for n, shape in enumerate(moved)}, "EPSG:4326")

    def expected(self, zone: Any, first: Callable[[Any], Sums], second: Callable[[Any], Sums]) -> Sums:
        """Merge the sums of both sides; each is given its share of the zone, in degrees."""
        total = NOTHING
        for of, on_first in ((first, True), (second, False)):
            share = zone.intersection(self.side(on_first))
            if share.area > 0:
                # The cut itself gets short edges, too.
                total = total + of(shapely.segmentize(share, 5e-5))
        return total


SEAMS = {
    "10N|11N": Seam(-120.0, 47.0, 32610, 32611),
    "60S|1S": Seam(180.0, -17.0, 32760, 32701),
    "equator": Seam(-87.3, 0.0, 32616, 32716, equator=True),
}


def on(tile: Tile) -> Callable[[Any], Sums]:
    """Project a share of a zone into a tile's CRS and add it up there."""
    epsg = int(tile.grid.crs.removeprefix("EPSG:"))
    return lambda share: sums(project(share, 4326, epsg), tile)


@pytest.mark.parametrize("seam", SEAMS.values(), ids=SEAMS.keys())
def test_ground_that_tiles_of_both_utm_zones_hold_is_counted_once(tmp_path: Path, seam: Seam) -> None:
    first, second = seam.tile(seam.first, 1), seam.tile(seam.second, 2, south_up=False)
    zones = seam.zones()
    ran = run(tmp_path, [first, second], zones)
    for zone, polygon in zones.set_index("GEOID20").geometry.items():
        assert_right(ran.row(zone), seam.expected(polygon, on(first), on(second)))
    assert set(ran.table["tile_count"]) == {1, 2}
    assert ran.table["valid_fraction"].between(0.9, 1 + 1e-9).all()
    # And once more for the centres: each belongs to the tile whose side it lies on.
    centres = run(tmp_path, [], zones, coverage="center")
    assert centres.table["pixel_count"].sum() == sum(
        centres_inside(tile, shapely.box(*seam.area), seam.side(on_first))
        for tile, on_first in ((first, True), (second, False))
    )


def centres_inside(tile: Tile, *shapes: Any) -> int:
    """Count valid pixels whose centre lies inside all of some shapes in degrees."""
    grid = tile.grid
    row, col = np.nonzero(tile.valid)
    transformer = pyproj.Transformer.from_crs(grid.crs, 4326, always_xy=True)
    lon, lat = transformer.transform(grid.x0 + (col + 0.5) * grid.dx, grid.y0 + (row + 0.5) * grid.dy)
    middle = shapely.centroid(shapes[0]).x
    points = shapely.points(middle + (lon - middle + 180) % 360 - 180, lat)
    return int(np.all([shapely.contains_properly(shape, points) for shape in shapes], axis=0).sum())


@pytest.mark.parametrize("there", ["first", "second"])
@pytest.mark.parametrize("seam", SEAMS.values(), ids=SEAMS.keys())
def test_ground_that_only_the_foreign_tile_holds_is_counted_there_once(
    tmp_path: Path, seam: Seam, there: str
) -> None:
    tile = seam.tile(getattr(seam, there), 3)
    zones = seam.zones()
    ran = run(tmp_path, [tile], zones)
    for zone, polygon in zones.set_index("GEOID20").geometry.items():
        assert_right(ran.row(zone), seam.expected(polygon, on(tile), on(tile)))
    assert set(ran.table["tile_count"]) == {1}
    lonlat = shapely.segmentize(shapely.box(*seam.area), 1e-4)
    assert ran.table["pixel_count"].sum() == pytest.approx(on(tile)(lonlat).weight, rel=2e-6)


@pytest.mark.parametrize("seam", SEAMS.values(), ids=SEAMS.keys())
def test_ground_that_the_owners_file_holds_in_part_goes_to_both_tiles(tmp_path: Path, seam: Seam) -> None:
    own_share = 0.75 if seam.equator else 0.5
    first, second = seam.tile(seam.first, 4, share=own_share), seam.tile(seam.second, 5)
    extent = shapely.segmentize(shapely.box(*first.grid.bounds), 2.0)

    def on_both(share: Any) -> Sums:
        """What the first tile's extent holds counts there, the rest on the second tile."""
        here = project(share, 4326, seam.first)
        rest = shapely.segmentize(here.difference(extent), 2.0)
        there = project(project(rest, seam.first, 4326), 4326, seam.second)
        return sums(here, first) + sums(there, second)

    zones = seam.zones()
    ran = run(tmp_path, [first, second], zones)
    for zone, polygon in zones.set_index("GEOID20").geometry.items():
        assert_right(ran.row(zone), seam.expected(polygon, on_both, on(second)))
    assert ran.table["valid_fraction"].between(0.9, 1.002).all()  # a pixel's ground differs between UTM zones


def test_both_spellings_of_the_antimeridian_give_the_same_statistics(tmp_path: Path) -> None:
    seam = SEAMS["60S|1S"]
    first, second = seam.tile(seam.first, 1), seam.tile(seam.second, 2)
    zones = seam.zones()
    spelt = zones.copy()
    spelt.geometry = shapely.transform(
        zones.geometry.to_numpy(), lambda p: np.column_stack([(p[:, 0] + 180) % 360 - 180, p[:, 1]])
    )
    crossing = spelt.geometry.bounds.eval("maxx - minx") > 180
    assert crossing.sum() >= 4
    # Many of them are no valid polygons as they are spelt; none may come out otherwise for that.
    one, two = (run(tmp_path / name, [first, second], z) for name, z in (("a", zones), ("b", spelt)))
    columns = ["pixel_count", "valid_fraction", "tile_count", *MEANS, *STDS]
    difference = one.table[columns] - two.table.loc[one.table.index, columns]
    assert difference.abs().max().max() < 1e-6


# ------------------------------------------------------------------ odd zones, odd tiles

ODD_WEST, ODD_SOUTH = 500_000, 8_000_000  # in the southern hemisphere


def at(west: float, south: float, east: float, north: float) -> Any:
    """A box by pixels from the south-western corner of the odd tiles."""
    return shapely.box(
        ODD_WEST + 10 * west, ODD_SOUTH + 10 * south, ODD_WEST + 10 * east, ODD_SOUTH + 10 * north
    )


BOWTIE = shapely.Polygon(
    [(ODD_WEST + x, ODD_SOUTH + y) for x, y in [(303, 507), (411, 612), (411, 507), (303, 612)]]
)

ODD = {
    "inside": at(10.3, 10.2, 20.7, 18.9),
    "the same again": at(10.3, 10.2, 20.7, 18.9),
    "inside that": at(12.5, 11.5, 16.25, 15.75),
    "over that": at(15.1, 5.5, 25.7, 13.3),
    "nodata": at(70, 70, 80, 80),
    "half nodata": at(60.5, 72.5, 70.5, 78.5),
    "over the edge": at(-10, 20, 10, 30),
    "outside": at(-300, -300, -290, -290),
    "shared ground": at(104.2, 30.3, 112.9, 41.4),
    "half shared ground": at(95.2, 50.3, 112.9, 61.4),
    "only the other": at(150.1, 50.3, 170.9, 61.4),
    "both ends": at(90.5, 65.5, 170.5, 66.5),
    "bow-tie": BOWTIE,
    "sliver in one pixel": at(40.2, 40.5, 40.8, 40.5001),
    "sliver over pixels": at(40.5, 50.5, 44.25, 50.5001),
    "sliver that weighs nothing": at(41.2, 45.5, 41.2 + 1e-5, 45.5 + 1e-5),
    "upright sliver": at(45.3, 30.5, 45.3 + 1e-4, 38.25),
    "empty": shapely.Polygon(),
    "missing": None,
    "line": shapely.GeometryCollection(
        [shapely.LineString([(ODD_WEST, ODD_SOUTH), (ODD_WEST + 9, ODD_SOUTH)])]
    ),
    "corner": at(126, 126, 130, 130),
}


@dataclass(frozen=True)
class Odd:
    ran: Ran
    first: Tile
    second: Tile

    def expected(self, polygon: Any) -> Sums:
        """The first path owns what both tiles hold."""
        rest = polygon.difference(shapely.box(*self.first.grid.bounds))
        return sums(polygon, self.first) + sums(rest, self.second)


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Odd:
    rng = np.random.default_rng(11)
    first = random_tile(rng, utm_grid(32716, ODD_WEST, ODD_SOUTH, 128, 128, 64), 64, 0)
    first.data[:, 66:84, 66:84] = -128
    second = random_tile(
        rng, utm_grid(32716, ODD_WEST + 1000, ODD_SOUTH + 100, 96, 96, 32, south_up=False), 64, 0
    )
    first, second = replace(first, name="a-first"), replace(second, name="b-second")
    zones = zones_of(ODD, "EPSG:32716")
    zones["name"] = [f"the zone {name}" for name in ODD]
    ran = run(tmp_path_factory.mktemp("odd"), [second, first], zones, part_zones=6)
    return Odd(ran, first, second)


@pytest.mark.parametrize("zone", ["inside", "the same again", "inside that", "over that"])
def test_overlapping_zones_are_each_right_on_their_own(odd: Odd, zone: str) -> None:
    assert_right(odd.ran.row(zone), sums(ODD[zone], odd.first))


@pytest.mark.parametrize(
    ("zone", "tiles"),
    [("shared ground", 1), ("half shared ground", 1), ("only the other", 1), ("both ends", 2), ("corner", 1)],
)
def test_ground_under_two_tiles_of_one_utm_zone_is_counted_once(odd: Odd, zone: str, tiles: int) -> None:
    assert_right(odd.ran.row(zone), odd.expected(ODD[zone]))
    assert odd.ran.row(zone)["tile_count"] == tiles
    if zone != "corner":
        assert odd.ran.row(zone)["valid_fraction"] == pytest.approx(1, rel=1e-6)


def test_a_zone_of_nothing_but_nodata_keeps_its_row(odd: Odd) -> None:
    row = odd.ran.row("nodata")
    assert_null(row)
    assert row["tile_count"] == 1
    assert row["valid_fraction"] == 0


def test_nodata_pixels_count_for_nothing(odd: Odd) -> None:
    row = odd.ran.row("half nodata")
    assert_right(row, sums(ODD["half nodata"], odd.first))
    assert row["valid_fraction"] == pytest.approx(0.55, abs=1e-6)


def test_a_zone_outside_every_tile_keeps_its_row(odd: Odd) -> None:
    row = odd.ran.row("outside")
    assert_null(row)
    assert row["tile_count"] == 0
    assert row["valid_fraction"] == 0


def test_a_zone_over_the_edge_of_all_tiles_shows_it_in_its_valid_fraction(odd: Odd) -> None:
    row = odd.ran.row("over the edge")
    assert_right(row, sums(ODD["over the edge"], odd.first))
    assert row["valid_fraction"] == pytest.approx(0.5, abs=1e-6)


@pytest.mark.parametrize(
    ("zone", "pixels"),
    [
        ("sliver in one pixel", {(40, 40): 0.6}),
        ("sliver over pixels", {(50, 40): 0.5, (50, 41): 1, (50, 42): 1, (50, 43): 1, (50, 44): 0.25}),
        ("upright sliver", {(30, 45): 0.5} | {(row, 45): 1 for row in range(31, 38)} | {(38, 45): 0.25}),
    ],
)
def test_slivers_far_below_a_pixel_have_the_statistics_of_their_pixels(
    odd: Odd, zone: str, pixels: dict[tuple[int, int], float]
) -> None:
    row = odd.ran.row(zone)
    share = np.array([*pixels.values()])
    codes = np.array([odd.first.data[:, y, x] for y, x in pixels]).T.astype(float)
    values = np.sign(codes) * (codes / 127.5) ** 2
    mean = (values * share).sum(axis=1) / share.sum()
    std = np.sqrt(((values - mean[:, None]) ** 2 * share).sum(axis=1) / share.sum())
    assert row["pixel_count"] == pytest.approx(share.sum() * 1e-4, rel=1e-3)
    # The sliver is 1 mm wide and its corners, through degrees and back, are right to some nanometres.
    assert np.abs(row[MEANS].to_numpy(float) - mean).max() < 1e-5
    assert np.abs(row[STDS].to_numpy(float) - std).max() < 1e-5
    assert row["valid_fraction"] == pytest.approx(1, rel=1e-3)


def test_a_sliver_that_weighs_less_than_a_thousand_millionth_of_a_pixel_has_no_statistics(odd: Odd) -> None:
    assert_null(odd.ran.row("sliver that weighs nothing"))
    assert odd.ran.row("sliver that weighs nothing")["tile_count"] == 1


def test_a_zone_that_holds_no_pixel_centre_is_not_outside_every_tile(tmp_path: Path, odd: Odd) -> None:
    apart = {"x": at(20.6, 20.6, 21.4, 21.4), "y": at(30, 30, 40, 40)}
    # Its box meets the second chunk, its ground does not; and one whose box alone meets the tile.
    corner = shapely.Polygon(
        [(ODD_WEST - 5, ODD_SOUTH - 5), (ODD_WEST - 5, ODD_SOUTH + 4), (ODD_WEST + 4, ODD_SOUTH - 5)]
    )
    far = shapely.box(ODD_WEST - 3000, ODD_SOUTH - 3000, ODD_WEST - 2900, ODD_SOUTH - 2900)
    ran = run(
        tmp_path,
        [odd.first],
        zones_of(apart | {"corner": corner, "far": far}, "EPSG:32716"),
        coverage="center",
    )
    assert ran.table["tile_count"].to_dict() == {"x": 1, "y": 1, "corner": 0, "far": 0}
    assert_null(ran.row("x"))
    assert "2 zones lie outside every tile: their statistics are null" in ran.warnings
    assert "1 zones have no valid pixel: their statistics are null" in ran.warnings


@pytest.mark.parametrize("zone", ["empty", "missing", "line"])
def test_zones_without_ground_keep_their_row(odd: Odd, zone: str) -> None:
    row = odd.ran.row(zone)
    assert_null(row)
    assert row["tile_count"] == 0
    assert np.isnan(row["valid_fraction"])
    assert row["name"] == f"the zone {zone}"


def test_an_invalid_polygon_is_repaired(odd: Odd) -> None:
    assert_right(odd.ran.row("bow-tie"), sums(shapely.make_valid(BOWTIE), odd.first))


def test_the_manifest_counts_zones_by_their_fate_and_the_screen_warns(odd: Odd) -> None:
    counted = odd.ran.manifest["zones"]
    assert counted["read"] == counted["kept"] == len(ODD)
    assert (counted["repaired"], counted["empty"]) == (1, 3)
    # The one on nodata, and the sliver that weighs nothing.
    assert counted["without_pixels"] == 2
    assert counted["covered"] + counted["without_pixels"] + counted["outside_tiles"] == len(ODD)
    # Outside, and three without ground.
    assert counted["outside_tiles"] == 4
    assert odd.ran.warnings == [
        "1 zones repaired",
        "3 zones empty",
        "4 zones lie outside every tile: their statistics are null",
        "2 zones have no valid pixel: their statistics are null",
    ]


def test_which_of_two_overlapping_tiles_counts_is_decided_by_path(odd: Odd, tmp_path: Path) -> None:
    swapped = [replace(odd.first, name="z"), replace(odd.second, name="y")]
    zone = ODD["shared ground"]
    ran = run(tmp_path, swapped, zones_of({"z": zone}, "EPSG:32716"))
    assert_right(ran.row("z"), sums(zone, odd.second))
    assert np.abs(ran.row("z")[MEANS].to_numpy(float) - odd.ran.row("shared ground")[MEANS]).max() > 0.01
