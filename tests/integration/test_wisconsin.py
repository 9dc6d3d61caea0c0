"""The real run: 4,153 block shapes on AEF pixels, against exactextract, rasterio masks and GeoParquet."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pyogrio
import pyproj
import pytest
import rasterio
import rasterio.features
import shapely
from builds import Run
from exactextract import exact_extract
from exactextract.raster import NumPyRasterSource
from numpy.typing import NDArray
from rasterio.transform import Affine
from rasterio.windows import Window
from servers import zonal

from zonal.cluster.runner import Threads
from zonal.config.settings import Settings
from zonal.engine.run import run

BANDS = [f"A{number:02d}" for number in range(64)]
ATTRIBUTES = [
    "STATEFP20", "COUNTYFP20", "TRACTCE20", "BLOCKCE20", "GEOIDFQ20", "NAME20",
    "MTFCC20", "UR20", "UACE20", "FUNCSTAT20", "ALAND20", "AWATER20",
    "INTPTLAT20", "INTPTLON20", "HOUSING20", "POP20",
]  # fmt: skip
SIDES = ["xmin", "ymin", "xmax", "ymax"]
ALL_STATS = ("mean", "std", "min", "max", "sum", "count")


@dataclass(frozen=True)
class Pixels:
    """De-quantised values [band, y, x], NaN for nodata, row 0 in the north; and zones in their CRS."""

    values: NDArray[np.float64]
    transform: Affine
    zones: gpd.GeoDataFrame


@pytest.fixture(scope="module")
def pixels(wisconsin: Run) -> Pixels:
    """Read without zonal: rasterio for the tile, geopandas for the zones and their projection."""
    (tile,) = wisconsin.mirror.rglob("*.tiff")
    (file,) = wisconsin.mirror.rglob("tl_2025_55_tabblock20.zip")
    zones = gpd.read_file(file)[["GEOID20", "geometry"]].to_crs("EPSG:32616")
    west, south, east, north = zones.total_bounds
    with rasterio.open(tile) as source:
        place = source.transform
        assert place.e > 0, "the served file is south-up"
        first = int((west - place.c) // 10) - 1, int((south - place.f) // 10) - 1
        last = int((east - place.c) // 10) + 2, int((north - place.f) // 10) + 2
        codes = source.read(window=Window.from_slices((first[1], last[1]), (first[0], last[0])))
    codes = codes[:, ::-1].astype(np.float64)
    values = np.where(codes == -128, np.nan, np.sign(codes) * (codes / 127.5) ** 2)
    transform = Affine(10, 0, place.c + 10 * first[0], 0, -10, place.f + 10 * last[1])
    return Pixels(values, transform, zones)


@pytest.fixture(scope="module")
def exact(pixels: Pixels) -> pd.DataFrame:
    """exactextract's own statistics of every zone and band, indexed by GEOID20."""
    _, height, width = pixels.values.shape
    west, north = pixels.transform.c, pixels.transform.f
    place = {"xmin": west, "ymin": north - 10 * height, "xmax": west + 10 * width, "ymax": north}
    rasters = [
        NumPyRasterSource(band, nodata=np.nan, name=name, srs_wkt=pyproj.CRS("EPSG:32616").to_wkt(), **place)
        for name, band in zip(BANDS, pixels.values, strict=True)
    ]
    found = exact_extract(
        rasters,
        pixels.zones,
        # Weights under 1e-9 are 0 by contract: only extremes can tell.
        [
            "mean",
            "stdev",
            "min(min_coverage_frac=1e-9)",
            "max(min_coverage_frac=1e-9)",
            "sum",
            "count",
        ],
        include_cols=["GEOID20"],
        output="pandas",
        strategy="raster-sequential",
    )
    return found.set_index("GEOID20")


def again(wisconsin: Run, folder: Path, **settings: Any) -> pd.DataFrame:
    """The same run with other settings; its table, indexed by GEOID20."""
    given = {"state": "WI", "year": 2024, "mirror": str(wisconsin.mirror), "output": str(folder / "out")}
    (result,) = run(Settings(**given | settings), runner=Threads(2))
    return pd.DataFrame(gpd.read_parquet(result.table)).set_index("GEOID20")


def by_id(table: pd.DataFrame, like: pd.DataFrame) -> pd.DataFrame:
    found = pd.DataFrame(table)
    return (found.set_index("GEOID20") if "GEOID20" in found else found).loc[like.index]


def columns(table: pd.DataFrame, stat: str) -> NDArray[np.float64]:
    return table[[f"{band}_{stat}" for band in BANDS]].to_numpy(np.float64)


