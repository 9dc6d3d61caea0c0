from __future__ import annotations

import json
from pathlib import Path

import geopandas as gpd
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyproj
import pytest
import shapely

from zonal.errors import InputError
from zonal.io.store.folder import Folder
from zonal.io.table import geoparquet
from zonal.io.table.table import TableColumns, covered_zones, merge_parts, part_table, write_part

NAD83 = pyproj.CRS("EPSG:4269")


def zones(count: int, first: int = 0) -> pa.Table:
    """Staged zones: id, one attribute, geometry; the last one empty."""
    shapes = shapely.box(np.arange(count) + first, 0, np.arange(count) + first + 1, 1)
    shapes[-1] = shapely.Polygon()
    bbox, wkb = geoparquet.geometry_columns(shapes)
    ids = [f"{first + i:015d}" for i in range(count)]
    attributes = {"GEOID20": ids, "POP20": pa.array(np.arange(count))}
    return pa.table({**attributes, "bbox": bbox, "geometry": wkb})


def finished(
    count: int, columns: TableColumns, first: int = 0, band_count: np.ndarray | None = None
) -> pa.Table:
    pixels = np.arange(count, dtype=float)
    values = np.add.outer(pixels, np.arange(len(columns.bands)))
    values[0] = np.nan
    return part_table(
        zones(count, first),
        columns,
        year=2024,
        pixel_count=pixels,
        valid_fraction=np.where(pixels > 0, 1.0, np.nan),
        tile_count=np.minimum(pixels, 2).astype(np.int32),
        statistics=dict.fromkeys(columns.stats, values),
        band_count=band_count,
    )


def test_columns_come_in_order_with_narrow_and_wide_types() -> None:
    columns = TableColumns("GEOID20", ("A00", "A01"), ("mean", "sum", "std"), narrow=True)
    schema = finished(3, columns).schema
    assert schema.names == [
        *("GEOID20", "POP20", "year", "pixel_count", "valid_fraction", "tile_count"),
        *("A00_mean", "A01_mean", "A00_sum", "A01_sum", "A00_std", "A01_std", "bbox", "geometry"),
    ]
    assert [str(schema.field(n).type) for n in ("A00_mean", "A00_sum", "A01_std", "year")] == [
        *("float", "double", "float", "int32")
    ]
    wide = TableColumns("GEOID20", ("red",), ("mean",), narrow=False)
    assert finished(3, wide).schema.field("red_mean").type == pa.float64()


def test_statistics_of_nothing_are_null_not_nan() -> None:
    table = finished(3, TableColumns("GEOID20", ("A00",), ("mean",), narrow=True))
    assert table["A00_mean"].null_count == 1
    assert table["valid_fraction"].to_pylist() == [None, 1.0, 1.0]


def test_an_attribute_with_the_name_of_an_added_column_is_an_error() -> None:
    columns = TableColumns("id", ("red",), ("mean",), narrow=False)
    columns.check(["name", "area"], "zones.gpkg")
    for name in ("year", "red_mean", "bbox", "pixel_count", "geometry", "zonal_area"):
        with pytest.raises(InputError, match=f"zones.gpkg: column '{name}' has the name"):
            columns.check(["name", name], "zones.gpkg")


def test_two_bands_of_one_name_are_an_error() -> None:
    columns = TableColumns("id", ("b", "c", "b"), ("mean",), narrow=False)
    with pytest.raises(InputError, match="the raster has two bands named 'b'; give each a name of its own"):
        columns.check(["id"], "zones.gpkg")


@pytest.mark.parametrize("band", ["pixel", "tile"])
@pytest.mark.parametrize("stats", [("mean",), ("mean", "count")])
def test_a_band_that_would_take_the_place_of_another_column_is_an_error(
    band: str, stats: tuple[str, ...]
) -> None:
    columns = TableColumns("id", ("red", band), stats, narrow=False)
    with pytest.raises(InputError, match=f"two columns '{band}_count'.*rename the bands"):
        columns.check(["id"], "zones.gpkg")


