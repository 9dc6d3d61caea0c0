"""Zones are checked, filtered by reason, repaired and sorted, and nothing vanishes silently."""

from __future__ import annotations

from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
from synthetic import jittered_blocks

from zonal.errors import InputError
from zonal.planning.zones import (
    Filters,
    ZoneColumns,
    check,
    hashes_of,
    in_space,
    repair,
    select,
    whole_numbers,
)

CENSUS = ZoneColumns("GEOID20", "ALAND20", "STATEFP20", "COUNTYFP20")
BOWTIE = shapely.Polygon([(0, 0), (2, 2), (2, 0), (0, 2)])


def frame_of(*geometries: Any, crs: Any = "EPSG:4269", ids: Any = None, **columns: Any) -> gpd.GeoDataFrame:
    zones = np.empty(len(geometries), dtype=object)
    zones[:] = geometries
    ids = [f"z{n}" for n in range(len(zones))] if ids is None else ids
    return gpd.GeoDataFrame({"id": ids, **columns}, geometry=zones, crs=crs)


def boxes(count: int) -> list[Any]:
    return [shapely.box(n, 0, n + 0.9, 1) for n in range(count)]


# ------------------------------------------------------------------ checks


def test_good_zones_pass_the_check() -> None:
    holed = shapely.box(0, 0, 9, 9) - shapely.box(1, 1, 2, 2)
    collection = shapely.GeometryCollection([holed, shapely.Point(0, 0)])
    check(frame_of(holed, None, shapely.Polygon(), collection, BOWTIE), ZoneColumns("id"), "zones.gpkg")


@pytest.mark.parametrize(
    ("frame", "sentence"),
    [
        (
            frame_of(*boxes(2), crs=None),
            "zones.gpkg: the zones have no CRS; set one in the file (e.g. with ogr2ogr -a_srs)",
        ),
        (
            frame_of(*boxes(2)).rename(columns={"id": "name"}),
            "zones.gpkg: no column 'id' for the zone id; it has name, geometry",
        ),
        (frame_of(*boxes(3), ids=["a", None, None]), "zones.gpkg: 2 zones have no id"),
        (frame_of(*boxes(2), ids=[1.0, float("nan")]), "zones.gpkg: 1 zones have no id"),
        (
            frame_of(*boxes(4), ids=["a", "b", "b", "b"]),
            "zones.gpkg: 2 ids in id occur more than once, e.g. 'b'",
        ),
        (
            frame_of(shapely.box(0, 0, 1, 1), shapely.Point(0, 0), shapely.LineString([(0, 0), (1, 1)])),
            "zones.gpkg: 2 zones are not polygons (the first is a Point)",
        ),
        (
            frame_of(*boxes(2)).assign(middle=gpd.GeoSeries.from_xy([0, 1], [0, 1], crs="EPSG:4269")),
            "zones.gpkg: column 'middle' holds geometries too, beside 'geometry'; "
            "zones have one geometry: drop the other column",
        ),
        (
            frame_of(*boxes(2), name=["a", "b"], note=["c", "d"]).rename(columns={"note": "name"}),
            "zones.gpkg: two columns are named 'name'; rename one",
        ),
    ],
)
def test_unusable_zones_are_one_sentence(frame: gpd.GeoDataFrame, sentence: str) -> None:
    with pytest.raises(InputError) as caught:
        check(frame, ZoneColumns("id"), "zones.gpkg")
    assert str(caught.value) == sentence


# ------------------------------------------------------------------ filters


def census(count: int, **columns: Any) -> gpd.GeoDataFrame:
    return frame_of(*boxes(count), **columns).rename(columns={"id": "GEOID20"})


def test_without_land_areas_no_zone_is_dropped() -> None:
    frame = frame_of(*boxes(3))
    kept, dropped = select(frame, Filters(), ZoneColumns("id"), "z")
    assert len(kept) == 3
    assert dropped == {}
    kept, dropped = select(frame, Filters(), ZoneColumns("id", "ALAND20"), "z")
    assert len(kept) == 3


