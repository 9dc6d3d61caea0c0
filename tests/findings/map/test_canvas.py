"""Which zone a pixel shows: its centre decides, whatever the window."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import rasterio.features
import shapely
from affine import Affine

from zonal.findings.map import canvas as canvas_module
from zonal.findings.map.canvas import Window, burn, canvas, paint, painted, unpacked, zones_by_window
from zonal.geo.grid import Grid


def inside(polygon: shapely.Geometry, transform: Affine, shape: tuple[int, int]) -> np.ndarray:
    """Whether a polygon holds each pixel's centre, by GEOS."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    x = transform.c + transform.a * (columns + 0.5)
    y = transform.f + transform.e * (rows + 0.5)
    return np.asarray(shapely.contains_xy(polygon, x, y))


def blobs(count: int, rng: np.random.Generator, size: float = 400.0) -> np.ndarray:
    """Star-like polygons, some with a hole, some of two parts, in a square of `size` metres."""
    made = []
    for number in range(count):
        centre = rng.uniform(0.1, 0.9, 2) * size
        angle = np.sort(rng.uniform(0, 2 * np.pi, 9))
        radius = rng.uniform(0.02, 0.2, 9) * size
        blob = shapely.Polygon(centre + np.column_stack([np.cos(angle), np.sin(angle)]) * radius[:, None])
        blob = blob.buffer(0)  # where all angles lie on one side, it may cross itself
        if number % 3 == 0:
            blob = blob.difference(shapely.Point(centre).buffer(0.02 * size))
        if number % 4 == 0:
            blob = blob.union(shapely.box(*(centre + 0.3 * size), *(centre + 0.33 * size)))
        made.append(blob)
    return np.array(made, object)


@pytest.mark.parametrize("seed", range(5))
def test_a_pixel_shows_the_zone_that_holds_its_centre_by_geos(seed: int) -> None:
    transform = Affine(10, 0, 3, 0, -10, 407)
    shape = (41, 40)
    polygons = blobs(8, np.random.default_rng(seed))
    expected = np.full(shape, -1)
    for number, polygon in enumerate(polygons):
        expected[inside(polygon, transform, shape)] = number
    found = burn(polygons, transform, shape)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, expected)
    assert len(np.unique(found)) > 5


def test_of_two_zones_on_one_pixel_the_later_shows() -> None:
    boxes = np.array([shapely.box(0, 0, 20, 20), shapely.box(10, 0, 30, 20)], object)
    assert burn(boxes, Affine(10, 0, 0, 0, -10, 20), (2, 3)).tolist() == [[0, 1, 1], [0, 1, 1]]
    assert burn(boxes[::-1], Affine(10, 0, 0, 0, -10, 20), (2, 3)).tolist() == [[1, 1, 0], [1, 1, 0]]


def test_zones_without_a_polygon_keep_their_numbers() -> None:
    polygons = np.array([None, shapely.Polygon(), shapely.box(0, 0, 10, 10)], object)
    assert burn(polygons, Affine(10, 0, 0, 0, -10, 10), (1, 2)).tolist() == [[2, -1]]
    assert (burn(polygons[:2], Affine(10, 0, 0, 0, -10, 10), (1, 2)) == -1).all()
    assert (burn(polygons[:0], Affine.identity(), (2, 2)) == -1).all()


def test_a_zone_between_the_centres_shows_nowhere() -> None:
    sliver = np.array([shapely.box(6, 0, 14, 10)], object)
    assert (burn(sliver, Affine(10, 0, 0, 0, -10, 10), (1, 3)) == -1).all()


def test_a_partition_leaves_no_pixel_out_even_where_edges_run_through_centres() -> None:
    """Boxes whose every edge lies on pixel centres."""
    boxes = np.array([shapely.box(x, y, x + 20, y + 20) for x in (5, 25, 45) for y in (5, 25, 45)], object)
    found = burn(boxes, Affine(10, 0, 0, 0, -10, 70), (7, 7))
    assert (found[:, 1:] >= 0).all() and (found[:, 0] == -1).all()
    assert set(np.unique(found)) == {*range(-1, 9)}


# ------------------------------------------------------------------ grids and windows


@pytest.mark.parametrize(
    ("bounds", "resolution"),
    [((503.0, -21.0, 598.0, 77.5), 10.0), ((-0.31, 47.2, 0.44, 47.9), 0.1), ((10, 10, 20, 20), 10)],
)
def test_a_grid_lies_on_multiples_of_its_resolution_and_holds_the_area(
    bounds: tuple[float, float, float, float], resolution: float
) -> None:
    grid = canvas(bounds, "EPSG:32610", resolution)
    west, south, east, north = grid.bounds
    slack = 1e-9
    assert west <= bounds[0] + slack and south <= bounds[1] + slack
    assert east >= bounds[2] - slack and north >= bounds[3] - slack
    for side, other in zip(grid.bounds, bounds, strict=True):
        assert side / resolution == pytest.approx(round(side / resolution), abs=1e-9)
        assert abs(side - other) < resolution
    assert grid.dy == -grid.dx


def test_pixels_are_doubled_until_there_are_few_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(canvas_module, "MOST_PIXELS", 100)
    assert canvas((0, 0, 90, 100), "EPSG:32610", 10).dx == 10  # 90 pixels
    assert canvas((0, 0, 100, 100), "EPSG:32610", 10).dx == 20  # 100 are not under 100
    grid = canvas((0, 0, 1000, 1000), "EPSG:32610", 10)
    assert (grid.dx, grid.width, grid.height) == (160, 7, 7)


