"""Reading zones through Arrow where that is the same, and the other way where it is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyogrio
import pytest
import shapely
from geopandas.testing import assert_geodataframe_equal

from zonal.io.table.vector import read_zones

PLAIN = {
    "GEOID20": ["01", "02", "03", "04"],
    "NAME20": ["Żółć", None, "", "é"],
    "POP20": [1, 2, 3, 4],
    "HOUSING20": [1.0, None, 3.0, 4.0],
    "ALAND20": np.array([1, 2, 3, 2**40]),
}
ODD: dict[str, dict[str, Any]] = {
    "dates": {"when": pd.to_datetime(["2020-01-01", None, "2021-02-03", "2022-01-01"])},
    "booleans": {"flag": [True, False, True, False]},
    "single": {"half": np.array([0.1, 0.2, 0.3, 0.4], np.float32)},
}


def frame_of(columns: dict[str, Any]) -> gpd.GeoDataFrame:
    hole = shapely.box(0, 0, 3, 3) - shapely.box(1, 1, 2, 2)
    two = shapely.union_all([shapely.box(5, 0, 6, 1), shapely.box(7, 0, 8, 1)])
    shapes = [hole, two, None, shapely.box(9, 0, 10, 1)]
    return gpd.GeoDataFrame(columns, geometry=shapes, crs="EPSG:4269")


@pytest.mark.filterwarnings("ignore:Field when:RuntimeWarning")  # a shapefile has no times
@pytest.mark.parametrize("name", ["z.shp", "z.gpkg", "z.geojson"])
@pytest.mark.parametrize("kind", ["plain", *ODD])
def test_zones_are_what_pyogrio_reads_without_arrow(tmp_path: Path, name: str, kind: str) -> None:
    path = tmp_path / name
    frame_of(PLAIN | ODD.get(kind, {})).to_file(path)
    read, stat = read_zones(str(path))
    assert_geodataframe_equal(read, pyogrio.read_dataframe(path))
    assert len(read) == 4 and stat.size == path.stat().st_size


def test_arrow_is_taken_for_plain_fields_and_flat_polygons_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = pyogrio.read_dataframe
    ways: list[bool] = []

    def read(path: Path, **options: Any) -> Any:
        ways.append(bool(options.get("use_arrow")))
        return plain(path, **options)

    monkeypatch.setattr("zonal.io.table.vector.pyogrio.read_dataframe", read)
    high = frame_of(PLAIN).iloc[[3]]
    high = high.set_geometry(shapely.force_3d(high.geometry.to_numpy(), 5), crs=high.crs)
    frames = {"flat.shp": frame_of(PLAIN), "high.gpkg": high, "dates.gpkg": frame_of(PLAIN | ODD["dates"])}
    for name, frame in frames.items():
        frame.to_file(tmp_path / name)
        read_zones(str(tmp_path / name))
    assert ways == [True, False, False]


def test_what_arrow_cannot_read_is_read_the_other_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame_of(PLAIN).to_file(tmp_path / "z.gpkg")
    plain = pyogrio.read_dataframe

    def read(path: Path, **options: Any) -> Any:
        if options.get("use_arrow"):
            raise OSError("the stream ended")
        return plain(path, **options)

    monkeypatch.setattr("zonal.io.table.vector.pyogrio.read_dataframe", read)
    assert len(read_zones(str(tmp_path / "z.gpkg"))[0]) == 4
