"""Tables of larger areas against direct runs on the dissolved zones, and on the real blocks of Denver."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
from servers import zonal
from synthetic import jittered_blocks
from test_any_raster import from_origin, write

from zonal.cluster.runner import Threads
from zonal.config.settings import Settings
from zonal.demo.town import write_sample
from zonal.engine.run import run
from zonal.findings.areas.aggregate import aggregate
from zonal.io.table.finished import load_table

pytestmark = pytest.mark.timeout(240)

KINDS = "mean,std,min,max,sum,count"
DIGITS = {"tract": 11, "county": 5}


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("town")
    write_sample(folder)
    return folder


@pytest.fixture(scope="module")
def tables(town: Path) -> dict[str, Path]:
    """Tables of the town's blocks, all of them, with every statistic: by coverage rule."""
    more = {"mirror": str(town / "mirror"), "year": 2024}
    rules = ("fractional", "center")
    return {rule: made(town / "zones.parquet", town / rule, coverage=rule, **more) for rule in rules}


def made(zones: Path, output: Path, **more: Any) -> Path:
    """Run on some zones, none left out."""
    words = {
        "zones": str(zones),
        "zone_id": "GEOID20",
        "output": str(output),
        "keep_water": True,
        "stats": KINDS,
    }
    (result,) = run(Settings(**words | more), runner=Threads(2))
    return Path(result.table)


def dissolved(zones: gpd.GeoDataFrame, digits: int, file: Path) -> Path:
    """The larger areas as zones, by GeoPandas."""
    areas = zones[["GEOID20", "geometry"]].assign(GEOID20=zones["GEOID20"].str[:digits])
    areas.dissolve("GEOID20").reset_index().to_parquet(file)
    return file


def assert_same(found: pd.DataFrame, direct: pd.DataFrame, seam: Any = False) -> None:
    """All that both say of the same areas, to 1e-6 (counts and sums: of their size).

    Areas on the `seam` of two UTM zones, bool[area], differ by the ground between the chords that a run cuts
    the meridian into: those of a large area are longer than those of its blocks, and up to 0.1 m off its
    course (docs/correctness.md, 7). Here that is under 1e-5 of the area.
    """
    found, direct = (table.set_index("GEOID20").sort_index() for table in (found, direct))
    assert list(found.index) == list(direct.index)
    count = direct["pixel_count"]
    ground = (found["pixel_count"] - count).abs() / count.where(count > 0)
    assert (ground.fillna(0) <= np.where(seam, 1e-5, 1e-6)).all()
    lost = np.where(seam, ground, 0)
    np.testing.assert_allclose(found["valid_fraction"], direct["valid_fraction"], rtol=1e-4)
    for name in direct.columns:
        band, _, kind = name.rpartition("_")
        if kind not in KINDS.split(",") or band in ("pixel", "tile", "zone"):
            continue
        assert found[name].dtype == direct[name].dtype, name
        np.testing.assert_array_equal(found[name].isna(), direct[name].isna(), name)
        low, high = (direct[f"{band}_{end}"].astype(float) for end in ("min", "max"))
        within = {
            "count": (1e-6 + lost) * count,
            "sum": (1e-6 + lost) * count * np.maximum(low.abs(), high.abs()),
        }.get(kind, 1e-6 + lost * (high - low))
        gap = (found[name].astype(float) - direct[name]).abs()
        assert (gap <= within)[gap > 0].all(), f"{name}: {gap.max()}"


def on_the_seam(direct: Path) -> pd.Series:
    """Whether each area lies in two UTM zones."""
    bounds = gpd.read_parquet(direct).set_index("GEOID20").sort_index().bounds
    cut = bounds["minx"].lt(-120) & bounds["maxx"].gt(-120)
    assert cut.any() and not cut.all()
    return cut


@pytest.mark.parametrize("coverage", ["fractional", "center"])
@pytest.mark.parametrize("by", ["tract", "county"])
def test_areas_of_blocks_equal_a_direct_run_on_those_areas(
    town: Path, tables: dict[str, Path], tmp_path: Path, by: str, coverage: str
) -> None:
    zones = gpd.read_parquet(town / "zones.parquet")
    areas = dissolved(zones, DIGITS[by], tmp_path / "areas.parquet")
    direct = made(areas, tmp_path / "direct", mirror=str(town / "mirror"), year=2024, coverage=coverage)
    found = aggregate(load_table(str(tables[coverage])), by, tmp_path / "found.parquet")
    assert found.rows == len(zones) and found.warnings == ()
    assert_same(pd.read_parquet(found.file), pd.read_parquet(direct), on_the_seam(direct))
    if coverage == "center":  # a partition counts each centre once
        assert (pd.read_parquet(found.file)["pixel_count"] % 1 == 0).all()


@pytest.mark.parametrize("coverage", ["fractional", "center"])
def test_bands_that_differ_in_nodata_merge_by_their_own_counts(tmp_path: Path, coverage: str) -> None:
    rng = np.random.default_rng(0)
    data = rng.normal(1000, 5, (3, 120, 120))
    data[0, 30:60, 20:70], data[1, :40], data[:, 80:100, 90:120] = -9, -9, -9
    raster = write(
        tmp_path / "r.tif", data, from_origin(500_000, 5_001_200, 10, 10), "EPSG:32616", nodata=-9.0
    )
    # 600 blocks in 12 tracts, on the raster and beyond its border.
    blocks = jittered_blocks((500_100, 5_000_100, 501_400, 5_001_300), 30, 20, "EPSG:32616")
    blocks.to_parquet(tmp_path / "blocks.parquet")
    asked = {"raster": [str(raster)], "coverage": coverage}
    table = made(tmp_path / "blocks.parquet", tmp_path / "out", **asked, stats="mean,std,min,max,sum")
    areas = dissolved(blocks, 11, tmp_path / "areas.parquet")
    direct = made(areas, tmp_path / "direct", **asked, stats="mean,std,min,max,sum")
    direct_table = pd.read_parquet(direct)
    assert {"band1_count", "band2_count"} <= {*direct_table.columns}
    assert direct_table["valid_fraction"].between(0.01, 0.9).any(), "no area lies partly beyond the raster"
    found = aggregate(load_table(str(table)), "tract")
    assert_same(pd.read_parquet(found.file), direct_table)