def assert_close(found: NDArray[Any], expected: NDArray[Any], tolerance: float) -> None:
    """Within `tolerance` where there is a number, and no number in the same places."""
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)


# ------------------------------------------------------------------ the numbers


def test_all_zones_are_there_once_and_covered(wisconsin: Run, pixels: Pixels) -> None:
    table = wisconsin.table
    assert len(table) == 4153
    assert set(table["GEOID20"]) == set(pixels.zones["GEOID20"]) and table["GEOID20"].is_unique
    assert (table["pixel_count"] > 0).all() and (table["tile_count"] == 1).all()


@pytest.mark.parametrize(("stat", "peer"), [("mean", "mean"), ("std", "stdev")])
def test_every_band_of_every_zone_is_within_1e_6_of_exactextract(
    wisconsin: Run, exact: pd.DataFrame, stat: str, peer: str
) -> None:
    found = columns(by_id(wisconsin.table, exact), stat)
    assert found.shape == (4153, 64) and np.isfinite(found).all()
    assert_close(found, columns(exact, peer), 1e-6)


def test_pixel_count_is_exactextracts_and_valid_fraction_its_share_of_the_zone(
    wisconsin: Run, exact: pd.DataFrame, pixels: Pixels
) -> None:
    table = by_id(wisconsin.table, exact)
    assert_close(table["pixel_count"].to_numpy(), exact["A00_count"].to_numpy(), 1e-3)
    area = pixels.zones.set_index("GEOID20").loc[exact.index].area.to_numpy()
    assert_close(table["valid_fraction"].to_numpy(), exact["A00_count"].to_numpy() * 100 / area, 1e-5)
    assert table["valid_fraction"].between(0.99, 1 + 1e-6).all()
    assert (table["valid_fraction"] < 0.999).sum() == 3, "three zones have a pixel without data"


def test_the_centre_rule_equals_a_rasterio_mask_of_every_zone(
    wisconsin: Run, pixels: Pixels, tmp_path: Path
) -> None:
    table = again(wisconsin, tmp_path, coverage="center")
    assert len(table) == 4153
    zones = pixels.zones.set_index("GEOID20").loc[table.index]
    counts = np.zeros(len(zones))
    mean, std = np.full((2, len(zones), 64), np.nan)
    west_edge, north_edge = pixels.transform.c, pixels.transform.f
    for row, polygon in enumerate(zones.geometry):
        west, south, east, north = polygon.bounds
        left, right = int((west - west_edge) / 10), int((east - west_edge) / 10) + 1
        top, bottom = int((north_edge - north) / 10), int((north_edge - south) / 10) + 1
        window = pixels.values[:, top:bottom, left:right]
        place = Affine(10, 0, west_edge + 10 * left, 0, -10, north_edge - 10 * top)
        inside = rasterio.features.geometry_mask([polygon], window.shape[1:], place, invert=True)
        values = window[:, inside & ~np.isnan(window[0])]
        counts[row] = values.shape[1]
        if values.size:
            mean[row], std[row] = values.mean(axis=1), values.std(axis=1)
    np.testing.assert_array_equal(table["pixel_count"], counts)
    assert_close(columns(table, "mean"), mean, 1e-6)
    assert_close(columns(table, "std"), std, 1e-6)


def test_exactextract_as_the_engine_gives_the_same_table_within_1e_6(wisconsin: Run, tmp_path: Path) -> None:
    table = again(wisconsin, tmp_path, engine="exactextract")
    native = by_id(wisconsin.table, table)
    assert_close(table["pixel_count"].to_numpy(), native["pixel_count"].to_numpy(), 1e-3)
    for stat in ("mean", "std"):
        assert_close(columns(table, stat), columns(native, stat), 1e-6)


def test_all_six_statistics_equal_exactextract(wisconsin: Run, exact: pd.DataFrame, tmp_path: Path) -> None:
    table = by_id(again(wisconsin, tmp_path, stats=ALL_STATS), exact)
    names = list(table.columns)
    assert [n for n in names if n.startswith("A") and n[1:3].isdigit()] == [
        f"{band}_{stat}" for stat in ALL_STATS for band in BANDS
    ]
    for stat in ALL_STATS:
        wide = stat in ("sum", "count")
        assert {str(table[f"{band}_{stat}"].dtype) for band in BANDS} == {"float64" if wide else "float32"}
    for stat, peer in (("mean", "mean"), ("std", "stdev"), ("min", "min"), ("max", "max")):
        assert_close(columns(table, stat), columns(exact, peer), 1e-6)
    assert_close(columns(table, "count"), columns(exact, "count"), 1e-3)
    size = exact["A00_count"].to_numpy()[:, None]  # a sum's error grows with the number of its pixels
    assert_close(columns(table, "sum") / size, columns(exact, "sum") / size, 1e-6)
    assert (np.ptp(columns(table, "count"), axis=1) == 0).all(), "nodata is in all bands or in none"


