"""Coverage against exactextract, against shapely's own areas, and against what can be said in words."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import shapely
from hypothesis import assume, given
from hypothesis import strategies as st
from rasterio.features import rasterize
from rasterio.transform import Affine
from scipy.spatial import Delaunay

from zonal.geo.grid import Grid
from zonal.stats.coverage import Coverage, cover

NORTH_UP, SOUTH_UP = -1, 1
WIDTH, HEIGHT = 14, 11


def grid_of(
    up: int = SOUTH_UP,
    width: int = WIDTH,
    height: int = HEIGHT,
    size: float = 1.0,
    at: tuple[float, float] = (0, 0),
) -> Grid:
    """Make a grid whose south-western corner is `at`, whichever way its rows run."""
    y0 = at[1] if up == SOUTH_UP else at[1] + height * size
    return Grid("EPSG:32616", at[0], y0, size, up * size, width, height, width, height)


def zones_of(*geometries: Any) -> npt.NDArray[Any]:
    zones = np.empty(len(geometries), dtype=object)
    zones[:] = geometries
    return zones


def weights_of(coverage: Coverage, grid: Grid) -> npt.NDArray[np.float64]:
    """Spread a coverage over an array [zone, row, col], and check what its docstring promises."""
    assert coverage.span_zone.dtype == coverage.span_start.dtype == coverage.span_length.dtype == np.int32
    assert coverage.edge_zone.dtype == coverage.edge_pixel.dtype == np.int32
    assert coverage.edge_weight.dtype == np.float64
    for pixel, zone in (
        (coverage.span_start, coverage.span_zone),
        (coverage.edge_pixel, coverage.edge_zone),
    ):
        # Row by row, in a row zone by zone, in a zone from column to column.
        row, col = np.divmod(pixel.astype(np.int64), grid.width)
        assert np.all(np.diff((row * max(1, coverage.zones) + zone) * grid.width + col) > 0)
    assert np.all((coverage.edge_weight > 0) & (coverage.edge_weight < 1))
    assert np.all(coverage.span_length > 0)
    last = coverage.span_start + coverage.span_length - 1
    assert np.all(coverage.span_start // grid.width == last // grid.width)
    weights = np.zeros((coverage.zones, grid.height * grid.width))
    for zone, start, length in zip(
        coverage.span_zone, coverage.span_start, coverage.span_length, strict=True
    ):
        weights[zone, start : start + length] += 1
    np.add.at(weights, (coverage.edge_zone, coverage.edge_pixel), coverage.edge_weight)
    assert weights.max(initial=0) <= 1
    return weights.reshape(coverage.zones, grid.height, grid.width)


def fractions(geometry: Any, grid: Grid | None = None) -> npt.NDArray[np.float64]:
    grid = grid or grid_of()
    return weights_of(cover(zones_of(geometry), grid), grid)[0]


def centers(geometry: Any, grid: Grid | None = None) -> npt.NDArray[np.float64]:
    grid = grid or grid_of()
    coverage = cover(zones_of(geometry), grid, "center")
    assert coverage.edge_zone.size == 0
    return weights_of(coverage, grid)[0]


def pixel_boxes(grid: Grid) -> npt.NDArray[Any]:
    """Make the grid's pixels as polygons, [row, col]."""
    row, col = np.mgrid[: grid.height, : grid.width]
    x, y = grid.x0 + col * grid.dx, grid.y0 + row * grid.dy
    boxes: npt.NDArray[Any] = shapely.box(
        x, np.minimum(y, y + grid.dy), x + grid.dx, np.maximum(y, y + grid.dy)
    )
    return boxes


def measured(geometry: Any, grid: Grid) -> npt.NDArray[np.float64]:
    """Measure each pixel's share by cutting the polygon with it."""
    share: npt.NDArray[np.float64] = (
        shapely.area(shapely.intersection(pixel_boxes(grid), geometry)) / grid.pixel_area
    )
    return share


def same(a: Coverage, b: Coverage) -> bool:
    return all(
        np.asarray(getattr(a, f.name)).tobytes() == np.asarray(getattr(b, f.name)).tobytes()
        for f in fields(Coverage)
    )


