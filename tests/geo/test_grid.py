"""Where pixels and chunks lie, whichever way the rows run."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zonal.geo.grid import Grid

SOUTH_UP = Grid("EPSG:32616", 500_000.0, 4_000_000.0, 10.0, 10.0, 300, 200, 128, 64)
NORTH_UP = replace(SOUTH_UP, y0=4_002_000.0, dy=-10.0)


@pytest.mark.parametrize("grid", [SOUTH_UP, NORTH_UP])
def test_bounds_do_not_depend_on_the_direction_of_rows(grid: Grid) -> None:
    assert grid.bounds == (500_000.0, 4_000_000.0, 503_000.0, 4_002_000.0)
    assert grid.pixel_area == 100.0
    assert (grid.chunk_columns, grid.chunk_rows, grid.chunk_count) == (3, 4, 12)


def test_chunk_zero_lies_in_the_south_of_a_south_up_raster() -> None:
    assert SOUTH_UP.chunk(0).bounds == (500_000.0, 4_000_000.0, 501_280.0, 4_000_640.0)


def test_chunk_zero_lies_in_the_north_of_a_north_up_raster() -> None:
    assert NORTH_UP.chunk(0).bounds == (500_000.0, 4_001_360.0, 501_280.0, 4_002_000.0)


def test_chunks_on_the_far_edges_are_clipped() -> None:
    last = SOUTH_UP.chunk(11)
    assert (last.width, last.height) == (300 - 2 * 128, 200 - 3 * 64)
    assert (last.chunk_width, last.chunk_height) == (last.width, last.height)
    assert last.chunk_count == 1
    assert SOUTH_UP.chunk_offset(11) == (192, 256)


@pytest.mark.parametrize("chunk", [-1, 12])
def test_a_chunk_that_is_not_there_is_an_error(chunk: int) -> None:
    with pytest.raises(IndexError, match=rf"chunk {chunk} of 12"):
        SOUTH_UP.chunk(chunk)


@given(
    st.integers(1, 70),
    st.integers(1, 70),
    st.integers(1, 80),
    st.integers(1, 80),
    st.sampled_from([0.25, 10.0]),
    st.booleans(),
)
def test_chunks_partition_the_raster(
    width: int, height: int, across: int, down: int, size: float, south_up: bool
) -> None:
    grid = Grid("EPSG:32616", 100.0, 200.0, size, size if south_up else -size, width, height, across, down)
    seen = np.zeros((height, width), int)
    for number in range(grid.chunk_count):
        chunk = grid.chunk(number)
        row, col = grid.chunk_offset(number)
        seen[row : row + chunk.height, col : col + chunk.width] += 1
        assert (chunk.x0, chunk.y0) == (grid.x0 + col * grid.dx, grid.y0 + row * grid.dy)
        assert (chunk.dx, chunk.dy, chunk.crs) == (grid.dx, grid.dy, grid.crs)
    assert (seen == 1).all()
    boxes = np.array([grid.chunk(number).bounds for number in range(grid.chunk_count)])
    assert (*boxes[:, :2].min(axis=0), *boxes[:, 2:].max(axis=0)) == grid.bounds


@pytest.mark.parametrize("size", [{"dx": 0.0}, {"dx": -10.0}, {"dy": 0.0}])
def test_a_pixel_without_size_is_an_error(size: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="pixel size must be dx > 0, dy != 0"):
        replace(SOUTH_UP, **size)


@pytest.mark.parametrize("side", ["width", "height", "chunk_width", "chunk_height"])
def test_a_grid_without_pixels_is_an_error(side: str) -> None:
    with pytest.raises(ValueError, match="a grid needs at least one pixel"):
        replace(SOUTH_UP, **{side: 0})