# ------------------------------------------------------------------ the table's form


def test_columns_come_in_their_order_with_their_types(wisconsin: Run) -> None:
    schema = pq.read_schema(wisconsin.path)
    own = ["year", "pixel_count", "valid_fraction", "tile_count"]
    stats = [f"{band}_{stat}" for stat in ("mean", "std") for band in BANDS]
    assert schema.names == ["GEOID20", *ATTRIBUTES, *own, *stats, "bbox", "geometry"]
    kinds = {name: str(schema.field(name).type) for name in schema.names}
    assert {kinds[name] for name in stats} == {"float"}
    assert {name: kinds[name] for name in ("GEOID20", *own)} == {
        "GEOID20": "string",
        "year": "int32",
        "pixel_count": "double",
        "valid_fraction": "double",
        "tile_count": "int32",
    }
    assert kinds["geometry"] == "binary" and kinds["COUNTYFP20"] == "string" and kinds["ALAND20"] == "int64"
    table = wisconsin.table
    assert (table["year"] == 2024).all() and table["GEOID20"].str.len().eq(15).all()


def test_attributes_and_geometry_are_those_of_the_zone_file(wisconsin: Run) -> None:
    (file,) = wisconsin.mirror.rglob("tl_2025_55_tabblock20.zip")
    source = gpd.read_file(file).set_index("GEOID20").sort_index()
    table = wisconsin.table.set_index("GEOID20").sort_index()
    for name in ATTRIBUTES:
        there, here = source[name], table[name]
        assert (there.isna() == here.isna()).all() and (there.dropna() == here.dropna()).all(), name
    assert table.crs == source.crs == pyproj.CRS("EPSG:4269")
    valid = shapely.is_valid(source.geometry.to_numpy())
    assert shapely.equals_exact(table.geometry.to_numpy()[valid], source.geometry.to_numpy()[valid]).all()


def test_zones_are_sorted_in_space(wisconsin: Run) -> None:
    table = wisconsin.table.to_crs("EPSG:32616")
    centre = np.column_stack([table.centroid.x, table.centroid.y])
    step = np.hypot(*np.diff(centre, axis=0).T)
    shuffled = np.random.default_rng(0).permutation(centre)
    assert np.median(step) < np.median(np.hypot(*np.diff(shuffled, axis=0).T)) / 10


def test_the_file_says_what_it_is_and_neither_when_nor_where_it_was_made(wisconsin: Run) -> None:
    stored = pq.read_metadata(wisconsin.path).metadata
    assert set(stored) == {b"geo", b"zonal", b"ARROW:schema"}
    about = json.loads(stored[b"zonal"])
    assert about["schema_version"] == 1 and re.fullmatch(r"\d+\.\d+\.\d+.*", about["zonal_version"])
    assert (about["year"], about["vintage"], about["zone_id"]) == (2024, "TIGER2025", "GEOID20")
    assert (about["coverage"], about["engine"]) == ("fractional", "native")
    assert about["statistics"] == ["mean", "std"]
    assert len(about["sources"]) == 2 and all(url.startswith("https://") for url in about["sources"])
    text = json.dumps(about)
    assert (
        "produced by Google and Google DeepMind" in text and "Census Bureau" in text and "CC-BY-4.0" in text
    )
    assert not re.search(r"\d{4}-\d\d-\d\d|\d\d:\d\d", text), "no dates, no times of day"
    whole = wisconsin.path.read_bytes()
    for place in (wisconsin.mirror, wisconsin.folder, Path.home()):
        assert str(place.resolve()).encode() not in whole