def test_all_water_zones_are_dropped_and_counted_unless_kept() -> None:
    frame = census(4, ALAND20=[0, 10, 0, 5])
    kept, dropped = select(frame, Filters(), CENSUS, "z")
    assert kept["GEOID20"].tolist() == ["z1", "z3"]
    assert dropped == {"all water": 2}
    kept, dropped = select(frame, Filters(keep_water=True), CENSUS, "z")
    assert len(kept) == 4
    assert dropped == {}


def test_zones_over_the_size_limit_are_dropped_and_counted() -> None:
    frame = census(5, ALAND20=[25_000_000, 25_000_001, 0, 99_000_000, 1])
    kept, dropped = select(frame, Filters(max_land_km2=25), CENSUS, "z")
    assert kept["GEOID20"].tolist() == ["z0", "z4"]
    assert dropped == {"all water": 1, "over 25 km2": 2}


def test_a_null_land_area_is_neither_water_nor_too_large() -> None:
    frame = census(3, ALAND20=[None, 0.0, 5e9])
    kept, dropped = select(frame, Filters(max_land_km2=25), CENSUS, "z")
    assert kept["GEOID20"].tolist() == ["z0"]
    assert dropped == {"all water": 1, "over 25 km2": 1}


@pytest.mark.parametrize(
    "areas",
    [
        pd.array([None, 0, 5_000_000_000, 7], dtype="Int64"),
        ["unknown", "0", "5000000000", "7"],
        pd.array([None, "0", "5e9", "7.0"], dtype="string"),
    ],
)
def test_land_areas_may_be_nullable_or_text(areas: Any) -> None:
    kept, dropped = select(census(4, ALAND20=areas), Filters(max_land_km2=25), CENSUS, "z")
    assert kept["GEOID20"].tolist() == ["z0", "z3"]
    assert dropped == {"all water": 1, "over 25 km2": 1}


@pytest.mark.parametrize("dtype", ["int64", "Int64", "float64"])
def test_counties_match_codes_that_a_file_holds_as_numbers(dtype: str) -> None:
    codes = {"STATEFP20": pd.Series([6, 6, 53, 6]), "COUNTYFP20": pd.Series([33, 5, 33, 1])}
    frame = census(4, **{name: values.astype(dtype) for name, values in codes.items()})
    if dtype != "int64":
        frame.loc[3, "COUNTYFP20"] = None
    assert select(frame, Filters(county=("033",)), CENSUS, "z")[0]["GEOID20"].tolist() == ["z0", "z2"]
    assert select(frame, Filters(county=("06033", "005")), CENSUS, "z")[0]["GEOID20"].tolist() == ["z0", "z1"]


def test_a_size_limit_without_land_areas_is_an_error() -> None:
    with pytest.raises(InputError, match=r"z\.gpkg: max_land_km2 needs a column of land area"):
        select(frame_of(*boxes(1)), Filters(max_land_km2=25), ZoneColumns("id"), "z.gpkg")


@pytest.mark.parametrize(
    ("codes", "kept"),
    [
        (("033",), ["z0", "z2"]),
        (("53033",), ["z0"]),
        (("033", "41051"), ["z0", "z2", "z3"]),
        (("53033", "41051"), ["z0", "z3"]),
        (("999",), []),
    ],
)
def test_counties_are_named_by_three_or_five_digits(codes: tuple[str, ...], kept: list[str]) -> None:
    frame = census(
        4,
        STATEFP20=["53", "53", "41", "41"],
        COUNTYFP20=["033", "061", "033", "051"],
        ALAND20=[1, 1, 1, 1],
    )
    found, dropped = select(frame, Filters(county=codes), CENSUS, "z")
    assert found["GEOID20"].tolist() == kept
    assert dropped == {"outside the counties": 4 - len(kept), "all water": 0}


def test_counties_need_their_columns() -> None:
    with pytest.raises(InputError, match="z: no column of county codes, which --county needs"):
        select(frame_of(*boxes(1)), Filters(county=("033",)), ZoneColumns("id"), "z")
    frame = census(1, COUNTYFP20=["033"])
    assert len(select(frame, Filters(county=("033",)), CENSUS, "z")[0]) == 1
    with pytest.raises(InputError, match="z: no column of state codes, which a 5-digit --county needs"):
        select(frame, Filters(county=("53033",)), CENSUS, "z")