# Polygons: coordinates in pixels of a 14 x 11 grid at (0, 0), often outside it, often on pixel edges.

shapes = st.sampled_from(["star", "rings", "boxes", "sliver", "many", "huge", "snapped", "touching"])


@st.composite
def polygons(draw: st.DrawFn) -> Any:
    """Draw a valid polygon or multipolygon of one of several unkind sorts."""
    shape = draw(shapes)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))

    def star(x: float, y: float, radius: float, points: int = 9) -> npt.NDArray[np.float64]:
        turn = (np.arange(points) + rng.uniform(0, 0.9, points)) * (2 * np.pi / points)
        far = radius * rng.uniform(0.3, 1, points)
        return np.column_stack((x + far * np.cos(turn), y + far * np.sin(turn)))

    x, y = rng.uniform(-3, WIDTH + 3), rng.uniform(-3, HEIGHT + 3)
    if shape == "star":
        zone = shapely.Polygon(star(x, y, rng.uniform(0.1, 8)))
    elif shape == "rings":
        # A ring drawn smaller about its centre stays inside a star; directions are left to chance.
        outer = star(0, 0, 9)
        rings = [outer * s + (x, y) for s in (1, 0.6, 0.55, 0.2)]
        rings = [r[:: rng.choice([-1, 1])] for r in rings]
        zone = shapely.MultiPolygon([(rings[0], [rings[1]]), (rings[2], [rings[3]])])
    elif shape == "boxes":
        low = rng.integers(-3, 14, (4, 2))
        high = low + rng.integers(1, 8, (4, 2))
        zone = shapely.union_all(shapely.box(*low.T, *high.T))
    elif shape == "sliver":
        ends = rng.uniform(-4, 18, (2, 2))
        aside = rng.normal(0, 10.0 ** rng.uniform(-8, -1), 2)
        zone = shapely.Polygon([ends[0], ends[1], ends[1] + aside])
    elif shape == "many":
        zone = shapely.union_all(
            [shapely.Polygon(star(*rng.uniform(-2, 14, 2), rng.uniform(0.1, 4))) for _ in range(6)]
        )
    elif shape == "huge":
        zone = shapely.Polygon(star(x, y, 10.0 ** rng.uniform(1.5, 4), 12))
    elif shape == "snapped":
        zone = shapely.Polygon(np.round(2 * star(x, y, 9)) / 2)
    else:
        side = rng.choice(["west", "east", "south", "north"])
        box = {
            "west": (-4, 2, 0, 8),
            "east": (WIDTH, 2, WIDTH + 3, 8),
            "south": (2, -3, 9, 0),
            "north": (2, HEIGHT, 9, 20),
        }
        zone = shapely.box(*box[side])
    assume(shapely.is_valid(zone) and zone.geom_type in ("Polygon", "MultiPolygon") and zone.area > 0)
    return zone


ups = st.sampled_from([NORTH_UP, SOUTH_UP])
PLACES = [(1.0, (0.0, 0.0)), (10.0, (499_980.0, 4_915_200.0)), (0.1, (-122.3, 47.6)), (1 / 3, (7.0, -1e5))]
places = st.sampled_from(PLACES)


def placed(zone: Any, size: float, at: tuple[float, float]) -> Any:
    return shapely.transform(zone, lambda xy: xy * size + at)


# Fractions


@given(st.lists(polygons(), min_size=1, max_size=4), ups, places)
def test_fractions_equal_those_of_exactextract(zones: list[Any], up: int, place: Any) -> None:
    grid = grid_of(up, size=place[0], at=place[1])
    there = zones_of(*(placed(zone, *place) for zone in zones))
    ours = weights_of(cover(there, grid), grid)
    theirs = weights_of(cover(there, grid, engine="exactextract"), grid)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)


@given(polygons(), ups)
def test_fractions_equal_the_area_of_each_pixel_cut_by_the_zone(zone: Any, up: int) -> None:
    grid = grid_of(up)
    far = max(1.0, np.abs(shapely.get_coordinates(zone)).max())
    np.testing.assert_allclose(fractions(zone, grid), measured(zone, grid), rtol=0, atol=2e-9 + 1e-14 * far)


