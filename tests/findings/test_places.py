"""Where rows are: polygons, points and the best UTM zone, against geopandas."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely

from zonal.errors import InputError
from zonal.findings.places import Geometry, best_utm, project, read_points
from zonal.io.table.finished import FinishedTable, load_table

SHAPES = [
    shapely.box(-122.5, 47.5, -122.4, 47.6),
    shapely.MultiPolygon([shapely.box(-121.5, 47.5, -121.4, 47.6), shapely.box(-121.2, 47.7, -121, 48)]),
    shapely.box(-123, 46, -122, 46.5),
]


def table_of(folder: Path, shapes: list[Any], crs: Any = 4269, **columns: Any) -> FinishedTable:
    gpd.GeoDataFrame(columns, geometry=shapes, crs=crs).to_parquet(folder / "table.parquet")
    return load_table(str(folder / "table.parquet"))


def with_geo(folder: Path, **column: Any) -> FinishedTable:
    """A table whose metadata say this of its geometry."""
    about = {"encoding": "WKB", "geometry_types": ["Polygon"], **column}
    geo = {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": about}}
    table = pa.table({"geometry": [shapely.box(0, 0, 1, 1).wkb]}).replace_schema_metadata(
        {"geo": json.dumps(geo)}
    )
    pq.write_table(table, folder / "table.parquet")
    return load_table(str(folder / "table.parquet"))


def test_polygons_come_back_with_the_columns_asked_for(tmp_path: Path) -> None:
    table = table_of(tmp_path, SHAPES, name=["a", "b", "c"])
    geometry = Geometry.of(table)
    assert geometry == Geometry("geometry", "EPSG:4269")
    ((polygons, batch),) = geometry.polygons(table, ["name"])
    assert all(one.equals(other) for one, other in zip(polygons, SHAPES, strict=True))
    assert batch.to_pydict() == {"name": ["a", "b", "c"]}


def test_what_is_no_polygon_is_empty(tmp_path: Path) -> None:
    table = table_of(tmp_path, [SHAPES[0], None, shapely.Point(1, 2), shapely.LineString([(0, 0), (1, 1)])])
    ((polygons, _),) = Geometry.of(table).polygons(table)
    assert shapely.is_empty(polygons).tolist() == [False, True, True, True]


def test_a_crs_that_is_not_named_is_longitude_and_latitude(tmp_path: Path) -> None:
    assert Geometry.of(with_geo(tmp_path)).crs == "OGC:CRS84"


@pytest.mark.parametrize(
    ("column", "said"),
    [
        ({"crs": None}, "table.parquet: its geometry has no CRS"),
        ({"encoding": "point"}, "table.parquet: geometry is encoded as point; only WKB"),
        ({"crs": {"type": "nonsense"}}, "table.parquet: its CRS cannot be read"),
    ],
)
def test_a_geometry_that_cannot_be_read_is_an_error(
    tmp_path: Path, column: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        Geometry.of(with_geo(tmp_path, **column))


def test_a_table_without_geometry_says_so(tmp_path: Path) -> None:
    pq.write_table(pa.table({"A00_mean": [1.0]}), tmp_path / "plain.parquet")
    table = load_table(str(tmp_path / "plain.parquet"))
    assert Geometry.find(table) is None and read_points(table) is None
    with pytest.raises(InputError, match=r"plain.parquet has no geometry .*nothing to draw"):
        Geometry.of(table)


def test_bytes_that_are_no_geometry_are_an_error(tmp_path: Path) -> None:
    geo = {"primary_column": "g", "columns": {"g": {"encoding": "WKB"}}}
    plain = pa.table({"g": [b"nonsense"]}).replace_schema_metadata({"geo": json.dumps(geo)})
    pq.write_table(plain, tmp_path / "odd.parquet")
    table = load_table(str(tmp_path / "odd.parquet"))
    with pytest.raises(InputError, match=r"odd.parquet: g holds what is no WKB"):
        list(Geometry.of(table).polygons(table))
    with pytest.raises(InputError, match=r"odd.parquet: g holds what is no WKB"):
        read_points(table)


def test_polygons_are_projected_as_geopandas_does(tmp_path: Path) -> None:
    small = [shapely.box(x, 47.5, x + 0.002, 47.501) for x in (-122.5, -122.4, -121.9)]
    found = project(np.array(small, object), "EPSG:4269", "EPSG:32610")
    expected = gpd.GeoSeries(small, crs=4269).to_crs(32610)
    corners = [shapely.get_coordinates(shapes) for shapes in (found, expected.array)]
    np.testing.assert_allclose(*corners, atol=1e-6)


def test_a_polygon_across_the_antimeridian_stays_in_one_piece() -> None:
    across = shapely.Polygon([(179.9, 52), (-179.9, 52), (-179.9, 52.1), (179.9, 52.1)])
    (found,) = project(np.array([across], object), "EPSG:4269", "EPSG:32601")
    west, _, east, _ = found.bounds
    assert 10_000 < east - west < 20_000


def test_a_polygon_out_of_reach_is_empty() -> None:
    boxes = np.array([shapely.box(-122, -50, -121, -49), shapely.box(-122, 47, -121, 48)], object)
    north_pole_gnomonic = "ESRI:102034"
    assert shapely.is_empty(project(boxes, "EPSG:4326", north_pole_gnomonic)).tolist() == [True, False]


@pytest.mark.parametrize("crs", [4326, 4269, 3857, 32610])
def test_a_rows_point_is_the_middle_of_its_box(tmp_path: Path, crs: int) -> None:
    shapes = gpd.GeoSeries(SHAPES, crs=4269).to_crs(crs)
    found = read_points(table_of(tmp_path, list(shapes), crs))
    boxes = shapes.bounds.to_numpy()
    middles = gpd.GeoSeries(shapely.points((boxes[:, :2] + boxes[:, 2:]) / 2), crs=crs).to_crs(4326)
    assert found is not None
    np.testing.assert_allclose(found, np.column_stack([middles.x, middles.y]), atol=1e-6)


def test_a_row_without_a_polygon_has_no_point(tmp_path: Path) -> None:
    found = read_points(table_of(tmp_path, [None, SHAPES[0], shapely.Polygon()]))
    assert found is not None
    assert np.isnan(found).all(axis=1).tolist() == [True, False, True]


def test_a_polygon_across_the_antimeridian_has_its_point_there(tmp_path: Path) -> None:
    parts = [shapely.box(179, 52, 180, 53), shapely.box(-180, 52, -179, 53)]
    found = read_points(table_of(tmp_path, [shapely.MultiPolygon(parts)]))
    assert found is not None and abs(found[0, 0]) > 179 and found[0, 1] == 52.5


def test_points_come_from_columns_where_there_is_no_geometry(tmp_path: Path) -> None:
    pd.DataFrame({"lon": [1.5, None], "lat": [2.5, 3.0]}).to_csv(tmp_path / "points.csv", index=False)
    found = read_points(load_table(str(tmp_path / "points.csv")))
    assert found is not None
    np.testing.assert_array_equal(found, [[1.5, 2.5], [np.nan, 3.0]])
    census = pa.table({"INTPTLON20": ["-122.5000000"], "INTPTLAT20": ["+47.5000000"]})
    pq.write_table(census, tmp_path / "census.parquet")
    found = read_points(load_table(str(tmp_path / "census.parquet")))
    assert found is not None and found.tolist() == [[-122.5, 47.5]]


def test_columns_of_places_that_are_no_numbers_are_an_error(tmp_path: Path) -> None:
    pq.write_table(pa.table({"lon": ["here"], "lat": ["there"]}), tmp_path / "words.parquet")
    with pytest.raises(InputError, match=r"words.parquet: lon holds what is no number of degrees"):
        read_points(load_table(str(tmp_path / "words.parquet")))


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        ([[-122, 47], [-121, 48], [-119, 47]], "EPSG:32610"),
        ([[-122, 47], [-119, 47]], "EPSG:32610"),  # as many in each: the western
        ([[151, -33], [150.5, -34], [np.nan, np.nan]], "EPSG:32756"),
        ([[180, 1], [-180, 1], [-179, 1]], "EPSG:32601"),
        ([[0, 51]], "EPSG:32631"),
    ],
)
def test_the_best_utm_zone_holds_most_points(points: list[list[float]], expected: str) -> None:
    assert best_utm(np.array(points)) == expected


def test_the_best_utm_zone_of_one_place_is_that_of_geopandas() -> None:
    rng = np.random.default_rng(0)
    for x, y in np.column_stack([rng.uniform(-179, 179, 20), rng.uniform(-55, 55, 20)]):
        found = best_utm(np.array([[x, y]]))
        assert found == f"EPSG:{gpd.GeoSeries([shapely.Point(x, y)], crs=4326).estimate_utm_crs().to_epsg()}"


def test_no_place_at_all_is_an_error() -> None:
    with pytest.raises(InputError, match="no row has a place on Earth"):
        best_utm(np.full((3, 2), np.nan))
