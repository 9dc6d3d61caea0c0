"""What one worker does, called directly: no Dask, no cluster."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pyarrow.parquet as pq
import pytest
import shapely
from synthetic import Tile as SyntheticTile
from synthetic import jittered_blocks, make_mirror, random_tile, utm_grid

from zonal.config.catalog import Catalog
from zonal.config.settings import Settings
from zonal.engine.work import Job, finish_part, run_unit
from zonal.errors import InputError
from zonal.io.raster.reader import Reader
from zonal.io.store.folder import Folder
from zonal.io.table.names import part_name
from zonal.io.table.table import TableColumns
from zonal.planning.costs import plan_year
from zonal.planning.inputs import RasterInput, located, raster_input, zone_input
from zonal.planning.staging import stage
from zonal.planning.units import Plan
from zonal.planning.zones import Filters
from zonal.stats.moments import concat

WEST, SOUTH = 500_000, 4_000_000


@dataclass
class World:
    job: Job
    plan: Plan
    raster: RasterInput
    mirror: Path

    def zones_of(self, parts: tuple[int, ...]) -> list[tuple[int, int]]:
        return [self.plan.parts[number].zones for number in parts]

    def run(self) -> dict[int, list[Any]]:
        """Run all units; the partial moments of each part."""
        shares: dict[int, list[Any]] = {part.number: [] for part in self.plan.parts}
        for unit in self.plan.units:
            _, served = run_unit(self.job, unit, self.zones_of(unit.parts))
            for number, moments in zip(unit.parts, served, strict=True):
                shares[number].append(moments)
        return shares

    def part(self, number: int) -> Any:
        return pq.read_table(self.job.parts.path(part_name(number)))


def world(folder: Path, tiles: list[SyntheticTile], zones: Any, **values: Any) -> World:
    """Stage and plan zones over synthetic tiles, as the engine does."""
    mirror = make_mirror(folder / "mirror", tiles)
    zones.to_parquet(folder / "zones.parquet")
    settings = Settings(
        **{
            "zones": str(folder / "zones.parquet"),
            "zone_id": "GEOID20",
            "year": 2024,
            "mirror": str(mirror),
            "part_zones": 20,
            "part_chunks": 8,
            "unit_chunks": 2,
        }
        | values
    )
    catalog = Catalog.load(settings.catalog, settings.mirror, settings.storage_options)
    given, raster = zone_input(settings, catalog), raster_input(settings, catalog)
    columns = TableColumns("GEOID20", raster.reader.bands, settings.stats, True)
    staged = stage(
        Folder(str(folder / "stage")),
        given,
        raster,
        Filters(keep_water=True),
        (2024,) if raster.index is not None else (),
        columns,
        key="k",
        part_zones=settings.part_zones,
    )
    plan, opened, _ = plan_year(settings, raster, staged, 2024, headers=True)
    job = Job(
        stage=staged,
        parts=Folder(str(folder / "parts")),
        reader=raster.reader,
        tiles=tuple(tile for tile, _, _ in opened),
        urls=tuple(raster.url(tile.path) for tile in plan.tiles),
        columns=columns,
        coverage=settings.coverage,
        engine=settings.engine,
        year=2024,
        about={},
    )
    return World(job, plan, raster, mirror)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Two tiles side by side under 80 blocks, some of them outside."""
    rng = np.random.default_rng(0)
    tiles = [random_tile(rng, utm_grid(32616, WEST + 1280 * n, SOUTH, 128, 128, 64)) for n in (0, 1)]
    blocks = jittered_blocks((WEST - 300, SOUTH - 300, WEST + 2860, SOUTH + 1000), 10, 8, "EPSG:32616")
    return world(tmp_path_factory.mktemp("work"), tiles, blocks)


# ------------------------------------------------------------------ units


def test_the_plan_of_these_tests_is_worth_testing(small: World) -> None:
    assert len(small.plan.parts) >= 4
    assert len(small.plan.units) >= 4
    assert any(len(unit.parts) > 1 for unit in small.plan.units)


def test_a_unit_gives_each_part_the_moments_of_its_own_zones(small: World) -> None:
    for unit in small.plan.units:
        zones = small.zones_of(unit.parts)
        report, served = run_unit(small.job, unit, zones)
        assert len(served) == len(unit.parts)
        for (start, stop), share in zip(zones, served, strict=True):
            for moments in share:
                assert ((moments.zone >= start) & (moments.zone < stop)).all()
                assert (moments.tile == unit.tile).all()
                assert set(moments.chunk.tolist()) <= set(unit.chunks)
        assert (report.number, report.chunks) == (unit.number, len(unit.chunks))
        assert report.fetched > 0
        assert report.staged > 0