@given(polygons(), ups, places)
def test_sum_of_fractions_is_the_area_inside_the_chunk(zone: Any, up: int, place: Any) -> None:
    grid = grid_of(up, size=place[0], at=place[1])
    zone = placed(zone, *place)
    inside = shapely.intersection(zone, shapely.box(*grid.bounds)).area
    assert fractions(zone, grid).sum() * grid.pixel_area == pytest.approx(inside, abs=2e-7 * grid.pixel_area)


@given(polygons(), ups, st.integers(1, WIDTH), st.integers(1, HEIGHT), places)
def test_chunks_of_a_cut_grid_have_the_weights_of_the_uncut_grid(
    zone: Any, up: int, chunk_width: int, chunk_height: int, place: Any
) -> None:
    grid = replace(
        grid_of(up, size=place[0], at=place[1]), chunk_width=chunk_width, chunk_height=chunk_height
    )
    zone = placed(zone, *place)
    for rule, tolerance in (("fractional", 2e-9), ("center", 0)):
        if rule == "center" and place[0] not in (1.0, 10.0):
            continue  # there, chunk corners themselves are rounded
        whole = weights_of(cover(zones_of(zone), grid, rule), grid)[0]
        pieces = np.full_like(whole, np.nan)
        for chunk in range(grid.chunk_count):
            part = grid.chunk(chunk)
            row, col = grid.chunk_offset(chunk)
            weights = weights_of(cover(zones_of(zone), part, rule), part)[0]
            pieces[row : row + part.height, col : col + part.width] = weights
        np.testing.assert_allclose(pieces, whole, rtol=0, atol=tolerance)


@given(polygons(), places)
def test_north_up_and_south_up_agree(zone: Any, place: Any) -> None:
    zone = placed(zone, *place)
    north, south = (grid_of(up, size=place[0], at=place[1]) for up in (NORTH_UP, SOUTH_UP))
    np.testing.assert_allclose(fractions(zone, north)[::-1], fractions(zone, south), rtol=0, atol=2e-9)
    if place[0] in (1.0, 10.0):
        np.testing.assert_array_equal(centers(zone, north)[::-1], centers(zone, south))


@given(polygons())
def test_direction_of_rings_does_not_matter(zone: Any) -> None:
    for turned in (shapely.reverse(zone), shapely.orient_polygons(zone)):
        np.testing.assert_allclose(fractions(turned), fractions(zone), rtol=0, atol=1e-12)
        np.testing.assert_array_equal(centers(turned), centers(zone))


def partition(seed: int, snap: float | None, reach: float = 3.0) -> npt.NDArray[Any]:
    """Cut a rectangle larger than the grid into triangles, vertices rounded to multiples of `snap`."""
    rng = np.random.default_rng(seed)
    points = rng.uniform((-reach, -reach), (WIDTH + reach, HEIGHT + reach), (60, 2))
    if snap:
        points = np.round(points / snap) * snap
    corners = [(x, y) for x in (-reach - 1, WIDTH + reach + 1) for y in (-reach - 1, HEIGHT + reach + 1)]
    points = np.unique(np.concatenate((points, corners)), axis=0)
    triangles = points[Delaunay(points).simplices]
    # Either direction, so that shared edges are met both ways and the same way.
    zones: npt.NDArray[Any] = shapely.polygons([t[:: rng.choice([-1, 1])] for t in triangles])
    zones = zones[shapely.area(zones) > 1e-12]
    assert shapely.area(zones).sum() == pytest.approx(
        (WIDTH + 2 * reach + 2) * (HEIGHT + 2 * reach + 2), abs=1e-9
    )
    return zones


@pytest.mark.parametrize("up", [NORTH_UP, SOUTH_UP])
@pytest.mark.parametrize("snap", [None, 0.5, 1.0])
@pytest.mark.parametrize("seed", range(6))
def test_fractions_of_a_partition_add_up_to_one(seed: int, snap: float | None, up: int) -> None:
    grid = grid_of(up)
    total = weights_of(cover(partition(seed, snap), grid), grid).sum(axis=0)
    np.testing.assert_allclose(total, 1, rtol=0, atol=2e-8)


