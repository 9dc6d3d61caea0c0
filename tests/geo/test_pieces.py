"""Coordinate operations, edges that keep their course, and the cut at strips, equator and antimeridian."""

from __future__ import annotations

from typing import Any

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pyproj
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from shapely.affinity import translate
from synthetic import jittered_blocks

from zonal.errors import InputError
from zonal.geo.antimeridian import polygonal, unwrap
from zonal.geo.crs import CHORD, WGS84, metres_per_unit, operation, operation_name, reproject
from zonal.geo.pieces import Pieces, areas, one_crs_pieces, project_to_utm, utm_pieces

GEOD = pyproj.Geod(ellps="WGS84")

Array = npt.NDArray[Any]


def zones_of(*geometries: Any) -> Array:
    zones = np.empty(len(geometries), dtype=object)
    zones[:] = geometries
    return zones


def project(points: Array, source: str, target: str) -> Array:
    """Project points with pyproj alone."""
    transformer = pyproj.Transformer.from_crs(source, target, always_xy=True)
    return np.column_stack(transformer.transform(points[:, 0], points[:, 1]))


def course(polygon: Any, source: str, target: str, step: float) -> Array:
    """Sample the rings of a polygon finely and project the samples."""
    return project(shapely.get_coordinates(shapely.segmentize(polygon, step)), source, target)


def ground(polygon: Any) -> float:
    """Area on the ellipsoid of a polygon in degrees, m2; its edges are short."""
    return sum(
        abs(GEOD.polygon_area_perimeter(*shapely.get_coordinates(part.exterior).T)[0])
        - sum(
            abs(GEOD.polygon_area_perimeter(*shapely.get_coordinates(hole).T)[0]) for hole in part.interiors
        )
        for part in shapely.get_parts(polygon)
    )


# ------------------------------------------------------------------ operations


def test_the_operation_from_nad83_is_the_null_one() -> None:
    x, y = operation("EPSG:4269", WGS84).transform(-122.3, 47.6)
    assert (x, y) == pytest.approx((-122.3, 47.6), abs=1e-12)


@pytest.mark.parametrize(
    ("source", "target"),
    [("EPSG:4269", WGS84), ("EPSG:4267", WGS84), ("EPSG:27700", WGS84), (WGS84, "EPSG:32610")],
)
def test_operations_need_no_grid_file_and_are_chosen_alike_each_time(source: str, target: str) -> None:
    chosen = operation(source, target)
    assert "grids=" not in chosen.definition
    name = operation_name(source, target)
    operation.cache_clear()
    assert operation_name(source, target) == name
    assert operation(source, target).definition == chosen.definition


def test_an_operations_name_tells_its_definition() -> None:
    assert "proj=utm zone=10" in operation_name(WGS84, "EPSG:32610")


def test_crss_that_no_operation_joins_are_an_error() -> None:
    with pytest.raises(InputError, match="no coordinate operation without grid files leads from"):
        operation('LOCAL_CS["a site",UNIT["metre",1]]', WGS84)


def test_a_metre_is_a_metre_and_a_degree_is_one_on_the_equator() -> None:
    assert metres_per_unit("EPSG:32610") == 1
    assert metres_per_unit("EPSG:2263") == pytest.approx(0.3048006)  # US survey feet
    assert metres_per_unit(WGS84) == pytest.approx(111_319.49, abs=0.01)


# ------------------------------------------------------------------ edges