def test_a_zone_is_counted_under_the_first_reason_that_drops_it() -> None:
    frame = census(
        5,
        STATEFP20=["53"] * 5,
        COUNTYFP20=["001", "033", "033", "033", "033"],
        ALAND20=[0, 0, 0, 90_000_000, 1],
    )
    filters = Filters(bbox=(1.5, 0, 9, 1), county=("033",), max_land_km2=25)
    kept, dropped = select(frame, filters, CENSUS, "z")
    assert kept["GEOID20"].tolist() == ["z4"]
    assert dropped == {"outside the counties": 1, "outside the bbox": 0, "all water": 2, "over 25 km2": 1}
    assert len(kept) + sum(dropped.values()) == len(frame)


@pytest.mark.parametrize("crs", ["EPSG:4269", "EPSG:32610", "EPSG:5070", "EPSG:2285"])
def test_a_bbox_in_degrees_keeps_the_same_zones_in_any_crs(crs: str) -> None:
    blocks = jittered_blocks((-122.6, 47.4, -122.0, 47.8), 12, 12)
    box = (-122.44, 47.49, -122.07, 47.73)
    expected = blocks.GEOID20[blocks.intersects(shapely.box(*box))]
    kept, dropped = select(blocks.to_crs(crs), Filters(bbox=box, keep_water=True), CENSUS, "z")
    assert set(kept.GEOID20) == set(expected)
    assert dropped == {"outside the bbox": len(blocks) - len(expected)}
    assert 20 < len(kept) < len(blocks)


def test_a_bbox_keeps_its_curved_sides_in_a_projected_crs() -> None:
    # 6 degrees of the parallel 49 N bulge by 4 km in UTM: a zone 1 km south of its middle is inside.
    zone = shapely.box(-123.01, 48.98, -122.99, 48.991)
    other = shapely.box(-123.01, 49.005, -122.99, 49.01)
    frame = frame_of(zone, other).to_crs("EPSG:32610")
    kept, _ = select(frame, Filters(bbox=(-126, 48, -120, 49)), ZoneColumns("id"), "z")
    assert kept["id"].tolist() == ["z0"]


@pytest.mark.parametrize(
    ("bbox", "kept"),
    [
        ((-179.95, 0, -179.8, 1), ["z0", "z1"]),
        ((179.8, 0, 179.95, 1), ["z0", "z1"]),
        ((-10, 0, 10, 1), []),  # between them on paper
    ],
)
def test_a_zone_across_the_antimeridian_is_where_it_is_however_it_is_spelt(
    bbox: tuple[float, float, float, float], kept: list[str]
) -> None:
    jump = shapely.Polygon([(179.9, 0), (-179.9, 0), (-179.9, 1), (179.9, 1)])
    frame = frame_of(jump, shapely.box(179.9, 0, 180.1, 1), crs="EPSG:4326")
    assert select(frame, Filters(bbox=bbox), ZoneColumns("id"), "z")[0]["id"].tolist() == kept


def test_an_empty_zone_is_outside_any_bbox() -> None:
    frame = frame_of(shapely.Polygon(), None, shapely.box(0, 0, 1, 1))
    kept, dropped = select(frame, Filters(bbox=(-5, -5, 5, 5)), ZoneColumns("id"), "z")
    assert kept["id"].tolist() == ["z2"]
    assert dropped == {"outside the bbox": 2}


# ------------------------------------------------------------------ repair


def test_valid_polygons_come_back_as_they_are() -> None:
    polygons = [*boxes(2), shapely.box(0, 0, 9, 9) - shapely.box(1, 1, 2, 2)]
    mended, counts = repair(frame_of(*polygons), "z")
    assert counts == {"repaired": 0, "empty": 0}
    assert [g.wkb for g in mended.geometry] == [g.wkb for g in polygons]