@pytest.mark.parametrize("up", [NORTH_UP, SOUTH_UP])
@pytest.mark.parametrize("size_at", [PLACES[0], PLACES[1], PLACES[3]])
@pytest.mark.parametrize("snap", [None, 0.5, 1.0])
@pytest.mark.parametrize("seed", range(6))
def test_centers_of_a_partition_count_once_even_on_vertices_and_edges(
    seed: int, snap: float | None, size_at: Any, up: int
) -> None:
    # With snap 0.5 vertices fall on pixel centres, and edges run through others.
    grid = grid_of(up, size=size_at[0], at=size_at[1])
    zones = shapely.transform(partition(seed, snap), lambda xy: xy * size_at[0] + size_at[1])
    total = weights_of(cover(zones, grid, "center"), grid).sum(axis=0)
    np.testing.assert_array_equal(total, 1)


def test_voronoi_cells_with_many_vertices_partition_the_grid() -> None:
    rng = np.random.default_rng(3)
    outside = shapely.box(-5, -5, 45, 45)
    seeds = shapely.MultiPoint(rng.uniform(-4, 44, (80, 2)))
    lines = shapely.voronoi_polygons(seeds, extend_to=outside, only_edges=True)
    lines = shapely.segmentize(shapely.union_all([lines, outside.exterior]), 0.7)
    cells = shapely.get_parts(shapely.polygonize([lines]))
    assert len(cells) >= 80
    grid = grid_of(width=40, height=40)
    cells = cells[shapely.area(cells) > 0]
    np.testing.assert_array_equal(weights_of(cover(cells, grid, "center"), grid).sum(axis=0), 1)
    np.testing.assert_allclose(weights_of(cover(cells, grid), grid).sum(axis=0), 1, rtol=0, atol=1e-8)


# Centres


@given(polygons(), ups)
def test_centers_equal_a_rasterio_mask_where_no_centre_lies_on_the_border(zone: Any, up: int) -> None:
    grid = grid_of(up)
    transform = Affine(grid.dx, 0, grid.x0, 0, grid.dy, grid.y0)
    mask = rasterize([(zone, 1)], (grid.height, grid.width), transform=transform, all_touched=False)
    row, col = np.mgrid[: grid.height, : grid.width]
    points = shapely.points(grid.x0 + (col + 0.5) * grid.dx, grid.y0 + (row + 0.5) * grid.dy)
    clear = shapely.distance(points, zone.boundary) > 1e-6
    np.testing.assert_array_equal(centers(zone, grid)[clear], mask[clear])


@given(polygons(), ups)
def test_centers_equal_point_in_polygon(zone: Any, up: int) -> None:
    grid = grid_of(up)
    row, col = np.mgrid[: grid.height, : grid.width]
    x, y = grid.x0 + (col + 0.5) * grid.dx, grid.y0 + (row + 0.5) * grid.dy
    clear = shapely.distance(shapely.points(x, y), zone.boundary) > 1e-9
    np.testing.assert_array_equal(centers(zone, grid)[clear], shapely.contains_xy(zone, x, y)[clear])


@pytest.mark.parametrize("up", [NORTH_UP, SOUTH_UP])
def test_centre_on_a_border_belongs_to_the_zone_east_or_north_of_it(up: int) -> None:
    grid = grid_of(up, width=5, height=5)
    southern_first = centers(shapely.box(1.5, 1.5, 3.5, 3.5), grid)[::up]
    expected = np.zeros((5, 5))
    expected[1:3, 1:3] = 1  # western and southern centres in, eastern and northern out
    np.testing.assert_array_equal(southern_first, expected)


