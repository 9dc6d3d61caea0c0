from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pyogrio
import pytest
import shapely

from zonal.errors import InputError, UsageError
from zonal.io.table.export import export_table
from zonal.io.table.finished import BATCH, FinishedTable, load_table


def frame(rows: int = 6, **columns: Any) -> gpd.GeoDataFrame:
    """Squares, every third one a multipolygon of two, the last one empty."""
    squares = [shapely.box(i, 0, i + 0.5, 1) for i in range(rows)]
    squares[::3] = [shapely.multipolygons([square, shapely.box(0, 5, 1, 6)]) for square in squares[::3]]
    squares[-1] = shapely.Polygon()
    data = {
        "GEOID20": [f"{i:06d}" for i in range(rows)],
        "POP20": pd.array([None, *range(rows - 1)], dtype="Int64"),
        "A00_mean": np.linspace(-1, 1, rows, dtype=np.float32),
        **columns,
    }
    return gpd.GeoDataFrame(data, geometry=squares, crs="EPSG:4269")


def table(folder: Path, zones: gpd.GeoDataFrame, name: str = "stats.parquet") -> FinishedTable:
    folder.mkdir(parents=True, exist_ok=True)
    zones.to_parquet(folder / name, write_covering_bbox=True, geometry_encoding="WKB")
    return load_table(str(folder / name))


@pytest.mark.parametrize("to", ["gpkg", "fgb"])
def test_a_vector_file_has_all_rows_types_and_the_crs(tmp_path: Path, to: str) -> None:
    zones = frame(2 * BATCH + 10)  # several batches
    written = export_table(table(tmp_path, zones), to)
    assert written.file == tmp_path / f"stats.{to}"
    assert str(written) == f"{tmp_path}/stats.{to}  {len(zones):,} rows"
    back = gpd.read_file(written.file).sort_values("GEOID20", ignore_index=True)
    assert back.crs == zones.crs
    assert back.columns.to_list() == zones.columns.to_list()  # no bbox
    assert back["GEOID20"].to_list() == zones["GEOID20"].to_list()
    assert back["POP20"].isna().sum() == 1
    np.testing.assert_array_equal(back["A00_mean"], zones["A00_mean"])
    assert pyogrio.read_info(written.file)["geometry_type"] == "MultiPolygon"
    here = ~zones.geometry.is_empty.to_numpy()
    assert shapely.equals(back.geometry[here].to_numpy(), zones.geometry[here].to_numpy()).all()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_csv_has_every_column_but_the_geometry(tmp_path: Path) -> None:
    zones = frame()
    written = export_table(table(tmp_path, zones), "csv")
    assert str(written).endswith("stats.csv  6 rows; without geometry")
    back = pd.read_csv(written.file, dtype={"GEOID20": str})
    assert back.columns.to_list() == ["GEOID20", "POP20", "A00_mean"]
    assert back["GEOID20"].to_list() == zones["GEOID20"].to_list()
    assert (back["A00_mean"].astype(np.float32) == zones["A00_mean"]).all()


def test_columns_named_like_those_of_geopackage_survive(tmp_path: Path) -> None:
    zones = frame(fid=["a", "a", "b", "b", "c", "c"], geom=range(6), FID_=range(6))
    written = export_table(table(tmp_path, zones), "gpkg")
    back = gpd.read_file(written.file)
    assert back["fid"].to_list() == zones["fid"].to_list()
    assert back["geom"].to_list() == zones["geom"].to_list()


def test_several_states_become_one_file(tmp_path: Path) -> None:
    for name, start in (("WA", 0), ("OR", 6)):
        zones = frame()
        zones["GEOID20"] = [f"{i + start:06d}" for i in range(6)]
        table(tmp_path / "out" / "stats" / f"state={name}", zones, "part-00000.parquet")
    files = ["stats/state=WA/part-00000.parquet", "stats/state=OR/part-00000.parquet"]
    (tmp_path / "out/manifest.json").write_text(json.dumps({"table": "stats", "files": files}))
    loaded = load_table(str(tmp_path / "out"))
    assert loaded.rows == 12
    written = export_table(loaded, "gpkg")
    assert written.file == tmp_path / "out" / "stats.gpkg"
    assert gpd.read_file(written.file)["GEOID20"].nunique() == 12


def test_a_file_that_is_there_stays_unless_told_otherwise(tmp_path: Path) -> None:
    loaded = table(tmp_path, frame())
    target = tmp_path / "there.csv"
    target.write_text("precious")
    with pytest.raises(UsageError, match=r"there\.csv exists; .*--overwrite"):
        export_table(loaded, "csv", target)
    assert target.read_text() == "precious"
    export_table(loaded, "csv", target, overwrite=True)
    assert target.read_text().startswith('"GEOID20"')
    with pytest.raises(UsageError, match=r"is the table itself"):
        export_table(load_table(str(target)), "csv", target, overwrite=True)
    with pytest.raises(UsageError, match=r"ends in \.fgb"):
        export_table(loaded, "fgb", tmp_path / "x.gpkg")


def test_a_failed_export_leaves_nothing(tmp_path: Path) -> None:
    zones = frame(name=range(6), NAME=range(6))  # GeoPackage does not tell upper from lower case
    with pytest.raises(InputError, match=r"stats\.parquet cannot be written as gpkg: "):
        export_table(table(tmp_path, zones), "gpkg")
    assert [path.name for path in tmp_path.iterdir()] == ["stats.parquet"]
    with pytest.raises(InputError, match=r"cannot write .*stats\.parquet/x\.csv"):
        export_table(load_table(str(tmp_path / "stats.parquet")), "csv", tmp_path / "stats.parquet" / "x.csv")


def test_a_table_without_geometry_can_only_be_csv(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1], "list": [[1, 2]]}), tmp_path / "plain.parquet")
    loaded = load_table(str(tmp_path / "plain.parquet"))
    with pytest.raises(InputError, match=r"no geometry .* --to csv"):
        export_table(loaded, "gpkg")
    assert export_table(loaded, "csv").left_out == ("list",)


def test_what_is_no_table_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file or folder"):
        load_table(str(tmp_path / "absent.parquet"))
    with pytest.raises(InputError, match=r"no table here \(no manifest\.json and no Parquet file\)"):
        load_table(str(tmp_path))
    (tmp_path / ".work").mkdir()
    with pytest.raises(InputError, match=r"no table here \(an unfinished run\)"):
        load_table(str(tmp_path))
    (tmp_path / "bad.parquet").write_text("no Parquet at all")
    with pytest.raises(InputError, match=r"bad\.parquet is not a readable Parquet file"):
        load_table(str(tmp_path / "bad.parquet"))
    (tmp_path / "bad.csv").write_text("a,b\n1,2\n1,2,3\n")
    with pytest.raises(InputError, match=r"bad\.csv cannot be read as CSV"):
        load_table(str(tmp_path / "bad.csv"))