def test_dissolved_areas_are_those_of_geopandas_and_a_validator_finds_no_fault(
    town: Path, tables: dict[str, Path], tmp_path: Path
) -> None:
    found = aggregate(load_table(str(tables["fractional"])), "tract", tmp_path / "a.parquet", dissolve=True)
    frame = gpd.read_parquet(found.file).set_index("GEOID20")
    zones = gpd.read_parquet(town / "zones.parquet")
    expected = zones.dissolve(zones["GEOID20"].str[:11]).geometry
    assert found.warnings == () and frame.crs == zones.crs and frame.geometry.is_valid.all()
    assert shapely.equals(frame.geometry, expected.reindex(frame.index)).all()
    here = Path(sys.executable).parent
    validator = shutil.which("geoparquet-validator", path=f"{here}{os.pathsep}{os.environ['PATH']}")
    if validator is None:
        pytest.skip("geoparquet-validator is not installed")
    done = subprocess.run([validator, "check", str(found.file)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "FAIL" not in done.stdout, done.stdout + done.stderr


def test_the_command_says_what_it_wrote_and_takes_its_own_table_again(
    tables: dict[str, Path], tmp_path: Path
) -> None:
    output = shutil.copytree(tables["fractional"].parent, tmp_path / "out")
    done = zonal("aggregate", "out", "--by", "tract", "--dissolve", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("out/stats-by-tract.parquet  ") and "areas from" in done.stdout
    done = zonal(
        "aggregate", "out/stats-by-tract.parquet", "--by", "county", "--output", "c.parquet", folder=tmp_path
    )
    assert done.stdout.startswith("c.parquet  2 areas from "), done.stderr
    direct = aggregate(load_table(str(output)), "county", tmp_path / "d.parquet")
    twice, once = (pd.read_parquet(file) for file in (tmp_path / "c.parquet", direct.file))
    assert twice["zone_count"].to_list() == once["zone_count"].to_list()
    assert_same(twice, once)
    done = zonal("aggregate", "out", "--by", "parish", folder=tmp_path)
    assert (
        done.returncode == 2
        and done.stderr.count("\n") == 1
        and "--by parish: expected block-group" in done.stderr
    )


@pytest.fixture(scope="module")
def denver(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Denver's real blocks with made-up statistics: no tile covers them."""
    file = shared / "mirror/geo/tiger/TIGER2025/TABBLOCK20/tl_2025_08_tabblock20.zip"
    blocks = gpd.read_file(f"zip://{file}")
    rng = np.random.default_rng(8)
    blocks["pixel_count"] = (blocks["ALAND20"] + blocks["AWATER20"]) / 100
    for band in range(4):
        blocks[f"A{band:02d}_mean"] = rng.normal(0, 0.1, len(blocks))
        blocks[f"A{band:02d}_std"] = rng.random(len(blocks)) / 10
    path = tmp_path_factory.mktemp("denver") / "denver.parquet"
    blocks.to_parquet(path)
    return path


@pytest.mark.parametrize(("by", "digits"), [("tract", 11), ("block-group", 12)])
def test_denvers_blocks_by_tract_and_block_group_are_what_pandas_makes_of_them(
    denver: Path, by: str, digits: int
) -> None:
    blocks = gpd.read_parquet(denver)
    made = aggregate(load_table(str(denver)), by, dissolve=True)
    found = gpd.read_parquet(made.file).set_index("GEOID20")
    area = blocks["GEOID20"].str[:digits]
    groups = blocks.groupby(area)
    assert made.rows == len(blocks) == 10_149 and list(found.index) == sorted(area.unique())
    assert found["zone_count"].to_list() == groups.size().to_list()
    assert {"STATEFP20", "COUNTYFP20", "TRACTCE20"} <= {*found.columns} and "BLOCKCE20" in made.left_out
    assert (found["COUNTYFP20"] == found.index.str[2:5]).all()
    assert found["HOUSING20"].isna().all() and blocks["HOUSING20"].isna().all()
    for name in ("POP20", "ALAND20", "AWATER20"):
        assert found[name].to_list() == groups[name].sum().to_list()
    assert found["POP20"].sum() == blocks["POP20"].sum() > 500_000
    weight = blocks["pixel_count"]
    total = weight.groupby(area).sum()
    for band in ("A00", "A03"):
        mean, std = blocks[f"{band}_mean"], blocks[f"{band}_std"]
        middle = (weight * mean).groupby(area).sum() / total
        spread = (weight * (std**2 + (mean - area.map(middle)) ** 2)).groupby(area).sum() / total
        np.testing.assert_allclose(found[f"{band}_mean"], middle, rtol=0, atol=1e-12)
        np.testing.assert_allclose(found[f"{band}_std"], np.sqrt(spread), rtol=0, atol=1e-12)
    assert made.warnings == () and found.geometry.is_valid.all()
    assert shapely.area(found.geometry).sum() == pytest.approx(shapely.area(blocks.geometry).sum(), rel=1e-9)
    assert shapely.equals(found.geometry, blocks.dissolve(area).geometry.reindex(found.index)).all()