def test_centre_on_a_slanted_edge_belongs_to_the_eastern_zone() -> None:
    # The edge (0, 0) to (9, 27) runs through the centres (0.5, 1.5), (1.5, 4.5), (2.5, 7.5).
    west = shapely.Polygon([(-5, 0), (0, 0), (9, 27), (-5, 27)])
    east = shapely.Polygon([(9, 27), (0, 0), (20, 0), (20, 27)])
    for x, y in ((0, 1), (1, 4), (2, 7)):
        assert centers(west)[y, x] == 0
        assert centers(east)[y, x] == 1


def test_center_has_no_weight_for_a_zone_between_centres() -> None:
    assert centers(shapely.box(2.6, 2.6, 3.4, 3.4)).sum() == 0


# Small cases, in pixels of a south-up grid at (0, 0)


def test_zone_edge_on_pixel_edge_gives_only_full_pixels() -> None:
    coverage = cover(zones_of(shapely.box(2, 3, 6, 5)), grid_of())
    assert coverage.edge_zone.size == 0
    np.testing.assert_array_equal(coverage.span_start, [3 * WIDTH + 2, 4 * WIDTH + 2])
    np.testing.assert_array_equal(coverage.span_length, [4, 4])


def test_zone_of_one_pixel_is_one_span() -> None:
    coverage = cover(zones_of(shapely.box(4, 4, 5, 5)), grid_of())
    assert (coverage.span_start.tolist(), coverage.span_length.tolist()) == ([4 * WIDTH + 4], [1])
    assert coverage.edge_zone.size == 0


def test_zone_equal_to_the_chunk_is_one_span_a_row() -> None:
    coverage = cover(zones_of(shapely.box(0, 0, WIDTH, HEIGHT)), grid_of())
    np.testing.assert_array_equal(coverage.span_length, [WIDTH] * HEIGHT)
    assert coverage.edge_zone.size == 0


def test_zone_around_the_chunk_is_one_span_a_row() -> None:
    for zone in (
        shapely.box(-5, -5, 50, 50),
        shapely.Point(3, 3).buffer(1e6),
        shapely.box(-1e9, -1e9, 1e9, 1e9),
    ):
        coverage = cover(zones_of(zone), grid_of())
        np.testing.assert_array_equal(coverage.span_length, [WIDTH] * HEIGHT)
        assert coverage.edge_zone.size == 0
        assert centers(zone).all()


def test_hole_around_the_chunk_covers_nothing() -> None:
    zone = shapely.box(-9, -9, 50, 50).difference(shapely.box(-1, -1, 40, 40))
    assert fractions(zone).sum() == centers(zone).sum() == 0


def test_hole_on_pixel_edges_cuts_spans_in_two() -> None:
    zone = shapely.box(1, 1, 8, 4).difference(shapely.box(3, 2, 5, 3))
    coverage = cover(zones_of(zone), grid_of())
    assert coverage.edge_zone.size == 0
    np.testing.assert_array_equal(coverage.span_length, [7, 2, 3, 7])


def test_corner_inside_a_pixel_gives_the_product_of_its_sides() -> None:
    weights = fractions(shapely.box(1.25, 2.5, 3.25, 4.5))
    np.testing.assert_array_equal(weights[2:5, 1:4], np.outer([0.5, 1, 0.5], [0.75, 1, 0.25]))
    assert weights.sum() == 4


def test_diagonal_through_pixel_corners_gives_halves() -> None:
    weights = fractions(shapely.Polygon([(0, 0), (5, 0), (5, 5)]))
    np.testing.assert_array_equal(weights[:5, :5], np.triu(np.ones((5, 5)), 1) + np.eye(5) / 2)


def test_triangle_inside_one_pixel_has_its_area() -> None:
    weights = fractions(shapely.Polygon([(3.1, 3.1), (3.9, 3.1), (3.5, 3.9)]))
    assert weights[3, 3] == pytest.approx(0.32)
    assert np.count_nonzero(weights) == 1


def test_zone_across_one_pixel_border_is_shared() -> None:
    weights = fractions(shapely.box(3.5, 3, 4.5, 4))
    assert weights[3, 3] == weights[3, 4] == 0.5
    assert weights.sum() == 1