@pytest.mark.parametrize(
    ("source", "target", "polygon"),
    [
        (WGS84, "EPSG:32610", shapely.box(-125.9, 45, -120.1, 49)),
        (WGS84, "EPSG:32610", shapely.Polygon([(-126, 47), (-120, 47.001), (-123, 60)])),
        (WGS84, "EPSG:32760", shapely.box(174, -45, 180, -0.5)),
        ("EPSG:32610", WGS84, shapely.box(300_000, 5_000_000, 700_000, 5_100_000)),
        ("EPSG:4269", "EPSG:5070", shapely.box(-124, 45.5, -117, 49)),
        ("EPSG:32610", "EPSG:32611", shapely.box(600_000, 5_000_000, 760_000, 5_100_000)),
    ],
)
def test_long_edges_stay_within_ten_centimetres_of_their_course(
    source: str, target: str, polygon: Any
) -> None:
    ours = reproject(zones_of(polygon), source, target)[0]
    unit = metres_per_unit(target)
    fine = 200 / metres_per_unit(source)
    away = shapely.distance(ours.exterior, shapely.points(course(polygon.exterior, source, target, fine)))
    assert away.max() * unit < CHORD
    bare = shapely.Polygon(project(shapely.get_coordinates(polygon), source, target))
    away = shapely.distance(bare.exterior, shapely.points(course(polygon.exterior, source, target, fine)))
    assert away.max() * unit > CHORD, "the case is too easy: nothing needed to be added"


def test_an_edges_ends_stay_where_they_were() -> None:
    polygon = shapely.box(-125.9, 45, -120.1, 49)
    ours = shapely.get_coordinates(reproject(zones_of(polygon), WGS84, "EPSG:32610")[0])
    corners = project(shapely.get_coordinates(polygon), WGS84, "EPSG:32610")
    distance = np.linalg.norm(ours[None] - corners[:, None], axis=2).min(axis=1)
    assert distance.max() < 1e-9
    assert len(ours) > 100


def test_short_edges_are_left_alone_and_equal_geopandas() -> None:
    blocks = jittered_blocks((-122.35, 47.55, -122.25, 47.65), 40, 60)  # edges of 190 m
    ours = reproject(blocks.geometry.to_numpy(), "EPSG:4269", "EPSG:32610")
    theirs = blocks.to_crs("EPSG:32610").geometry.to_numpy()
    assert (shapely.get_num_coordinates(ours) == shapely.get_num_coordinates(theirs)).all()
    assert np.abs(shapely.get_coordinates(ours) - shapely.get_coordinates(theirs)).max() < 1e-8


def test_the_input_is_not_changed() -> None:
    polygons = zones_of(shapely.box(-125, 45, -121, 49))
    before = shapely.to_wkb(polygons[0])
    reproject(polygons, WGS84, "EPSG:32610")
    assert shapely.to_wkb(polygons[0]) == before


def test_holes_and_parts_are_kept_and_densified() -> None:
    holed = shapely.box(-125, 45, -122, 48) - shapely.box(-124.5, 45.5, -122.5, 47.5)
    two = shapely.MultiPolygon([holed, shapely.box(-121.9, 45, -121.8, 45.1)])
    ours = reproject(zones_of(two, holed, shapely.box(-122.3, 47, -122.299, 47.001)), WGS84, "EPSG:32610")
    assert shapely.is_valid(ours).all()
    assert shapely.get_num_geometries(ours).tolist() == [2, 1, 1]
    assert [len(part.interiors) for part in ours[0].geoms] == [1, 0]
    hole = ours[1].interiors[0]
    inner = course(holed.interiors[0], WGS84, "EPSG:32610", 0.002)
    assert shapely.distance(hole, shapely.points(inner)).max() < CHORD
    assert shapely.get_num_coordinates(ours[2]) == 5


def test_empty_polygons_stay_empty_beside_others() -> None:
    ours = reproject(
        zones_of(shapely.Polygon(), shapely.box(-125, 45, -121, 49), shapely.Polygon()), WGS84, "EPSG:32610"
    )
    assert shapely.is_empty(ours).tolist() == [True, False, True]
    assert len(reproject(zones_of(), WGS84, "EPSG:32610")) == 0