def test_a_zone_id_with_the_name_of_an_added_column_is_an_error() -> None:
    columns = TableColumns("year", ("red",), ("mean",), narrow=False)
    with pytest.raises(InputError, match=r"zones\.gpkg: column 'year' has the name of one that zonal adds"):
        columns.check(["year", "name"], "zones.gpkg")
    with pytest.raises(InputError, match=r"zones\.gpkg: two columns are named 'name'; rename one"):
        columns.check(["name", "name"], "zones.gpkg")


def test_no_column_of_a_part_silently_takes_the_place_of_another() -> None:
    with pytest.raises(InputError, match="two bands named 'b'"):
        finished(3, TableColumns("GEOID20", ("b", "b"), ("mean",), narrow=False))
    with pytest.raises(InputError, match="two columns 'pixel_count'"):
        finished(3, TableColumns("GEOID20", ("pixel",), ("count",), narrow=False))


def test_parts_become_one_file_with_large_row_groups_in_order(tmp_path: Path) -> None:
    columns = TableColumns("GEOID20", ("A00",), ("mean",), narrow=True)
    folder = Folder(str(tmp_path))
    names, rows = [], 0
    for number in range(13):
        names.append(f"part-{number}")
        write_part(folder, names[-1], finished(9_000, columns, rows), NAD83, {"year": 2024})
        rows += 9_000
    merge_parts(folder, names, folder, "stats.parquet", NAD83, {"year": 2024}, columns)
    file = pq.ParquetFile(tmp_path / "stats.parquet")
    sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    assert sizes == [50_000, 50_000, 17_000]
    assert file.read(["GEOID20"])["GEOID20"].to_pylist() == [f"{i:015d}" for i in range(rows)]
    assert file.metadata.row_group(0).column(0).compression == "ZSTD"
    about = json.loads(file.metadata.metadata[b"zonal"])
    assert about == {"schema_version": 1, "year": 2024}
    assert covered_zones(folder, names) == {"covered": 13 * 8_999, "without_pixels": 0, "outside_tiles": 13}


def test_the_file_is_geoparquet_with_its_bounds_and_types(tmp_path: Path) -> None:
    columns = TableColumns("GEOID20", ("A00",), ("mean",), narrow=True)
    folder = Folder(str(tmp_path))
    for number in range(2):
        write_part(folder, f"p{number}", finished(5, columns, number * 5), NAD83, {})
    merge_parts(folder, ["p0", "p1"], folder, "t.parquet", NAD83, {}, columns)
    geo = json.loads(pq.read_metadata(tmp_path / "t.parquet").metadata[b"geo"])
    column = geo["columns"]["geometry"]
    assert (geo["version"], geo["primary_column"]) == ("1.1.0", "geometry")
    assert column["bbox"] == [0, 0, 9, 1]  # the tenth zone is empty
    assert column["geometry_types"] == ["Polygon"]
    frame = gpd.read_parquet(tmp_path / "t.parquet", bbox=(6.2, 0.2, 6.8, 0.8))
    assert frame["GEOID20"].tolist() == [f"{6:015d}"]
    assert frame.crs == NAD83


def test_band_counts_stay_only_where_they_differ_from_the_pixel_count(tmp_path: Path) -> None:
    columns = TableColumns("GEOID20", ("a", "b"), ("mean",), narrow=False)
    folder = Folder(str(tmp_path))
    same = np.repeat(np.arange(4.0)[:, None], 2, axis=1)
    less = same * [1.0, 0.5]
    for name, counts in (("same", same), ("less", less)):
        write_part(folder, name, finished(4, columns, band_count=counts), NAD83, {})
    merge_parts(folder, ["same", "same"], folder, "x.parquet", NAD83, {}, columns)
    assert "a_count" not in pq.read_schema(tmp_path / "x.parquet").names
    merge_parts(folder, ["same", "less"], folder, "y.parquet", NAD83, {}, columns)
    table = pq.read_table(tmp_path / "y.parquet")
    assert table["b_count"].to_pylist() == [*same[:, 1], *less[:, 1]]


def test_equal_tables_are_equal_files(tmp_path: Path) -> None:
    columns = TableColumns("GEOID20", ("A00",), ("mean",), narrow=True)
    for name in ("a", "b"):
        write_part(Folder(str(tmp_path)), name, finished(50, columns), NAD83, {"b": 1, "a": 2})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