def test_edge_that_walks_along_grid_lines_leaves_no_partial_pixels() -> None:
    stairs = [(i // 2 + i % 2, i // 2) for i in range(12)]
    coverage = cover(zones_of(shapely.Polygon([*stairs, (0, 5)])), grid_of())
    weights = weights_of(coverage, grid_of())[0]
    np.testing.assert_allclose(weights, measured(shapely.Polygon([*stairs, (0, 5)]), grid_of()), atol=1e-12)


@pytest.mark.parametrize("rule", ["fractional", "center"])
@pytest.mark.parametrize(
    "box",
    [
        (-5, 2, 0, 8), (WIDTH, 2, 20, 8), (2, -5, 8, 0), (2, HEIGHT, 8, 20),  # sides
        (-5, -5, 0, 0), (WIDTH, HEIGHT, 20, 20),  # corners
        (-9, 2, -4, 5), (30, 2, 35, 5), (2, 30, 5, 35), (2, -9, 5, -4),  # beyond
    ],
)  # fmt: skip
def test_zone_that_touches_or_misses_the_chunk_has_no_entries(box: tuple[float, ...], rule: Any) -> None:
    coverage = cover(zones_of(shapely.box(*box)), grid_of(), rule)
    assert coverage.zones == 1
    assert coverage.span_zone.size == coverage.edge_zone.size == 0


@pytest.mark.parametrize(
    "box", [(-7.5, 2.25, 3.5, 5), (9.5, -3, 33, 3.5), (-4, 4.5, 90, 6.5), (3.5, -20, 4.75, 20)]
)
def test_zone_over_the_chunk_s_border_is_cut_there(box: tuple[float, ...]) -> None:
    np.testing.assert_allclose(
        fractions(shapely.box(*box)), measured(shapely.box(*box), grid_of()), atol=1e-15
    )


def test_edge_across_the_chunk_s_corner_is_split_at_its_sides() -> None:
    # Its ends are far west, far south: clamping them would bend the edge.
    zone = shapely.Polygon([(-30, 8), (8, -30), (60, -30), (60, 60), (-30, 60)])
    np.testing.assert_allclose(fractions(zone), measured(zone, grid_of()), atol=1e-12)
    zone = shapely.Polygon([(-10, 14), (24, -3), (24, -2), (-10, 15)])
    np.testing.assert_allclose(fractions(zone), measured(zone, grid_of()), atol=1e-12)


@pytest.mark.parametrize("width", [1e-3, 1e-6, 1e-8])
def test_sliver_keeps_its_tiny_weights(width: float) -> None:
    np.testing.assert_allclose(fractions(shapely.box(3.2, 1, 3.2 + width, 6))[1:6, 3], width, rtol=1e-6)


def test_sliver_under_the_threshold_weighs_nothing() -> None:
    assert fractions(shapely.box(3.2, 1, 3.2 + 5e-10, 6)).sum() == 0


def test_pixel_that_lacks_less_than_the_threshold_is_full() -> None:
    coverage = cover(zones_of(shapely.box(2 + 5e-10, 2, 4, 3 - 4e-10)), grid_of())
    assert coverage.edge_zone.size == 0
    assert coverage.span_length.tolist() == [2]


def test_parts_and_holes_that_meet_in_a_point_are_right() -> None:
    parts = shapely.MultiPolygon([shapely.box(1, 1, 3, 3), shapely.box(3, 3, 5.5, 5)])
    np.testing.assert_allclose(fractions(parts), measured(parts, grid_of()), atol=1e-15)
    hole = shapely.Polygon([(1, 1), (9, 1), (9, 9), (1, 9)], [[(1, 5), (4, 3.5), (4, 6.5)]])
    assert hole.is_valid
    np.testing.assert_allclose(fractions(hole), measured(hole, grid_of()), atol=1e-12)


def test_sliver_pixels_between_two_parts_add_their_weights() -> None:
    parts = shapely.MultiPolygon([shapely.box(1, 1, 2.3, 4), shapely.box(2.5, 1, 6, 4)])
    assert fractions(parts)[2, 2] == pytest.approx(0.8)


@pytest.mark.parametrize("up", [NORTH_UP, SOUTH_UP])
def test_rows_follow_the_sign_of_dy(up: int) -> None:
    weights = fractions(shapely.box(0, 0, WIDTH, 1.5), grid_of(up))
    southern = weights if up == SOUTH_UP else weights[::-1]
    np.testing.assert_array_equal(southern[:, 0], [1, 0.5] + [0] * (HEIGHT - 2))


@pytest.mark.parametrize("engine", ["native", "exactextract"])
def test_no_zones_give_an_empty_coverage(engine: Any) -> None:
    coverage = cover(zones_of(), grid_of(), engine=engine)
    assert coverage.zones == 0
    assert weights_of(coverage, grid_of()).size == 0


@pytest.mark.parametrize("rule", ["fractional", "center"])
def test_empty_and_missing_zones_keep_their_slot_and_cover_nothing(rule: Any) -> None:
    box = shapely.box(1, 1, 3, 3)
    zones = zones_of(
        shapely.Polygon(), box, None, shapely.MultiPolygon(), shapely.MultiPolygon([shapely.Polygon(), box])
    )
    coverage = cover(zones, grid_of(), rule)
    assert coverage.zones == 5
    assert weights_of(coverage, grid_of()).sum(axis=(1, 2)).tolist() == [0, 4, 0, 0, 4]


def test_heights_of_a_3d_polygon_are_ignored() -> None:
    flat, high = shapely.box(1, 1, 3.5, 3), shapely.force_3d(shapely.box(1, 1, 3.5, 3), 7)
    np.testing.assert_array_equal(fractions(high), fractions(flat))


def test_zones_that_overlap_are_each_right() -> None:
    coverage = cover(
        zones_of(shapely.box(1, 1, 5, 5), shapely.box(1, 1, 5, 5), shapely.box(2, 2, 4, 4)), grid_of()
    )
    assert weights_of(coverage, grid_of()).sum(axis=(1, 2)).tolist() == [16, 16, 4]


def test_chunk_of_one_pixel_works() -> None:
    grid = grid_of(width=1, height=1)
    assert fractions(shapely.box(-3, 0.25, 0.5, 9), grid).tolist() == [[0.375]]
    assert centers(shapely.box(-3, 0.25, 0.5001, 9), grid).tolist() == [[1]]


def test_wide_zone_has_no_residue_in_its_rows() -> None:
    # Ragged sides with many vertices a row: an error of the running sum would show in every pixel after.
    rng = np.random.default_rng(5)
    y = np.linspace(0.3, 29.7, 4000)
    west = np.column_stack((10 + rng.uniform(-1, 1, y.size), y))
    east = np.column_stack((3990 + rng.uniform(-1, 1, y.size), y))
    grid = grid_of(width=4000, height=30)
    coverage = cover(zones_of(shapely.Polygon(np.concatenate((west, east[::-1])))), grid)
    col = coverage.edge_pixel % grid.width
    row = coverage.edge_pixel // grid.width
    inner = (row > 0) & (row < 29)
    assert np.all((np.abs(col[inner] - 10) <= 2) | (np.abs(col[inner] - 3990) <= 2))
    assert col.max() < 3992
    assert np.all(coverage.span_length >= 3975)
    assert coverage.span_length.size == 28


def test_zone_larger_than_a_band_equals_its_pieces() -> None:
    # Wide and tall enough that its rows are worked off in several bands.
    zone = (
        shapely.Point(600.3, 400.7).buffer(390, quad_segs=40).difference(shapely.Point(500, 300).buffer(77.7))
    )
    grid = grid_of(width=1200, height=800)
    coverage = cover(zones_of(zone), grid)
    assert coverage.span_length.sum() + coverage.edge_weight.sum() == pytest.approx(zone.area, rel=1e-12)
    theirs = cover(zones_of(zone), grid, engine="exactextract")
    np.testing.assert_array_equal(coverage.span_start, theirs.span_start)
    np.testing.assert_array_equal(coverage.edge_pixel, theirs.edge_pixel)
    np.testing.assert_allclose(coverage.edge_weight, theirs.edge_weight, rtol=0, atol=1e-6)
    count = cover(zones_of(zone), grid, "center").span_length.sum()
    assert math.isclose(count, zone.area, rel_tol=1e-3)


@pytest.mark.parametrize("rule", ["fractional", "center"])
def test_many_zones_come_row_by_row_and_zone_by_zone_and_the_same_twice(rule: Any) -> None:
    rng = np.random.default_rng(8)
    zones = shapely.buffer(
        shapely.points(rng.uniform(0, 300, (700, 2))), rng.uniform(0.5, 20, 700), quad_segs=4
    )
    grid = grid_of(width=300, height=280)
    first, again = cover(zones, grid, rule), cover(zones.copy(), grid, rule)
    assert same(first, again)
    weights_of(first, grid)  # checks the order
    if rule == "fractional":
        area = shapely.area(shapely.intersection(zones, shapely.box(*grid.bounds)))
        total = np.bincount(first.span_zone, first.span_length, 700)
        total += np.bincount(first.edge_zone, first.edge_weight, 700)
        np.testing.assert_allclose(total, area, rtol=0, atol=1e-7)


def test_a_zone_s_weights_do_not_depend_on_its_company() -> None:
    rng = np.random.default_rng(9)
    zones = shapely.buffer(shapely.points(rng.uniform(0, 12, (30, 2))), rng.uniform(0.5, 5, 30), quad_segs=4)
    together = weights_of(cover(zones, grid_of()), grid_of())
    for zone, weights in zip(zones, together, strict=True):
        np.testing.assert_array_equal(fractions(zone), weights)


@pytest.mark.parametrize("rule", ["fractional", "center"])
def test_zones_with_many_more_entries_than_their_boxes_have_sides_find_room(rule: Any) -> None:
    # A comb: each of its rows has edge pixels, or centres, all along.
    teeth = [shapely.box(0.3 + 2 * i, 0.2, 1.4 + 2 * i, 599.7) for i in range(300)]
    zone = shapely.MultiPolygon(teeth)
    grid = grid_of(width=600, height=600)
    coverage = cover(zones_of(*[zone] * 3), grid, rule)
    weights = weights_of(coverage, grid)
    assert weights[0].sum() == pytest.approx(zone.area if rule == "fractional" else 300 * 600, rel=1e-9)
    np.testing.assert_array_equal(weights[1], weights[0])
    np.testing.assert_array_equal(weights[2], weights[0])


def test_a_thin_zone_along_a_row_has_no_full_pixel() -> None:
    coverage = cover(zones_of(*[shapely.box(0, 3.25, 300, 3.75)] * 500), grid_of(width=300, height=5))
    assert coverage.span_zone.size == 0
    assert coverage.edge_weight.size == 500 * 300
    assert (coverage.edge_weight == 0.5).all()


# What is refused


def test_exactextract_refuses_the_centre_rule() -> None:
    with pytest.raises(ValueError, match="knows only rule 'fractional'"):
        cover(zones_of(shapely.box(0, 0, 1, 1)), grid_of(), "center", "exactextract")


@pytest.mark.parametrize("words", [("middle", "native"), ("fractional", "gdal")])
def test_unknown_words_are_refused(words: Any) -> None:
    with pytest.raises(ValueError, match="unknown coverage"):
        cover(zones_of(), grid_of(), *words)


def test_geometry_that_is_no_polygon_is_refused_by_number() -> None:
    with pytest.raises(ValueError, match="zone 1 is a LineString"):
        cover(zones_of(shapely.box(0, 0, 1, 1), shapely.LineString([(0, 0), (1, 1)])), grid_of())


@pytest.mark.parametrize("bad", [math.nan, math.inf, 1e300])
@pytest.mark.parametrize("rule", ["fractional", "center"])
def test_vertex_that_is_no_place_is_refused_by_number(bad: float, rule: Any) -> None:
    with np.errstate(invalid="ignore"):
        wrong = shapely.Polygon([(0, 0), (5, 0), (bad, 5)])
    with pytest.raises(ValueError, match="zone 1 has a vertex at"):
        cover(zones_of(shapely.box(0, 0, 1, 1), wrong), grid_of(), rule)