def test_what_a_projection_cannot_reach_is_an_empty_piece() -> None:
    far = shapely.box(-92, 5, -91, 6)  # the far side of a gnomonic map, which shows half of the earth
    near = shapely.box(85, 5, 86, 6)
    gnomonic = "+proj=gnom +lat_0=0 +lon_0=90 +type=crs"
    ours = reproject(zones_of(far, near), WGS84, gnomonic)
    assert shapely.is_empty(ours).tolist() == [True, False]
    pieces = one_crs_pieces(zones_of(far, near), WGS84, gnomonic)
    assert pieces.zone.tolist() == [1]


def edges_of(polygon: Any) -> Array:
    points = shapely.get_coordinates(polygon)
    return points[np.lexsort(points.T)]


def test_neighbours_get_the_same_vertices_on_their_common_edge() -> None:
    # The same edge, walked north by one zone and south by the other.
    west = shapely.Polygon([(-124, 45), (-123, 45.3), (-122.8, 48.6), (-124, 48)])
    east = shapely.Polygon([(-122.8, 48.6), (-123, 45.3), (-121, 45), (-121, 49)])
    ours = reproject(zones_of(west, east), WGS84, "EPSG:32610")
    line = shapely.LineString(project(np.array([(-123, 45.3), (-122.8, 48.6)]), WGS84, "EPSG:32610"))
    shared = []
    for polygon in ours:
        points = np.unique(shapely.get_coordinates(polygon), axis=0)
        # Vertices near the chord, which the edge itself leaves by up to some hundred metres.
        near = shapely.distance(shapely.points(points), line) < 3_000
        along = shapely.line_locate_point(line, shapely.points(points), normalized=True)
        shared.append(points[near & (along > 0.05) & (along < 0.95)])
    assert len(shared[0]) == len(shared[1]) > 50
    distance = np.linalg.norm(shared[0][:, None] - shared[1][None], axis=2).min(axis=1)
    assert distance.max() < 1e-8  # metres, at 5e6 m from the origin: a few units in the last place


def test_a_partition_stays_a_partition() -> None:
    blocks = jittered_blocks((-124, 45, -121, 49), 5, 6, seed=3).geometry.to_numpy()  # edges of 60 km
    ours = reproject(blocks, "EPSG:4269", "EPSG:32610")
    union = shapely.union_all(shapely.set_precision(ours, 1e-6))
    assert shapely.area(ours).sum() == pytest.approx(union.area, rel=1e-12)
    assert shapely.area(ours).sum() == pytest.approx(
        reproject(zones_of(shapely.union_all(blocks)), "EPSG:4269", "EPSG:32610")[0].area, rel=1e-6
    )
    rim = union.buffer(-1)
    assert shapely.get_num_interior_rings(union) == 0
    assert rim.area > 0.99 * union.area


# ------------------------------------------------------------------ the cut


@pytest.mark.parametrize(
    ("lon", "west", "east"), [(-120, 32610, 32611), (0, 32630, 32631), (6, 32631, 32632)]
)
def test_a_zone_across_a_strip_border_becomes_two_pieces(lon: float, west: int, east: int) -> None:
    zone = shapely.segmentize(shapely.box(lon - 0.02, 47, lon + 0.01, 47.02), 1e-3)
    pieces = utm_pieces(zones_of(zone))
    assert pieces.zone.tolist() == [0, 0]
    assert pieces.epsg.tolist() == [west, east]
    halves = (shapely.box(lon - 0.02, 47, lon, 47.02), shapely.box(lon, 47, lon + 0.01, 47.02))
    for epsg, half, piece in zip(pieces.epsg, halves, pieces.geometry, strict=True):
        points = course(half.exterior, WGS84, f"EPSG:{epsg}", 1e-4)
        # The cut runs 2.2 km along a meridian, which bends by 3 mm: no vertex is added.
        assert piece.area == pytest.approx(shapely.Polygon(points).area, rel=1e-5)
        assert piece.symmetric_difference(shapely.Polygon(points)).area < 1e-5 * piece.area


