from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import geopandas as gpd
import numpy as np
import pyarrow.parquet as pq
import pytest
import rasterio
import shapely
import tifffile
from numpy.typing import NDArray
from pyproj import Transformer
from synthetic import (
    Tile,
    aef_codes,
    blocks_zip,
    dequantise,
    index_frame,
    jittered_blocks,
    make_mirror,
    random_tile,
    utm_grid,
)

from zonal.demo.tiles import PREFIX, utm_zone
from zonal.demo.town import Sample, write_sample

BANDS = tuple(f"A{band:02d}" for band in range(64))


@pytest.fixture(scope="module")
def zones(sample: Sample) -> gpd.GeoDataFrame:
    return gpd.read_parquet(sample.zones)


@pytest.fixture(scope="module")
def tiles(sample: Sample) -> list[Path]:
    return sorted(sample.mirror.rglob("*.tiff"))


def written_chunks(path: Path) -> list[int]:
    with tifffile.TiffFile(path) as file:
        counts = np.array(file.pages[0].tags["TileByteCounts"].value).reshape(64, 64)
    assert ((counts > 0).all(axis=0) == (counts > 0).any(axis=0)).all()
    return np.flatnonzero(counts[0]).tolist()


def look_up(tiles: list[Path], zone: str, points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return de-quantised vectors [n, 64] of one UTM zone's tiles at lon/lat points; NaN for nodata."""
    found = np.full((len(points), 64), np.nan)
    for path in (path for path in tiles if path.parent.name == zone):
        with rasterio.open(path) as file:
            x, y = Transformer.from_crs(4326, file.crs, always_xy=True).transform(*points.T)
            inside = (y >= file.transform.f) & (y < file.transform.f + 10 * file.height)
            codes = np.array(list(file.sample(np.stack([x, y], -1)[inside]))).reshape(-1, 64)
        found[inside] = np.where((codes == -128).all(axis=1, keepdims=True), np.nan, dequantise(codes))
    return found


def digests(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def stamps(folder: Path) -> dict[str, int]:
    return {str(p): p.stat().st_mtime_ns for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_spoiled_sample_is_written_again_and_is_the_same_every_time(sample: Sample, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(sample.folder, tmp_path / "sample"))
    before = stamps(folder)
    (tile, *_) = (folder / "mirror").rglob("*.tiff")
    tile.write_bytes(b"II")
    write_sample(folder)
    assert digests(folder) == digests(sample.folder)
    assert all(stamps(folder)[name] != stamp for name, stamp in before.items())


def test_a_whole_sample_is_left_as_it_is_and_a_half_written_one_is_not(
    sample: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def begun(*_: object) -> None:
        raise InterruptedError

    monkeypatch.setattr("zonal.demo.town._draw_blocks", begun)
    folder = Path(shutil.copytree(sample.folder, tmp_path / "sample"))
    before = stamps(folder)
    assert write_sample(folder).chunk_count == sample.chunk_count
    assert stamps(folder) == before
    (folder / "sample.json").unlink()  # as when the first was interrupted
    with pytest.raises(InterruptedError):
        write_sample(folder)


def test_the_demo_run_again_has_nothing_to_do(tmp_path: Path) -> None:
    def demo() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "zonal", "demo", str(tmp_path / "town")]
        return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)

    first = demo()
    assert first.returncode == 0, first.stderr
    before = stamps(tmp_path / "town")
    second = demo()
    assert second.returncode == 0, second.stderr
    assert stamps(tmp_path / "town") == before


def test_sample_is_small_and_says_that_it_is_made_up(sample: Sample) -> None:
    files = [path for path in sample.folder.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 20e6
    assert "made up" in (sample.folder / "README.txt").read_text()


def test_tiles_have_the_layout_of_aef_files(tiles: list[Path]) -> None:
    assert [path.parent.name for path in tiles] == ["10N", "10N", "11N", "11N"]
    for path in tiles:
        with tifffile.TiffFile(path) as file:
            assert file.is_bigtiff
            assert file.byteorder == "<"
            tags = {tag.name: tag.value for tag in file.pages[0].tags}
        assert (tags["ImageWidth"], tags["ImageLength"]) == (8192, 8192)
        assert (tags["TileWidth"], tags["TileLength"]) == (1024, 1024)
        assert (tags["SamplesPerPixel"], tags["PlanarConfiguration"]) == (64, 2)
        assert (tags["Compression"], tags["Predictor"]) == (50000, 1)
        assert set(tags["SampleFormat"]) == {2}
        assert set(tags["BitsPerSample"]) == {8}
        assert "ModelPixelScaleTag" not in tags
        matrix = tags["ModelTransformationTag"]
        assert (matrix[0], matrix[5]) == (10, 10)
        assert (matrix[3] - 500_000) % 81_920 == 0
        assert matrix[7] % 81_920 == 0
        with rasterio.open(path) as file:
            assert file.descriptions == BANDS
            assert set(file.dtypes) == {"int8"}
            assert set(file.nodatavals) == {-128}
            assert file.crs.to_epsg() == {"10N": 32610, "11N": 32611}[path.parent.name]
            assert file.overviews(1) == []


def test_chunks_away_from_the_town_are_absent(sample: Sample, tiles: list[Path]) -> None:
    chunks = [written_chunks(path) for path in tiles]
    assert [len(numbers) for numbers in chunks] == [2, 2, 1, 1]
    assert sum(map(len, chunks)) == sample.chunk_count


def test_pixels_are_unit_vectors_with_nodata_in_all_bands_or_none(tiles: list[Path]) -> None:
    for path in tiles:
        with rasterio.open(path) as file:
            for chunk in written_chunks(path):
                codes = file.read(window=next(w for (r, c), w in file.block_windows(1) if 8 * r + c == chunk))
                missing = codes == -128
                assert np.array_equal(missing.all(axis=0), missing.any(axis=0))
                seen = codes[:, ~missing[0]]
                assert seen.shape[1] > 1000
                length = np.sqrt(np.square(dequantise(seen)).sum(axis=0))
                assert 0.99 < length.min() <= length.max() < 1.01


def test_both_utm_zones_show_the_same_ground_near_the_seam(tiles: list[Path]) -> None:
    rng = np.random.default_rng(1)
    points = np.stack([rng.uniform(-120.009, -119.991, 500), rng.uniform(46.546, 46.578, 500)], axis=-1)
    west, east = look_up(tiles, "10N", points), look_up(tiles, "11N", points)
    known = np.isfinite(west[:, 0]) & np.isfinite(east[:, 0])
    assert known.mean() > 0.95
    alike = (west[known] * east[known]).sum(axis=1)
    strangers = (west[known] * np.roll(east[known], 1, axis=0)).sum(axis=1)
    assert np.median(alike) > 0.99
    assert (alike > 0.9).mean() > 0.97  # the rest straddle an edge of land use
    assert np.median(strangers) < 0.97


def test_each_utm_zone_is_nodata_on_the_far_foreign_side(tiles: list[Path]) -> None:
    east, west = np.array([[-119.98, 46.563]]), np.array([[-120.02, 46.563]])
    assert np.isnan(look_up(tiles, "10N", east)).all()
    assert np.isnan(look_up(tiles, "11N", west)).all()
    assert np.isfinite(look_up(tiles, "11N", east)).all()
    assert np.isfinite(look_up(tiles, "10N", west)).all()


def test_own_side_of_the_seam_has_pixels_under_almost_every_zone(
    tiles: list[Path], zones: gpd.GeoDataFrame
) -> None:
    points = zones.representative_point()
    lonlat = np.stack([points.x, points.y], axis=-1)
    for zone, ours in (("10N", lonlat[:, 0] < -120), ("11N", lonlat[:, 0] >= -120)):
        assert np.isfinite(look_up(tiles, zone, lonlat[ours])[:, 0]).mean() > 0.98


def test_some_pixels_inside_the_town_are_nodata(tiles: list[Path], zones: gpd.GeoDataFrame) -> None:
    town = zones.union_all()
    rng = np.random.default_rng(2)
    west, south, _, north = town.bounds
    points = np.stack([rng.uniform(west, -120, 4000), rng.uniform(south, north, 4000)], axis=-1)
    points = points[shapely.contains_xy(town, points)]
    missing = np.isnan(look_up(tiles, "10N", points)[:, 0])
    assert 0 < missing.mean() < 0.02


def test_index_has_the_public_columns_and_names_every_tile(sample: Sample, tiles: list[Path]) -> None:
    path = sample.mirror / PREFIX / "aef_index.parquet"
    schema = pq.read_schema(path)
    names = "fid path year crs utm_zone utm_west utm_south utm_east utm_north wgs84_west wgs84_south"
    assert schema.names == [*names.split(), "wgs84_east", "wgs84_north", "location", "geometry"]
    index = gpd.read_parquet(path)
    assert index.crs.to_epsg() == 4326
    assert set(index["year"]) == {sample.year}
    bucket = "s3://us-west-2.opendata.source.coop/"
    assert sorted(index["path"]) == [bucket + p.relative_to(sample.mirror).as_posix() for p in tiles]
    for row in index.itertuples():
        with rasterio.open(sample.mirror / row.path.removeprefix(bucket)) as file:
            bounds = file.bounds
            assert str(file.crs) == row.crs
        edges = sorted([bounds.bottom, bounds.top])
        assert (row.utm_west, row.utm_east) == (bounds.left, bounds.right)
        assert [row.utm_south, row.utm_north] == edges
        assert np.allclose(
            row.geometry.bounds, (row.wgs84_west, row.wgs84_south, row.wgs84_east, row.wgs84_north)
        )


def test_index_has_the_column_types_of_the_real_one(sample: Sample, shared: Path) -> None:
    ours = pq.read_schema(sample.mirror / PREFIX / "aef_index.parquet")
    real = pq.read_schema(shared / "mirror" / PREFIX / "aef_index.parquet")
    assert ours.names == real.names
    assert ours.types == real.types


def test_zones_partition_the_town(zones: gpd.GeoDataFrame) -> None:
    assert zones.crs.to_epsg() == 4269
    assert zones.is_valid.all()
    assert set(zones.geom_type) == {"Polygon"}
    town = zones.union_all()
    assert town.area == pytest.approx(shapely.area(zones.geometry.to_numpy()).sum(), rel=1e-12)
    assert town.geom_type == "Polygon"
    assert len(town.interiors) == 0


def test_zone_ids_are_unique_strings_made_of_their_parts(sample: Sample, zones: gpd.GeoDataFrame) -> None:
    assert 600 <= len(zones) == sample.zone_count <= 900
    ids = zones["GEOID20"]
    assert ids.is_unique
    assert ids.is_monotonic_increasing
    assert ids.str.fullmatch(r"99\d{13}").all()
    assert (ids == zones["STATEFP20"] + zones["COUNTYFP20"] + zones["TRACTCE20"] + zones["BLOCKCE20"]).all()
    assert zones["COUNTYFP20"].nunique() == 2
    assert zones.groupby("COUNTYFP20")["TRACTCE20"].nunique().min() >= 2


def test_zone_attributes_are_sane_and_follow_the_land(zones: gpd.GeoDataFrame) -> None:
    counts = zones[["ALAND20", "AWATER20", "HOUSING20", "POP20"]]
    assert set(map(str, counts.dtypes)) == {"int64"}
    assert (counts >= 0).all(axis=None)
    area = zones.to_crs("EPSG:5070").area
    assert np.allclose(counts["ALAND20"] + counts["AWATER20"], area, rtol=1e-3, atol=2)
    lake = zones[zones["ALAND20"] == 0]
    assert len(lake) >= 4
    assert (lake[["HOUSING20", "POP20"]] == 0).all(axis=None)
    assert ((zones["AWATER20"] > 0) & (zones["ALAND20"] > 0)).sum() >= 4
    urban = zones["UR20"] == "U"
    assert set(zones["UR20"]) == {"U", "R"}
    density = zones["POP20"] / area
    assert density[urban].median() > 20 * density[~urban].median()
    assert (zones["POP20"].sum() / zones["HOUSING20"].sum()) == pytest.approx(2.2, abs=0.4)


def test_sample_has_the_hard_cases(zones: gpd.GeoDataFrame) -> None:
    edges = zones.bounds
    assert ((edges["minx"] < -120) & (edges["maxx"] > -120)).sum() >= 20
    for epsg in (32610, 32611):
        rows = zones.to_crs(epsg).bounds
        assert ((rows["miny"] < 63 * 81_920) & (rows["maxy"] > 63 * 81_920)).sum() >= 20
    area = zones.to_crs("EPSG:5070").area
    assert (area < 100).sum() >= 1, "no sliver below one pixel"
    assert area.max() > 3e5
    assert zones.interiors.str.len().max() == 1, "no zone with a hole"


def test_utm_zone_names_the_hemisphere_and_rejects_other_systems() -> None:
    assert utm_zone("EPSG:32610") == "10N"
    assert utm_zone("EPSG:32756") == "56S"
    with pytest.raises(ValueError, match="EPSG:4326 is no UTM zone"):
        utm_zone("EPSG:4326")


# The builders that other tests stand on


@pytest.mark.parametrize("south_up", [True, False])
@pytest.mark.parametrize("epsg", [32610, 32760])
def test_small_tile_reads_back_as_built(tmp_path: Path, epsg: int, south_up: bool) -> None:
    grid = utm_grid(epsg, 300_000, 5_000_000, 200, 150, 64, south_up=south_up)
    tile = random_tile(np.random.default_rng(3), grid, bands=5, nodata_fraction=0.1)
    with rasterio.open(tile.write(tmp_path / "tile.tif")) as file:
        assert np.array_equal(file.read(), tile.data)
        assert (file.transform.e > 0) == south_up
        assert sorted([file.bounds.bottom, file.bounds.top]) == [5_000_000, 5_001_500]
        assert file.block_shapes[0] == (64, 64)
        assert file.profile["interleave"] == "band"
    values, transform = tile.north_up()
    row, col = 149 if south_up else 0, 7
    assert np.array_equal(
        values[:, 0, 7],
        np.where(tile.valid[row, col], dequantise(tile.data[:, row, col]), np.nan),
        equal_nan=True,
    )
    assert transform.f == 5_001_500


def test_tile_of_another_layout_reads_back_as_built(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    options = {
        "interleave": "pixel",
        "compress": "deflate",
        "predictor": 2,
        "bigtiff": "NO",
        "endianness": "BIG",
    }
    grid = utm_grid(32611, 0, 0, 96, 64, 32)
    tile = Tile(grid, rng.integers(0, 5000, (3, 64, 96)).astype(np.uint16), "other", 0, options)
    with rasterio.open(tile.write(tmp_path / "tile.tif")) as file:
        assert np.array_equal(file.read(), tile.data)
    with tifffile.TiffFile(tmp_path / "tile.tif") as file:
        assert not file.is_bigtiff
        assert file.byteorder == ">"
        assert file.pages[0].tags["PlanarConfiguration"].value == 1
        assert np.array_equal(file.asarray().transpose(2, 0, 1), tile.data)


def test_codes_are_unit_vectors() -> None:
    codes = aef_codes(np.random.default_rng(5), 64, 40, 50, nodata_fraction=0.1)
    missing = codes == -128
    assert np.array_equal(missing.all(axis=0), missing.any(axis=0))
    assert 0.05 < missing[0].mean() < 0.15
    length = np.sqrt(np.square(dequantise(codes[:, ~missing[0]])).sum(axis=0))
    assert np.abs(length - 1).max() < 0.02


def test_mirror_holds_tiles_of_two_zones_and_their_index(tmp_path: Path) -> None:
    rng = np.random.default_rng(6)
    grids = [utm_grid(32610, 729_000, 5_160_000), utm_grid(32711, 270_000, 9_000_000, south_up=False)]
    tiles = [random_tile(rng, grid, bands=4) for grid in grids]
    mirror = make_mirror(tmp_path / "mirror", tiles)
    index = gpd.read_parquet(mirror / PREFIX / "aef_index.parquet")
    assert list(index["path"]) == list(index_frame(tiles)["path"])
    assert list(index["utm_zone"]) == ["10N", "11S"]
    for tile in tiles:
        with rasterio.open(mirror / tile.key()) as file:
            assert np.array_equal(file.read(), tile.data)


@pytest.mark.parametrize(
    ("bounds", "crs"),
    [
        ((-120.02, 46.5, -119.98, 46.52), "EPSG:4269"),
        ((500_000, 4_999_000, 505_000, 5_001_000), "EPSG:32616"),
    ],
)
def test_jittered_blocks_partition_their_bounds(bounds: tuple[float, float, float, float], crs: str) -> None:
    blocks = jittered_blocks(bounds, 12, 7, crs, seed=7)
    assert len(blocks) == 84
    assert blocks["GEOID20"].is_unique
    assert blocks["GEOID20"].str.len().eq(15).all()
    assert blocks.is_valid.all()
    union = blocks.union_all()
    assert shapely.area(blocks.geometry.to_numpy()).sum() == pytest.approx(union.area, rel=1e-12)
    rectangle = shapely.box(*bounds)
    covered = gpd.GeoSeries([union], crs=4269).to_crs(crs)[0]
    assert covered.area == pytest.approx(rectangle.area, rel=1e-4)


def test_blocks_zip_reads_back_like_a_tiger_file(tmp_path: Path) -> None:
    blocks = jittered_blocks((-120.02, 46.5, -119.98, 46.52), 5, 4, seed=8, state_fips="53")
    path = blocks_zip(tmp_path, "53", blocks)
    assert path == tmp_path / "geo/tiger/TIGER2025/TABBLOCK20/tl_2025_53_tabblock20.zip"
    read = gpd.read_file(path)
    assert read.crs.to_epsg() == 4269
    assert list(read["GEOID20"]) == list(blocks["GEOID20"])
    assert list(read["ALAND20"]) == list(blocks["ALAND20"])
    assert read.geometry.normalize().geom_equals_exact(blocks.geometry.normalize(), 1e-9).all()