def test_pixels_too_small_to_be_counted_are_only_far_too_many() -> None:
    grid = canvas((500_000, 4_000_000, 600_000, 4_100_000), "EPSG:32610", 1e-300)
    assert 1e9 < grid.width * grid.height < 4e9


def test_a_point_like_area_has_one_pixel() -> None:
    grid = canvas((20, 20, 20, 20), "EPSG:32610", 10)
    assert (grid.width, grid.height) == (1, 1)


def test_each_box_is_in_just_the_windows_that_it_touches() -> None:
    grid = Grid("EPSG:32610", 1000, 5000, 10, -10, 95, 60, 20, 20)
    rng = np.random.default_rng(0)
    low = rng.uniform((1000, 4400), (1900, 4950), (300, 2))
    boxes = np.column_stack([low, np.minimum(low + rng.uniform(0, 400, (300, 2)), (1950, 5000))])
    found = zones_by_window(grid, boxes)
    assert list(found) == sorted(found)
    for window in range(grid.chunk_count):
        area = shapely.box(*grid.chunk(window).bounds)
        expected = np.flatnonzero(shapely.intersects(shapely.box(*boxes.T), area))
        np.testing.assert_array_equal(found.get(window, []), expected)


def test_windows_without_zones_are_not_listed() -> None:
    grid = Grid("EPSG:32610", 0, 1000, 10, -10, 100, 100, 10, 10)
    assert list(zones_by_window(grid, np.array([[10, 910, 20, 990], [905, 5, 995, 50]]))) == [0, 99]


def structured(resolution: float, corner: tuple[float, float]) -> np.ndarray:
    """A lattice of cells whose corners and diagonals run through pixel centres, in `resolution` units."""
    made = []
    for column in range(0, 40, 4):
        for row in range(0, 32, 4):
            x, y = corner[0] + (column + 0.5) * resolution, corner[1] + (row + 0.5) * resolution
            far_x, far_y = x + 4 * resolution, y + 4 * resolution
            made.append(shapely.Polygon([(x, y), (far_x, y), (far_x, far_y)]))
            made.append(shapely.Polygon([(x, y), (far_x, far_y), (x, far_y)]))
    return np.array(made, object)


@pytest.mark.parametrize(
    ("resolution", "corner"),
    [(10.0, (500_000.0, 5_200_000.0)), (0.1, (-123.4, 47.1)), (30.0, (-90.0, 60.0)), (0.3, (512.1, 7.2))],
)
@pytest.mark.parametrize("kind", ["blobs", "structured"])
def test_windows_of_any_size_give_the_same_picture(
    resolution: float, corner: tuple[float, float], kind: str
) -> None:
    rng = np.random.default_rng(7)
    if kind == "structured":
        polygons = structured(resolution, corner)
    else:
        polygons = shapely.transform(blobs(25, rng), lambda p: np.add(p * resolution / 10, corner))
    colours = rng.integers(0, 256, (len(polygons), 3)).astype(np.uint8)
    boxes = shapely.bounds(polygons)
    area = (*boxes[:, :2].min(axis=0).tolist(), *boxes[:, 2:].max(axis=0).tolist())
    pictures = []
    for size in (1000, 5, 7, 16, 25):
        grid = replace(canvas(area, "EPSG:32610", resolution), chunk_width=size, chunk_height=size)
        picture = np.zeros((grid.height, grid.width, 4), np.uint8)
        for window, zones in zones_by_window(grid, boxes).items():
            row, column = grid.chunk_offset(window)
            pixels, _ = paint(grid, window, polygons[zones], colours[zones])
            picture[row : row + pixels.shape[0], column : column + pixels.shape[1]] = pixels
        pictures.append(picture)
    assert (pictures[0][..., 3] == 255).sum() > 200
    for picture in pictures[1:]:
        np.testing.assert_array_equal(picture, pictures[0])


def test_a_window_is_what_rasterio_burns_there() -> None:
    polygons = shapely.transform(
        blobs(20, np.random.default_rng(3)), lambda p: np.add(p, (500_000, 5_200_000))
    )
    colours = np.random.default_rng(4).integers(0, 256, (20, 3)).astype(np.uint8)
    grid = Grid("EPSG:32610", 500_000, 5_200_500, 10, -10, 50, 50, 32, 32)
    numbers = rasterio.features.rasterize(
        [(polygon, number + 1) for number, polygon in enumerate(polygons)],
        (50, 50),
        transform=Affine(10, 0, 500_000, 0, -10, 5_200_500),
        dtype="int32",
    )
    expected = np.zeros((50, 50, 4), np.uint8)
    expected[numbers > 0] = np.column_stack([colours, np.full(20, 255)])[numbers[numbers > 0] - 1]
    pixels, seen = paint(grid, 3, polygons, colours)
    np.testing.assert_array_equal(pixels, expected[32:, 32:])
    assert set(np.flatnonzero(seen) + 1) == set(np.unique(numbers[32:, 32:])) - {0}


def test_a_window_travels_and_comes_back() -> None:
    polygons = blobs(5, np.random.default_rng(5))
    colours = np.random.default_rng(6).integers(0, 256, (5, 3)).astype(np.uint8)
    grid = Grid("EPSG:32610", 0, 400, 10, -10, 40, 40, 32, 32)
    packed, seen = painted(Window(grid, 1, [polygon.wkb for polygon in polygons], colours))
    pixels, expected = paint(grid, 1, polygons, colours)
    np.testing.assert_array_equal(unpacked(packed, grid.chunk(1)), pixels)
    np.testing.assert_array_equal(seen, expected)
    assert len(packed) < pixels.size