@pytest.mark.parametrize("lon", [-123, 3])
def test_a_zone_across_the_equator_becomes_two_pieces(lon: float) -> None:
    zone = shapely.box(lon, -0.01, lon + 0.01, 0.03)
    pieces = utm_pieces(zones_of(zone))
    number = int((lon + 180) // 6 + 1)
    assert pieces.epsg.tolist() == [32600 + number, 32700 + number]
    assert pieces.geometry[0].bounds[1] == pytest.approx(0, abs=1e-6)
    assert pieces.geometry[1].bounds[3] == pytest.approx(10_000_000, abs=1e-6)


def test_a_zone_over_four_corners_becomes_four_pieces() -> None:
    pieces = utm_pieces(zones_of(shapely.box(5.9, -0.1, 6.1, 0.1), shapely.box(4, 1, 4.1, 1.1)))
    assert pieces.zone.tolist() == [0, 0, 0, 0, 1]
    assert pieces.epsg.tolist() == [32631, 32632, 32731, 32732, 32631]


def test_a_zone_across_three_strips_has_a_piece_in_each() -> None:
    pieces = utm_pieces(zones_of(shapely.box(-121, 47, -113, 47.1)))
    assert pieces.epsg.tolist() == [32610, 32611, 32612]


@pytest.mark.parametrize(
    ("zone", "epsg"),
    [
        (shapely.box(-120.01, 47, -120, 47.01), 32610),
        (shapely.box(-120, 47, -119.99, 47.01), 32611),
        (shapely.box(-123, 0, -122.9, 0.1), 32610),
        (shapely.box(-123, -0.1, -122.9, 0), 32710),
        (shapely.box(-180, 1, -179.9, 1.1), 32601),
        (shapely.box(179.9, 1, 180, 1.1), 32660),
    ],
)
def test_a_zone_that_only_touches_a_border_is_one_piece(zone: Any, epsg: int) -> None:
    pieces = utm_pieces(zones_of(zone))
    assert pieces.epsg.tolist() == [epsg]


def test_a_zone_that_touches_a_border_from_both_sides_in_points_only_leaves_no_lines() -> None:
    # Two triangles that meet the border with their tips: nothing lies beyond it.
    tip = shapely.Polygon([(-120.1, 47), (-120, 47.05), (-120.1, 47.1)])
    pieces = utm_pieces(zones_of(tip, translate(tip, 0.2).reverse()))
    assert set(shapely.get_type_id(pieces.geometry)) <= {3, 6}
    assert pieces.epsg.tolist()[0] == 32610


@pytest.mark.parametrize("lat", [60, -17, -0.01])
@pytest.mark.parametrize("spelling", ["179 to 181", "179 to -179", "-181 to -179", "two parts"])
def test_both_spellings_of_the_antimeridian_give_the_same_pieces(spelling: str, lat: float) -> None:
    def box(west: float, east: float) -> Any:
        return shapely.Polygon([(west, lat), (east, lat), (east, lat + 0.02), (west, lat + 0.02)])

    zone = {
        "179 to 181": box(179.99, 180.02),
        "179 to -179": box(179.99, -179.98),
        "-181 to -179": box(-180.01, -179.98),
        "two parts": shapely.MultiPolygon([box(-180, -179.98), box(179.99, 180)]),
    }[spelling]
    pieces = utm_pieces(unwrap(zones_of(zone)))
    sides = [(60, 179.99, 180), (1, 180, 180.02)]
    expected = {}
    for number, west, east in sides:
        for base, south, north in ((32600, max(lat, 0), lat + 0.02), (32700, lat, min(lat + 0.02, 0))):
            if south < north:
                code = base + number
                points = course(shapely.box(west, south, east, north).exterior, WGS84, f"EPSG:{code}", 1e-3)
                expected[code] = shapely.Polygon(points)
    assert pieces.epsg.tolist() == sorted(expected)
    for epsg, piece in zip(pieces.epsg, pieces.geometry, strict=True):
        assert piece.symmetric_difference(expected[int(epsg)]).area < 1e-4 * piece.area


def test_unwrap_leaves_wide_zones_without_a_jump_alone() -> None:
    band = shapely.segmentize(shapely.box(-170, 10, 170, 11), 5)
    assert shapely.equals_exact(unwrap(zones_of(band))[0], band)
    near = zones_of(shapely.box(-122, 47, -121, 48))
    assert unwrap(near) is near


def test_empty_zones_have_no_piece() -> None:
    pieces = utm_pieces(zones_of(shapely.Polygon(), shapely.box(-122, 47, -121.9, 47.1), shapely.Polygon()))
    assert pieces.zone.tolist() == [1]
    assert len(utm_pieces(zones_of(shapely.Polygon()))) == 0
    assert len(utm_pieces(zones_of())) == 0


def test_a_raster_with_one_crs_leaves_zones_uncut() -> None:
    zones = zones_of(shapely.box(-121, 47, -113, 47.1), shapely.Polygon(), shapely.box(-100, -1, -99, 1))
    pieces = one_crs_pieces(zones, WGS84, WGS84)
    assert pieces.zone.tolist() == [0, 2]
    assert pieces.epsg.tolist() == [0, 0]
    assert pieces.geometry[1] is zones[2]


@given(
    st.floats(-200, 200),
    st.one_of(st.floats(-70, 70), st.floats(-0.2, 0.2)),
    st.floats(1e-4, 0.2),
    st.integers(0, 2**32 - 1),
)
def test_the_pieces_of_a_zone_cover_its_ground_once(lon: float, lat: float, size: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    angle = np.sort(rng.uniform(0, 2 * np.pi, 8))
    radius = size * rng.uniform(0.3, 1, 8)
    if rng.random() < 0.7:
        lon = round(lon / 6) * 6 + rng.uniform(-size, size) / 2
    star = shapely.Polygon(np.c_[lon + radius * np.cos(angle), lat + radius * np.sin(angle)])
    if not star.is_valid or star.area < 0.1 * size**2:
        return
    pieces = utm_pieces(zones_of(star))
    assert (np.diff(pieces.epsg) > 0).all(), "one piece for each UTM zone, in order"
    assert set(shapely.get_type_id(pieces.geometry)) <= {3, 6}
    assert shapely.is_valid(pieces.geometry).all()
    back = []
    for epsg, piece in zip(pieces.epsg, pieces.geometry, strict=True):
        fine = shapely.segmentize(piece, 50)
        degrees = shapely.transform(fine, lambda p, e=epsg: project(p, f"EPSG:{e}", WGS84))
        number = int(epsg) % 100
        points = shapely.get_coordinates(degrees)
        middle = number * 6 - 183
        turned = (points[:, 0] - middle + 180) % 360 - 180
        assert np.abs(turned).max() < 3 + 1e-5, "a piece stays in its strip"
        assert (points[:, 1] > -1e-6).all() if epsg < 32700 else (points[:, 1] < 1e-6).all()
        back.append(ground(degrees))
    step = 50 / 111_000
    assert sum(back) == pytest.approx(
        ground(shapely.segmentize(star, step)), rel=1e-3 if size < 1e-3 else 1e-4
    )


def test_pieces_can_be_taken_by_mask_and_by_index() -> None:
    boxes = np.array(shapely.box([0, 1, 2], 0, [1, 2, 3], 1), dtype=object)
    pieces = Pieces(np.arange(3), np.array([7, 8, 9], np.int32), boxes)
    assert pieces.take(np.array([True, False, True])).epsg.tolist() == [7, 9]
    assert pieces.take(np.array([2, 0])).zone.tolist() == [2, 0]
    assert len(pieces.take(np.zeros(3, bool))) == 0


def test_pieces_in_degrees_go_to_the_utm_zone_that_each_names() -> None:
    box = shapely.box(-120.01, 47, -119.99, 47.01)
    given_ = Pieces(np.array([4, 4]), np.array([32610, 32611], np.int32), zones_of(box, box))
    there = project_to_utm(given_)
    for epsg, geometry in zip(there.epsg, there.geometry, strict=True):
        expected = gpd.GeoSeries([box], crs=WGS84).to_crs(int(epsg))[0]
        # The edges of 1.5 km bend by 4 cm, which is within the chord: no vertex is added.
        np.testing.assert_allclose(edges_of(geometry), edges_of(expected), rtol=0, atol=1e-8)


def test_the_polygons_of_anything_are_one_polygon() -> None:
    one, two = shapely.box(0, 0, 1, 1), shapely.box(5, 5, 6, 7)
    line = shapely.LineString([(0, 0), (9, 9)])
    assert polygonal(shapely.GeometryCollection([one, line, shapely.Point(3, 3)])).equals(one)
    assert polygonal(shapely.GeometryCollection([one, shapely.MultiPolygon([two])])).area == 3
    assert polygonal(shapely.GeometryCollection([one, one])).area == 1
    assert polygonal(line).is_empty
    assert polygonal(shapely.GeometryCollection()).geom_type == "Polygon"


def test_what_an_overlay_leaves_is_mended_to_valid_polygons() -> None:
    square, line = shapely.box(0, 0, 1, 1), shapely.LineString([(0, 0), (9, 9)])
    bowtie = shapely.Polygon([(0, 0), (2, 2), (2, 0), (0, 2)])
    found = areas(zones_of(square, shapely.GeometryCollection([square, line]), bowtie, line))
    assert found[0] is square
    assert found[1].equals(square)
    assert found[2].area == 2
    assert found[3].is_empty
    assert set(shapely.get_type_id(found)) <= {3, 6}


# ------------------------------------------------------------------ many at once


def test_many_polygons_are_projected_as_few_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """In slices and threads, with long edges, holes, empty ones and ones out of reach among them."""
    west, south = (v.ravel() for v in np.meshgrid(np.linspace(-123, -120, 70), np.linspace(40, 48, 50)))
    many = shapely.box(west, south, west + 0.01, south + 0.01)
    many[::50] = shapely.box(west[::50], south[::50], west[::50] + 1, south[::50] + 0.3)
    many[7::90] = shapely.difference(many[7::90], shapely.buffer(shapely.centroid(many[7::90]), 0.001))
    many[11::500] = shapely.Polygon()
    few = [reproject(some, "EPSG:4326", "EPSG:32610") for some in np.array_split(many, 60)]
    monkeypatch.setattr("zonal.geo.crs.THREADS", 3)
    assert shapely.equals_identical(reproject(many, "EPSG:4326", "EPSG:32610"), np.concatenate(few)).all()


@pytest.mark.parametrize(
    ("source", "target"),
    [("EPSG:4326", "EPSG:32610"), ("EPSG:4269", "EPSG:5070"), ("EPSG:26910", "EPSG:4326")],
)
def test_threads_use_the_operation_that_was_chosen(source: str, target: str) -> None:
    west, south = (v.ravel() for v in np.meshgrid(np.linspace(-123, -120, 40), np.linspace(40, 48, 40)))
    if source == "EPSG:26910":
        west, south = west * 1e4 + 1.8e6, south * 1e5
    square = shapely.box(west, south, west + 1e-4, south + 1e-4)
    x, y = operation(source, target).transform(*shapely.get_coordinates(square).T)
    assert np.array_equal(shapely.get_coordinates(reproject(square, source, target)), np.c_[x, y])


def test_an_operation_that_does_nothing_costs_nothing() -> None:
    square = np.array([shapely.box(-90, 40, -89, 41)])
    assert reproject(square, "EPSG:4269", "EPSG:4326") is square
    assert operation("EPSG:4269", "EPSG:4326").transform(-89.123456789, 41.1) == (-89.123456789, 41.1)