def test_the_manifest_tells_settings_inputs_counts_operations_and_bytes(wisconsin: Run) -> None:
    assert sorted(p.name for p in wisconsin.folder.iterdir()) == ["manifest.json", "stats.parquet"]
    manifest = json.loads((wisconsin.folder / "manifest.json").read_text())
    assert (wisconsin.folder / "manifest.json").stat().st_mtime_ns >= wisconsin.path.stat().st_mtime_ns
    assert manifest["files"] == ["stats.parquet"] and re.fullmatch(r"[0-9a-f]{64}", manifest["fingerprint"])
    settings = manifest["settings"]
    assert (settings["state"], settings["year"], settings["coverage"]) == (["WI"], 2024, "fractional")
    assert (settings["engine"], settings["stats"]) == ("native", ["mean", "std"])
    inputs = manifest["inputs"]
    services = {"https://www2.census.gov/": "", "s3://us-west-2.opendata.source.coop/": ""}
    named = [(entry["url"], entry) for entry in (*inputs["zones"], inputs["index"])]
    named += [(entry["path"], entry) for entry in inputs["tiles"]]
    assert len(named) == 3
    for url, entry in named:
        (service,) = (s for s in services if url.startswith(s))
        assert (
            entry["size"] == (wisconsin.mirror / url.removeprefix(service)).stat().st_size and entry["etag"]
        )
    operations = inputs["coordinate_operations"]
    assert len(operations) == 2
    assert operations[0].startswith("EPSG:4269 to EPSG:4326") and "NAD83 to WGS 84" in operations[0]
    assert operations[1].startswith("EPSG:4326 to EPSG:32616") and "UTM zone 16N" in operations[1]
    zones = manifest["zones"]
    assert (zones["read"], zones["kept"], zones["covered"]) == (4153, 4153, 4153)
    assert zones["dropped"] == {"all water": 0}
    assert manifest["plan"] == {"tiles": 1, "chunks": 4, "units": 1, "parts": 1}
    assert {"numpy", "pyproj", "shapely", "pyarrow"} <= set(manifest["versions"])


def test_few_bytes_are_read_besides_the_chunks_that_zones_touch(wisconsin: Run) -> None:
    counted = wisconsin.manifest["bytes"]
    assert counted["fetched"] == counted["to_fetch"] > 10_000_000
    assert 0 < counted["staged_read"] <= 0.05 * counted["fetched"]


# ------------------------------------------------------------------ GeoParquet 1.1


def test_the_file_is_geoparquet_1_1_with_a_covering(wisconsin: Run) -> None:
    schema = pq.read_schema(wisconsin.path)
    geo = json.loads(schema.metadata[b"geo"])
    assert (geo["version"], geo["primary_column"]) == ("1.1.0", "geometry")
    assert set(geo["columns"]) == {"geometry"}
    column = geo["columns"]["geometry"]
    assert set(column) <= {
        "encoding",
        "geometry_types",
        "crs",
        "edges",
        "orientation",
        "bbox",
        "epoch",
        "covering",
    }
    assert column["encoding"] == "WKB" and column.get("edges", "planar") == "planar"
    assert pa.types.is_binary(schema.field("geometry").type)
    crs = pyproj.CRS.from_json_dict(column["crs"])
    assert column["crs"]["type"] == "GeographicCRS" and crs.to_authority() == ("EPSG", "4269")
    table = wisconsin.table
    assert sorted(column["geometry_types"]) == sorted(table.geom_type.unique())
    np.testing.assert_array_equal(column["bbox"], table.total_bounds)
    assert column["covering"] == {"bbox": {side: ["bbox", side] for side in SIDES}}
    box = schema.field("bbox").type
    assert pa.types.is_struct(box) and [box.field(i).name for i in range(box.num_fields)] == SIDES
    assert {str(box.field(i).type) for i in range(box.num_fields)} == {"double"}
    stored = np.column_stack([pq.read_table(wisconsin.path)["bbox"].combine_chunks().field(s) for s in SIDES])
    np.testing.assert_array_equal(stored, shapely.bounds(table.geometry.to_numpy()))


def test_row_groups_are_zstd_with_statistics_of_the_covering(wisconsin: Run) -> None:
    metadata = pq.read_metadata(wisconsin.path)
    assert metadata.num_row_groups == 1, "4,153 rows are fewer than one row group may hold"
    group = metadata.row_group(0)
    chunks = {group.column(i).path_in_schema: group.column(i) for i in range(group.num_columns)}
    assert {chunk.compression for chunk in chunks.values()} == {"ZSTD"}
    west, south, east, north = wisconsin.table.total_bounds
    assert chunks["bbox.xmin"].statistics.min == west and chunks["bbox.ymax"].statistics.max == north
    assert chunks["bbox.ymin"].statistics.min == south and chunks["bbox.xmax"].statistics.max == east