def test_invalid_polygons_are_repaired_and_counted() -> None:
    spike = shapely.Polygon([(0, 0), (4, 0), (4, 4), (4, 9), (4, 4), (0, 4)])
    twice = shapely.MultiPolygon([shapely.box(0, 0, 2, 2), shapely.box(1, 0, 3, 2)])
    mended, counts = repair(frame_of(BOWTIE, spike, twice, shapely.box(0, 0, 1, 1)), "z")
    assert counts == {"repaired": 3, "empty": 0}
    assert shapely.is_valid(mended.geometry).all()
    assert set(mended.geom_type) <= {"Polygon", "MultiPolygon"}
    assert mended.geometry[0].area == 2.0
    assert mended.geometry[1].area == 16.0
    assert mended.geometry[2].bounds == (0, 0, 3, 2)


def test_of_a_collection_the_polygons_are_kept() -> None:
    collection = shapely.GeometryCollection([shapely.box(0, 0, 1, 1), shapely.LineString([(5, 5), (6, 6)])])
    mended, counts = repair(frame_of(collection), "z")
    assert mended.geometry[0].equals(shapely.box(0, 0, 1, 1))
    assert counts == {"repaired": 1, "empty": 0}


def test_zones_without_ground_keep_their_row_and_are_counted_empty() -> None:
    line = shapely.GeometryCollection([shapely.LineString([(0, 0), (1, 1)])])
    flat = shapely.Polygon([(0, 0), (1, 1), (2, 2), (0, 0)])
    frame = frame_of(None, shapely.Polygon(), line, flat, shapely.MultiPolygon(), shapely.box(0, 0, 1, 1))
    mended, counts = repair(frame, "z")
    assert counts == {"repaired": 0, "empty": 5}
    assert mended["id"].tolist() == frame["id"].tolist()
    assert mended.geometry.is_empty.tolist() == [True] * 5 + [False]
    assert not shapely.is_missing(mended.geometry.to_numpy()).any()


def test_heights_are_dropped_without_being_called_a_repair() -> None:
    high = shapely.Polygon([(0, 0, 7), (1, 0, 8), (1, 1, 9)])
    mended, counts = repair(frame_of(high, shapely.force_3d(BOWTIE)), "z")
    assert counts == {"repaired": 1, "empty": 0}
    assert not shapely.has_z(mended.geometry).any()
    assert mended.geometry[0].area == 0.5


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # of shapely, building it
@pytest.mark.parametrize(
    ("value", "vertices"), [(np.nan, slice(1, 2)), (np.inf, slice(1, 2)), (np.inf, slice(None))]
)
def test_coordinates_that_are_no_numbers_are_an_error(value: float, vertices: slice) -> None:
    points = np.array([(0, 0), (1, 0), (1, 1), (0, 0)], float)
    points[vertices] = value
    broken = shapely.Polygon(shapely.linearrings(points))
    with pytest.raises(InputError, match="z: 1 zones have coordinates that are not finite numbers"):
        repair(frame_of(shapely.box(0, 0, 1, 1), broken), "z")


def test_repair_keeps_attributes_index_and_crs() -> None:
    frame = frame_of(*boxes(3), BOWTIE, crs="EPSG:5070", POP20=[1, 2, 3, 4]).iloc[[3, 1]]
    mended, _ = repair(frame, "z")
    assert mended.index.tolist() == [3, 1]
    assert mended["POP20"].tolist() == [4, 2]
    assert mended.crs == frame.crs


def test_a_polygon_across_the_antimeridian_is_not_broken_by_its_spelling() -> None:
    """Valid on the ground; with longitudes of both signs its edges seem to cross each other."""
    whole = shapely.Polygon([(179, 0), (181, 0), (179.5, 0.5), (181, 1), (179, 1)])
    spelt = shapely.transform(
        whole, lambda p: np.c_[np.where(p[:, 0] > 180, p[:, 0] - 360, p[:, 0]), p[:, 1]]
    )
    assert not spelt.is_valid
    mended, _ = repair(frame_of(spelt), "z")
    assert mended.geometry[0].area == pytest.approx(whole.area)


# ------------------------------------------------------------------ order


def test_the_order_in_space_does_not_depend_on_the_order_of_the_file() -> None:
    blocks = jittered_blocks((-122.6, 47.4, -122.0, 47.8), 9, 7)
    expected = in_space(blocks, "GEOID20").GEOID20.tolist()
    for seed in range(3):
        shuffled = blocks.sample(frac=1, random_state=seed)
        assert in_space(shuffled, "GEOID20").GEOID20.tolist() == expected