def test_parts_asked_for_together_or_alone_get_the_same(small: World) -> None:
    unit = max(small.plan.units, key=lambda unit: len(unit.parts))
    _, together = run_unit(small.job, unit, small.zones_of(unit.parts))
    for number, expected in zip(unit.parts, together, strict=True):
        _, (alone,) = run_unit(small.job, unit, small.zones_of((number,)))
        assert len(alone) == len(expected) > 0
        for name in ("zone", "tile", "chunk", "piece", "count", "full", "weight", "edge"):
            for one, other in zip(alone, expected, strict=True):
                assert getattr(one, name).tobytes() == getattr(other, name).tobytes()


def test_a_part_that_a_unit_finds_nothing_for_gets_no_moments(small: World) -> None:
    _, served = run_unit(small.job, small.plan.units[0], [(10_000, 10_001)])
    assert served == [[]]


def test_a_part_without_a_share_of_pixels_is_finished_too(small: World) -> None:
    part = small.plan.parts[0]
    job = replace(small.job, parts=small.job.parts.sub("none"))
    for shares in ([], [[], []]):
        report = finish_part(job, part, shares)
        table = pq.read_table(job.parts.path(part_name(part.number)))
        assert report.zones == len(table) == part.zones[1] - part.zones[0]
        assert set(table["pixel_count"].to_pylist()) == {0.0}
        assert set(table["tile_count"].to_pylist()) == {0}
        assert table["A00_mean"].null_count == table["A63_std"].null_count == len(table)
        assert set(table["valid_fraction"].to_pylist()) == {0.0}


def test_the_order_of_shares_changes_no_byte_of_a_part(small: World) -> None:
    shares = small.run()
    number = max(shares, key=lambda n: sum(map(bool, shares[n])))
    assert len(shares[number]) > 1
    finish_part(small.job, small.plan.parts[number], shares[number])
    path = Path(small.job.parts.path(part_name(number)))
    before = path.read_bytes()
    finish_part(small.job, small.plan.parts[number], shares[number][::-1])
    assert path.read_bytes() == before


def test_parts_hold_all_zones_in_staged_order(small: World) -> None:
    shares = small.run()
    ids, pixels = [], []
    for part in small.plan.parts:
        finish_part(small.job, part, shares[part.number])
        ids += small.part(part.number)["GEOID20"].to_pylist()
        pixels += small.part(part.number)["pixel_count"].to_pylist()
    staged = small.job.stage.zones(0, len(small.job.stage.row_groups.batch))
    assert ids == staged["GEOID20"].to_pylist()
    assert len(ids) == 80
    moments = concat([m for given in shares.values() for share in given for m in share])
    assert sum(pixels) == pytest.approx(moments.statistics(0, 80, ("mean",)).pixel_count.sum())


def test_a_tile_that_was_replaced_after_planning_is_an_error(small: World) -> None:
    unit = small.plan.units[0]
    tiles = list(small.job.tiles)
    other = replace(tiles[unit.tile].grid, y0=tiles[unit.tile].grid.y0 + 1280, dy=-10.0)
    tiles[unit.tile] = replace(tiles[unit.tile], grid=other)
    with pytest.raises(InputError) as caught:
        run_unit(replace(small.job, tiles=tuple(tiles)), unit, small.zones_of(unit.parts))
    url = small.job.urls[unit.tile]
    assert str(caught.value) == (
        f"tile {url}: its header is not the one the plan was made from; was it replaced?"
    )


def test_a_zone_along_the_border_of_a_tiles_ground_counts_once(tmp_path: Path) -> None:
    """Cut by that ground, it falls into a polygon and a line."""
    rng = np.random.default_rng(3)
    tiles = [random_tile(rng, utm_grid(32616, WEST + 640 * n, SOUTH, 128, 64, 64), 2, 0) for n in (0, 1)]
    files = [str(tile.write(tmp_path / f"{n}.tiff")) for n, tile in enumerate(tiles)]
    seam = WEST + 1280  # where the first tile ends and the ground of the second begins
    comb = shapely.box(seam - 200, SOUTH + 100, seam, SOUTH + 500).union(
        shapely.box(seam - 10, SOUTH + 200, seam + 100, SOUTH + 250)
    )
    zones = gpd.GeoDataFrame({"GEOID20": ["z"]}, geometry=[comb], crs="EPSG:32616")
    made = world(tmp_path, tiles, zones, raster=files)
    assert shapely.intersection(comb, made.job.tiles[1].owned).geom_type == "GeometryCollection"
    finish_part(made.job, made.plan.parts[0], made.run()[0])
    table = made.part(0)
    assert table["pixel_count"].to_pylist() == [comb.area / 100]
    assert table["tile_count"].to_pylist() == [2]


