"""Any GeoTIFF and any zones, through `zonal.zonal_stats`, against independent computations."""

from __future__ import annotations

from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rasterio
import shapely
from exactextract import exact_extract
from rasterio.features import geometry_mask
from rasterio.transform import from_origin

import zonal
from zonal.errors import InputError, UsageError

RNG = np.random.default_rng(7)


def write(path: Path, data: np.ndarray, transform: rasterio.Affine, crs: str, **profile: object) -> Path:
    """Write data[band, y, x]; `profile` may hold scales, offsets, band_nodata and descriptions."""
    scales, offsets, names = (profile.pop(k, None) for k in ("scales", "offsets", "names"))
    settings = {"driver": "GTiff", "count": len(data), "height": data.shape[1], "width": data.shape[2]}
    settings |= {"dtype": data.dtype, "transform": transform, "crs": crs, **profile}
    with rasterio.open(path, "w", **settings) as out:
        out.write(data)
        if scales:
            out.scales, out.offsets = scales, offsets
        if names:
            out.descriptions = names
    return path


def boxes(west: float, south: float, size: float, count: int, crs: str) -> gpd.GeoDataFrame:
    """Random turned rectangles, each on its own row of an index that is not 0, 1, 2."""
    corners = RNG.uniform((west, south), (west + size, south + size), (count, 2))
    sides = RNG.uniform(size / 40, size / 5, (count, 2))
    shapes = [
        shapely.affinity.rotate(shapely.box(x, y, x + w, y + h), angle)
        for (x, y), (w, h), angle in zip(corners, sides, RNG.uniform(0, 90, count), strict=True)
    ]
    names = [f"z{i}" for i in range(count)]
    return gpd.GeoDataFrame({"name": names}, geometry=shapes, crs=crs, index=range(100, 100 + count))


def oracle(raster: Path | list[Path], zones: gpd.GeoDataFrame) -> pd.DataFrame:
    found = exact_extract(raster, zones, ["mean", "stdev", "count"], output="pandas")
    return found.set_index(zones.index)


def assert_equal(table: gpd.GeoDataFrame, expected: pd.DataFrame, bands: list[str], tolerance: float) -> None:
    for number, band in enumerate(bands, 1):
        for ours, theirs in (("mean", "mean"), ("std", "stdev")):
            column = expected[f"band_{number}_{theirs}" if len(bands) > 1 else theirs]
            np.testing.assert_allclose(table[f"{band}_{ours}"], column, rtol=0, atol=tolerance)


@pytest.fixture
def metric(tmp_path: Path) -> tuple[Path, gpd.GeoDataFrame]:
    """Three float bands in a projected CRS, and zones over them and beyond their border."""
    data = RNG.normal(size=(3, 90, 120)).astype("float32")
    path = write(tmp_path / "metric.tif", data, from_origin(500_000, 5_000_900, 10, 10), "EPSG:32616")
    return path, boxes(499_900, 4_999_900, 1_000, 40, "EPSG:32616")


def test_a_float_raster_equals_exactextract_in_every_band(metric: tuple[Path, gpd.GeoDataFrame]) -> None:
    path, zones = metric
    table = zonal.zonal_stats(zones, path, stats="mean,std,count")
    expected = oracle(path, zones)
    assert_equal(table, expected, ["band1", "band2", "band3"], 1e-6)
    np.testing.assert_allclose(table["band1_count"], expected["band_1_count"], atol=1e-3)


def test_a_frame_keeps_its_rows_index_and_columns(metric: tuple[Path, gpd.GeoDataFrame]) -> None:
    path, zones = metric
    table = zonal.zonal_stats(zones, path)
    assert isinstance(table, gpd.GeoDataFrame)
    assert table.crs == zones.crs
    pd.testing.assert_frame_equal(pd.DataFrame(table[["name", "geometry"]]), pd.DataFrame(zones))
    assert list(table.columns[2:6]) == ["pixel_count", "valid_fraction", "tile_count", "band1_mean"]


def test_the_center_rule_equals_a_rasterio_mask(metric: tuple[Path, gpd.GeoDataFrame]) -> None:
    path, zones = metric
    table = zonal.zonal_stats(zones, path, coverage="center")
    with rasterio.open(path) as file:
        data, transform = file.read().astype(float), file.transform
    for row in table.itertuples():
        inside = geometry_mask([row.geometry], data.shape[1:], transform, invert=True)
        assert row.pixel_count == inside.sum()
        if inside.any():
            assert row.band2_mean == pytest.approx(data[1][inside].mean(), abs=1e-6)
            assert row.band2_std == pytest.approx(data[1][inside].std(), abs=1e-6)
        else:
            assert np.isnan(row.band2_mean)