def test_zones_in_order_lie_side_by_side() -> None:
    blocks = jittered_blocks((0, 0, 1, 1), 32, 32)
    ordered = in_space(blocks.sample(frac=1, random_state=0), "GEOID20")
    points = shapely.get_coordinates(shapely.centroid(ordered.geometry.to_numpy()))
    steps = np.linalg.norm(np.diff(points, axis=0), axis=1)
    assert np.median(steps) < 1.5 / 32
    for run in np.array_split(points, 16):  # a part covers little ground, not a strip of it
        assert np.ptp(run, axis=0).max() < 0.4


def test_zones_of_one_place_are_ordered_by_id() -> None:
    one = shapely.box(0, 0, 1, 1)
    frame = frame_of(one, one, one, ids=["b", "c", "a"])
    assert in_space(frame, "id")["id"].tolist() == ["a", "b", "c"]


@pytest.mark.parametrize("seed", range(3))
def test_the_order_is_that_of_geopandas_then_of_ids(seed: int) -> None:
    rng = np.random.default_rng(seed)
    low = rng.integers(0, 40, (400, 2)) ** 2 / 100
    low[::3] = low[1::3][0]  # many of one place
    shapes = shapely.box(*low.T, *(low + rng.choice([0.1, 3], (400, 1))).T)
    frame = frame_of(*shapes, ids=[f"{i:03d}" for i in rng.permutation(400)])
    bounds = shapely.bounds(shapes)
    centres = gpd.GeoSeries(shapely.points((bounds[:, :2] + bounds[:, 2:]) / 2))
    distance = centres.hilbert_distance(total_bounds=tuple(shapely.total_bounds(shapes))).to_numpy()
    expected = frame.assign(distance=distance).sort_values(["distance", "id"])["id"].tolist()
    assert in_space(frame, "id")["id"].tolist() == expected


def test_empty_zones_come_last_and_are_all_kept() -> None:
    frame = frame_of(shapely.Polygon(), *boxes(3), shapely.Polygon(), ids=["y", "a", "b", "c", "x"])
    ordered = in_space(frame, "id")
    assert ordered["id"].tolist()[3:] == ["x", "y"]
    assert sorted(ordered["id"]) == ["a", "b", "c", "x", "y"]
    assert ordered.index.tolist() == [0, 1, 2, 3, 4]


def test_nothing_but_empty_zones_can_be_ordered() -> None:
    frame = frame_of(shapely.Polygon(), shapely.Polygon(), ids=["b", "a"])
    assert in_space(frame, "id")["id"].tolist() == ["a", "b"]
    assert len(in_space(frame.iloc[:0], "id")) == 0


def test_counts_with_nulls_are_whole_numbers_whatever_the_file_made_of_them() -> None:
    frame = gpd.GeoDataFrame(
        {"POP20": [1.0, None], "HOUSING20": [None, None], "share": [0.5, 1.0], "name": ["a", "b"]},
        geometry=[shapely.box(0, 0, 1, 1)] * 2,
        crs="EPSG:4269",
    ).astype({"HOUSING20": float})
    typed = whole_numbers(frame, ["POP20", "HOUSING20", "share", "name", "absent"])
    assert [str(typed[c].dtype) for c in ("POP20", "HOUSING20", "share")] == ["Int64", "Int64", "float64"]
    assert typed["POP20"].tolist()[0] == 1 and typed["POP20"].isna().tolist() == [False, True]


# ------------------------------------------------------------------ ids


def test_equal_ids_have_equal_hashes_whatever_type_their_files_give_them() -> None:
    whole = hashes_of(pd.Series([1, 2, 3]))
    for kind in ("int32", "float64", "Int64"):
        assert hashes_of(pd.Series([1, 2, 3]).astype(kind)).tolist() == whole.tolist()
    text = ["530330001", "530330002", "x"]
    kinds = [pd.Series(text), pd.Series(text, dtype=object), pd.Series(text).astype("category").astype(str)]
    assert len({tuple(hashes_of(ids).tolist()) for ids in kinds}) == 1
    assert len({*whole.tolist(), *hashes_of(kinds[0]).tolist()}) == 6