# ------------------------------------------------------------------ tiles against the index


def opened(small: World) -> tuple[Any, Any]:
    tile = small.raster.near(2024, np.array(small.job.stage.report["boxes"]))[0]
    return tile, small.job.reader.open(small.raster.url(tile.path))


def test_a_tile_takes_the_grid_that_its_file_states(small: World) -> None:
    tile, raster = opened(small)
    assert tile.grid.chunk_width == 1024, "the catalog's guess"
    assert located(tile, raster).grid == raster.grid
    assert located(replace(tile, ground=b"x"), raster).ground == b"x"


def test_a_north_up_file_is_as_good_as_a_south_up_one(small: World) -> None:
    tile, raster = opened(small)
    grid = tile.grid
    flipped = replace(tile, grid=replace(grid, y0=grid.y0 + grid.height * grid.dy, dy=-grid.dy))
    assert located(flipped, raster).grid == raster.grid


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"x0": WEST + 10.0}, "128 x 128 px of 10 at 500010, 4000000, 501290, 4001280 in EPSG:32616"),
        ({"crs": "EPSG:32617"}, "128 x 128 px of 10 at 500000, 4000000, 501280, 4001280 in EPSG:32617"),
        ({"width": 64}, "64 x 128 px of 10 at 500000, 4000000, 500640, 4001280 in EPSG:32616"),
        ({"y0": SOUTH + 0.01}, "128 x 128 px of 10 at 500000, 4000000.01, 501280, 4001280.01 in EPSG:32616"),
        (
            {"dx": 5.0, "dy": 5.0, "width": 256, "height": 256},
            "256 x 256 px of 5 at 500000, 4000000, 501280, 4001280 in EPSG:32616",
        ),
    ],
)
def test_a_file_that_lies_elsewhere_than_the_index_says_is_an_error(
    small: World, change: dict[str, Any], said: str
) -> None:
    tile, raster = opened(small)
    with pytest.raises(InputError) as caught:
        located(replace(tile, grid=replace(tile.grid, **change)), raster)
    found = "128 x 128 px of 10 at 500000, 4000000, 501280, 4001280 in EPSG:32616"
    assert str(caught.value) == (
        f"tile {raster.name}: the file has {found}, the index says {said}; "
        "the index and the file do not belong together"
    )


@pytest.mark.parametrize(
    ("bands", "sentence"),
    [
        (63, "63 bands (A00..A62), expected 64 bands (A00..A63)"),
        (1, "1 band (A00), expected 64 bands (A00..A63)"),
    ],
)
def test_a_file_with_other_bands_than_the_source_is_an_error(
    small: World, tmp_path: Path, bands: int, sentence: str
) -> None:
    tile = SyntheticTile(utm_grid(32616, WEST, SOUTH, 64, 64, 64), np.ones((bands, 64, 64), np.int8))
    path = tile.write(tmp_path / "tile.tiff")
    with pytest.raises(InputError) as caught:
        small.job.reader.open(str(path))
    assert str(caught.value) == f"tile {path}: {sentence}; is it of another product?"


@pytest.mark.parametrize(("driver", "dtype"), [("cog", "float32"), ("rasterio", "int16")])
def test_a_file_that_states_another_nodata_than_the_catalog_is_an_error(
    tmp_path: Path, driver: Any, dtype: str
) -> None:
    for name, nodata in (("right", -9999), ("wrong", -1), ("none", None)):
        data = np.ones((2, 64, 64), dtype)
        tile = SyntheticTile(utm_grid(32616, WEST, SOUTH, 64, 64, 64), data, nodata=nodata)
        tile.write(tmp_path / f"{name}.tiff")
    reader = Reader(driver, "linear", nodata=-9999)
    assert reader.open(str(tmp_path / "right.tiff")).nodata == (-9999, -9999)
    for name, said in (("wrong", "nodata -1"), ("none", "no nodata")):
        path = tmp_path / f"{name}.tiff"
        Reader(driver, "linear").open(str(path))
        with pytest.raises(InputError) as caught:
            reader.open(str(path))
        assert str(caught.value) == (
            f"tile {path}: band A00 states {said}, the catalog says -9999; correct the one that is wrong"
        )


def test_a_reader_opens_a_file_once(small: World) -> None:
    _, raster = opened(small)
    assert opened(small)[1] is raster
    assert Reader("cog", "aef").open(raster.name) is raster


def test_a_reader_does_not_show_its_storage_options() -> None:
    assert "hunter2" not in repr(Reader("cog", "aef", options={"secret": "hunter2"}))