def test_scale_offset_and_nodata_of_each_band_are_honoured(tmp_path: Path) -> None:
    stored = RNG.integers(0, 200, (2, 60, 60)).astype("int16")
    stored[0, :20] = -1
    stored[1, 40:] = -1
    path = write(
        tmp_path / "scaled.tif",
        stored,
        from_origin(0, 600, 10, 10),
        "EPSG:32633",
        nodata=-1,
        scales=(0.5, 2.0),
        offsets=(10.0, -3.0),
        names=("red", "heat"),
    )
    zones = boxes(0, 0, 560, 30, "EPSG:32633")
    table = zonal.zonal_stats(zones, path, stats="mean,std,min,max,sum,count")
    values = stored * np.array([0.5, 2.0])[:, None, None] + np.array([10.0, -3.0])[:, None, None]
    values[stored == -1] = np.nan
    plain = write(tmp_path / "plain.tif", values, from_origin(0, 600, 10, 10), "EPSG:32633", nodata=np.nan)
    expected = exact_extract(plain, zones, ["mean", "stdev", "min", "max", "sum", "count"], output="pandas")
    for number, band in enumerate(("red", "heat"), 1):
        for ours, theirs in (
            ("mean", "mean"),
            ("std", "stdev"),
            ("min", "min"),
            ("max", "max"),
            ("sum", "sum"),
        ):
            # exactextract's sum of nothing is 0; a statistic of nothing is null here.
            column = expected[f"band_{number}_{theirs}"].where(expected[f"band_{number}_count"] > 0)
            np.testing.assert_allclose(table[f"{band}_{ours}"], column, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(table[f"{band}_count"], expected[f"band_{number}_count"], atol=1e-3)


def test_bands_that_differ_in_nodata_get_a_count_each_and_others_do_not(tmp_path: Path) -> None:
    data = RNG.normal(size=(2, 40, 40))
    zones = boxes(20, 20, 300, 12, "EPSG:32633")
    same = write(tmp_path / "same.tif", data, from_origin(0, 400, 10, 10), "EPSG:32633", nodata=-9.0)
    assert "band1_count" not in zonal.zonal_stats(zones, same).columns
    data[1, :, :15] = -9.0
    differ = write(tmp_path / "differ.tif", data, from_origin(0, 400, 10, 10), "EPSG:32633", nodata=-9.0)
    table = zonal.zonal_stats(zones, differ)
    np.testing.assert_allclose(table["pixel_count"], table["band1_count"])
    assert (table["band2_count"] < table["band1_count"] - 1).any()
    np.testing.assert_allclose(table["band2_count"], oracle(differ, zones)["band_2_count"], atol=1e-3)


def test_a_catalogs_driver_and_nodata_count(tmp_path: Path) -> None:
    data = RNG.normal(size=(1, 40, 40))
    write(tmp_path / "a.tif", data, from_origin(0, 400, 10, 10), "EPSG:32633", nodata=-9.0)
    zones = boxes(20, 20, 300, 2, "EPSG:32633")
    zones.assign(code=["a", "b", "c", "d"][: len(zones)]).to_parquet(tmp_path / "zones.data")
    text = """
mine: {{data_type: RasterTiles, driver: rasterio, uri: a.tif, metadata: {{nodata: {nodata}}}}}
plots: {{data_type: GeoDataFrame, driver: geoparquet, uri: zones.data, metadata: {{zone_id: code}}}}
"""
    catalog = tmp_path / "catalog.yaml"
    catalog.write_text(text.format(nodata=-9))
    table = zonal.zonal_stats("plots", "mine", catalog=str(catalog))
    assert len(table) == len(zones)
    catalog.write_text(text.format(nodata=-1))
    with pytest.raises(zonal.ZonalError, match="band band1 states nodata -9, the catalog says -1"):
        zonal.zonal_stats("plots", "mine", catalog=str(catalog))


def test_a_geographic_raster_with_zones_in_another_crs_equals_exactextract(tmp_path: Path) -> None:
    data = RNG.normal(size=(1, 80, 100))
    path = write(tmp_path / "degrees.tif", data, from_origin(10.0, 51.0, 0.001, 0.001), "EPSG:4326")
    zones = boxes(10.005, 50.925, 0.06, 25, "EPSG:4326").to_crs("EPSG:3035")
    expected = oracle(path, zones.to_crs("EPSG:4326"))
    assert_equal(zonal.zonal_stats(zones, path), expected, ["band1"], 1e-6)


def test_south_up_and_tiled_rasters_give_the_same_as_their_north_up_twin(tmp_path: Path) -> None:
    data = RNG.normal(size=(2, 300, 200))
    zones = boxes(50, 50, 1_500, 30, "EPSG:32616")
    north = write(tmp_path / "n.tif", data, from_origin(0, 3_000, 10, 10), "EPSG:32616")
    south = write(
        tmp_path / "s.tif",
        data[:, ::-1],
        rasterio.Affine(10, 0, 0, 0, 10, 0),
        "EPSG:32616",
        tiled=True,
        blockxsize=64,
        blockysize=64,
    )
    a, b = zonal.zonal_stats(zones, north), zonal.zonal_stats(zones, south)
    for column in ("pixel_count", "band1_mean", "band2_std"):
        np.testing.assert_allclose(a[column], b[column], rtol=1e-12, atol=1e-12)


def test_a_raster_in_several_files_equals_the_raster_in_one(tmp_path: Path) -> None:
    data = RNG.normal(size=(2, 100, 100))
    zones = boxes(100, 100, 700, 30, "EPSG:32616")
    whole = write(tmp_path / "whole.tif", data, from_origin(0, 1_000, 10, 10), "EPSG:32616")
    # The right file overlaps the left one, with other values there: the first by path owns the ground.
    left = write(tmp_path / "a.tif", data[:, :, :55], from_origin(0, 1_000, 10, 10), "EPSG:32616")
    other = data[:, :, 45:].copy()
    other[:, :, :10] = 1_000
    right = write(tmp_path / "b.tif", other, from_origin(450, 1_000, 10, 10), "EPSG:32616")
    one, two = zonal.zonal_stats(zones, whole), zonal.zonal_stats(zones, [right, left])
    for column in ("pixel_count", "band1_mean", "band1_std", "band2_mean", "band2_std"):
        np.testing.assert_allclose(one[column], two[column], rtol=0, atol=1e-9)
    assert two["tile_count"].max() == 2


def test_zones_far_from_the_raster_keep_their_rows(metric: tuple[Path, gpd.GeoDataFrame]) -> None:
    path, zones = metric
    far = gpd.GeoDataFrame({"name": ["far"]}, geometry=[shapely.box(2, 48, 2.1, 48.1)], crs="EPSG:4326")
    everything = pd.concat([zones.to_crs("EPSG:4326"), far])
    table = zonal.zonal_stats(everything, path)
    assert len(table) == len(zones) + 1
    assert table.iloc[-1]["tile_count"] == 0
    assert np.isnan(table.iloc[-1]["band1_mean"])


def test_the_active_dask_client_gives_the_same_numbers(metric: tuple[Path, gpd.GeoDataFrame]) -> None:
    from distributed import Client

    path, zones = metric
    alone = zonal.zonal_stats(zones, path)
    with Client(n_workers=1, threads_per_worker=2, dashboard_address=None, processes=True):
        together = zonal.zonal_stats(zones, path)
    pd.testing.assert_frame_equal(alone, together)


def test_zones_from_any_vector_file_with_their_id(
    metric: tuple[Path, gpd.GeoDataFrame], tmp_path: Path
) -> None:
    path, zones = metric
    expected = zonal.zonal_stats(zones, path).set_index("name")["band1_mean"]
    for name in ("zones.gpkg", "zones.geojson", "zones.fgb", "zones.parquet"):
        file = tmp_path / name
        zones.to_parquet(file) if name.endswith("parquet") else zones.to_file(file)
        table = zonal.zonal_stats(file, path, zone_id="name").set_index("name")
        np.testing.assert_allclose(table["band1_mean"].reindex(expected.index), expected, rtol=0, atol=1e-6)


def test_settings_that_are_wrong_are_one_sentence(metric: tuple[Path, gpd.GeoDataFrame]) -> None:
    path, zones = metric
    with pytest.raises(UsageError, match="median"):
        zonal.zonal_stats(zones, path, stats="median")
    with pytest.raises(UsageError, match="--zone-id"):
        zonal.zonal_stats(str(path), path)
    with pytest.raises(InputError, match=r"no such file"):
        zonal.zonal_stats(zones, path.with_name("absent.tif"))
    with pytest.raises(InputError, match="no CRS"):
        zonal.zonal_stats(zones.set_crs(None, allow_override=True), path)


def test_rasters_that_do_not_belong_together_are_an_error(tmp_path: Path) -> None:
    zones = boxes(0, 0, 100, 3, "EPSG:32616")
    one = write(tmp_path / "1.tif", np.ones((1, 9, 9)), from_origin(0, 90, 10, 10), "EPSG:32616")
    two = write(tmp_path / "2.tif", np.ones((2, 9, 9)), from_origin(90, 90, 10, 10), "EPSG:32616")
    fine = write(tmp_path / "3.tif", np.ones((1, 9, 9)), from_origin(90, 90, 5, 5), "EPSG:32616")
    other = write(tmp_path / "4.tif", np.ones((1, 9, 9)), from_origin(0, 90, 10, 10), "EPSG:3035")
    with pytest.raises(InputError, match="2 bands"):
        zonal.zonal_stats(zones, [one, two])
    with pytest.raises(InputError, match="pixels of 5"):
        zonal.zonal_stats(zones, [one, fine])
    with pytest.raises(InputError, match="2 CRSs"):
        zonal.zonal_stats(zones, [one, other])