def test_geopandas_filters_by_the_covering(wisconsin: Run) -> None:
    table = wisconsin.table
    west, south, east, north = table.total_bounds
    box = (west, south, west + (east - west) / 3, south + (north - south) / 3)
    found = gpd.read_parquet(wisconsin.path, bbox=box)
    bounds = table.bounds
    expected = table[
        (bounds["minx"] <= box[2])
        & (bounds["maxx"] >= box[0])
        & (bounds["miny"] <= box[3])
        & (bounds["maxy"] >= box[1])
    ]
    assert 0 < len(expected) < len(table)
    pd.testing.assert_frame_equal(
        pd.DataFrame(found).drop(columns="geometry"),
        pd.DataFrame(expected).drop(columns="geometry").reset_index(drop=True),
    )
    assert shapely.equals_exact(found.geometry.to_numpy(), expected.geometry.to_numpy()).all()


def test_duckdb_reads_the_table_and_its_covering(wisconsin: Run) -> None:
    table = wisconsin.table
    with duckdb.connect() as connection:
        rows, mean = connection.execute(
            "select count(*), avg(A63_mean) from read_parquet(?)", [str(wisconsin.path)]
        ).fetchone()
        middle = float(table.bounds["minx"].median())
        (western,) = connection.execute(
            "select count(*) from read_parquet(?) where bbox.xmin < ?", [str(wisconsin.path), middle]
        ).fetchone()
    assert rows == 4153 and western == (table.bounds["minx"] < middle).sum()
    assert mean == pytest.approx(table["A63_mean"].astype(float).mean(), abs=1e-9)


def test_a_geoparquet_validator_finds_no_fault(wisconsin: Run) -> None:
    here = Path(sys.executable).parent
    validator = shutil.which("geoparquet-validator", path=f"{here}{os.pathsep}{os.environ['PATH']}")
    if validator is None:
        pytest.skip("geoparquet-validator is not installed")
    done = subprocess.run([validator, "check", str(wisconsin.path)], capture_output=True, text=True)
    assert done.returncode == 0 and "FAIL" not in done.stdout, done.stdout + done.stderr
    assert len(re.findall(r"\d+ pass, 0 fail", done.stdout)) == 3, done.stdout


def test_gdal_opens_the_table_where_it_has_the_parquet_driver(wisconsin: Run) -> None:
    if "Parquet" not in pyogrio.list_drivers():
        pytest.skip("this GDAL has no Parquet driver")
    info = pyogrio.read_info(wisconsin.path)
    assert info["features"] == 4153 and info["crs"] == "EPSG:4269"
    assert "A00_mean" in info["fields"] and info["geometry_name"] == "geometry"


# ------------------------------------------------------------------ the command


def test_the_command_writes_the_same_bytes_and_then_has_nothing_to_do(wisconsin: Run, tmp_path: Path) -> None:
    words = ["run", "--state", "WI", "--year", 2024, "--mirror", wisconsin.mirror, "--output", "out"]
    done = zonal(*words, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "out/stats.parquet" in done.stdout and "4,153 zones" in done.stdout
    table = tmp_path / "out/stats.parquet"
    assert table.read_bytes() == wisconsin.path.read_bytes()
    made = {"evaluation.json", "evaluation.md", "pca.json", "pca.png", "pca.tif", "report.html", "stats.qml"}
    assert {p.name for p in table.parent.iterdir()} == {
        "manifest.json", "stats.parquet", "steps.json", *made
    }  # fmt: skip
    found = json.loads((tmp_path / "out/evaluation.json").read_bytes())
    reasons = {row["target"]: row["skipped"] for row in found["regressions"] if row["features"] == "all"}
    assert {name for name, reason in reasons.items() if not reason} == {"log_land_area"}
    written = {p.name: p.stat().st_mtime_ns for p in table.parent.iterdir()}
    once_more = zonal(*words, folder=tmp_path)
    assert once_more.returncode == 0 and "nothing to do" in once_more.stdout
    assert {p.name: p.stat().st_mtime_ns for p in table.parent.iterdir()} == written


def test_colorado_has_no_tile_so_the_command_says_so_and_leaves_nothing(shared: Path, tmp_path: Path) -> None:
    words = ["--state", "CO", "--year", 2024, "--mirror", shared / "mirror", "--output", "out/co"]
    done = zonal("run", *words, folder=tmp_path)
    told = done.stdout + done.stderr
    assert done.returncode == 3, told
    assert "Traceback" not in told
    assert "10,146 of 10,149 zones kept" in told and "3 zones dropped: all water" in told
    (sentence,) = [line for line in done.stderr.splitlines() if line.startswith("zonal: ")]
    assert "no tile of 2024" in sentence and "covers any of the 10,146 zones" in sentence
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not (tmp_path / "out/co").exists()
