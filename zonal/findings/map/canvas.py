"""The canvas of a map: its grid, its windows, and which zone each pixel shows in which colour.

Knows boxes, polygons and colours as arrays; knows neither files, statistics nor
where windows are painted.
"""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import rasterio.features
import shapely
from affine import Affine
from rasterio.errors import NotGeoreferencedWarning

from zonal.geo.grid import Bounds, Grid

WINDOW = 2048
"""Pixels of a window, either way: 17 MB of colours, and as much for the zones they come from."""

MOST_PIXELS = 4_000_000_000
"""Of one map; a larger one is drawn with larger pixels."""

Boxes = npt.NDArray[np.float64]


def canvas(bounds: Bounds, crs: str, resolution: float) -> Grid:
    """Lay a grid over an area, its lines on multiples of the pixel size.

    Parameters
    ----------
    bounds : tuple of float
        West, south, east, north; finite, units of `crs`.
    crs : str
    resolution : float
        Size of a pixel, same units. It is doubled until the map has fewer pixels than `MOST_PIXELS`.

    Returns
    -------
    Grid
        North-up; its chunks are the windows.
    """
    while True:
        # Not finite: far too many.
        with np.errstate(over="ignore", invalid="ignore"):
            west, south = np.floor(np.array(bounds[:2]) / resolution)
            east, north = np.ceil(np.array(bounds[2:]) / resolution)
            width, height = max(east - west, 1.0), max(north - south, 1.0)
            if width * height < MOST_PIXELS:
                break
        resolution *= 2
    corner = (float(west * resolution), float(north * resolution))
    return Grid(crs, *corner, resolution, -resolution, int(width), int(height), WINDOW, WINDOW)


def zones_by_window(grid: Grid, boxes: Boxes) -> dict[int, npt.NDArray[np.intp]]:
    """Find the windows that each zone's box touches.

    Parameters
    ----------
    grid : Grid
    boxes : float64 ndarray[zone, 4]
        West, south, east, north; inside the grid.

    Returns
    -------
    dict of int to intp ndarray
        Zones by number of the window, both rising; windows without zones are not in it.
    """
    size = grid.dx * np.array([grid.chunk_width, grid.chunk_height])
    corner = np.array([grid.x0, grid.y0])
    most = np.array([grid.chunk_columns, grid.chunk_rows]) - 1
    # A box that ends on a window's edge counts for both sides: rounding must not lose a pixel.
    first = np.clip(np.floor((boxes[:, [0, 3]] - corner) * [1, -1] / size).astype(np.intp), 0, most)
    last = np.clip(np.floor((boxes[:, [2, 1]] - corner) * [1, -1] / size).astype(np.intp), 0, most)
    columns, rows = (last - first + 1).T
    count = columns * rows
    zone = np.repeat(np.arange(len(boxes)), count)
    step = np.arange(len(zone)) - np.repeat(np.cumsum(count) - count, count)
    window = (first[zone, 1] + step // columns[zone]) * grid.chunk_columns
    window += first[zone, 0] + step % columns[zone]
    order = np.argsort(window, kind="stable")
    touched, start = np.unique(window[order], return_index=True)
    return dict(zip(touched.tolist(), np.split(zone[order], start[1:]), strict=True))


def burn(
    polygons: npt.NDArray[np.object_], transform: Affine, shape: tuple[int, int]
) -> npt.NDArray[np.int32]:
    """Give each pixel the zone that holds its centre.

    Parameters
    ----------
    polygons : ndarray[zone] of shapely geometries
        In the map's CRS; empty ones and None hold no pixel.
    transform : Affine
        From (column, row) to the map's CRS.
    shape : tuple of int
        Rows and columns.

    Returns
    -------
    int32 ndarray[y, x]
        Position in `polygons`, the last of several; -1 where there is none.
    """
    shapes = [
        (polygon, number)
        for number, polygon in enumerate(polygons)
        if polygon is not None and not polygon.is_empty
    ]
    if not shapes:
        return np.full(shape, -1, np.int32)
    with warnings.catch_warnings():
        # A window at the origin is not lost.
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        zone = rasterio.features.rasterize(shapes, shape, fill=-1, transform=transform, dtype="int32")
    return np.asarray(zone, np.int32)


def paint(
    grid: Grid, window: int, polygons: npt.NDArray[np.object_], colours: npt.NDArray[np.uint8]
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
    """Give each pixel of a window the colour of the zone that holds its centre.

    Parameters
    ----------
    grid : Grid
    window : int
        Number of the chunk.
    polygons : ndarray[zone] of shapely geometries
        In the grid's CRS.
    colours : uint8 ndarray[zone, 3]

    Returns
    -------
    uint8 ndarray[y, x, 4]
        Red, green, blue, alpha; alpha is 0 where there is no zone, else 255.
    bool ndarray[zone]
        Which zones have a pixel.

    Notes
    -----
    Polygons are turned into pixels of the whole grid, and a window is a shift by whole numbers, which does
    not round near the window: an edge that runs through a pixel's centre falls the same way in every window.
    """
    row, column = grid.chunk_offset(window)
    part = grid.chunk(window)
    corner = np.array([grid.x0, grid.y0])
    inside = shapely.transform(polygons, lambda points: (points - corner) / grid.dx)
    zone = burn(inside, Affine(1, 0, column, 0, -1, -row), (part.height, part.width))
    # The last for -1, no zone.
    palette = np.zeros((len(colours) + 1, 4), np.uint8)
    palette[:-1, :3], palette[:-1, 3] = colours, 255
    # Four bytes at once are several times as fast as one by one.
    pixels = palette.view(np.uint32)[:, 0][zone].view(np.uint8).reshape(*zone.shape, 4)
    seen = np.bincount(zone.ravel() + 1, minlength=len(palette))[1:] > 0
    return pixels, seen


@dataclass(frozen=True, slots=True)
class Window:
    """A window to paint, as it travels to who paints it.

    Parameters
    ----------
    grid : Grid
        Of the whole map.
    number : int
        Of the chunk.
    polygons : sequence of bytes
        WKB in the grid's CRS.
    colours : uint8 ndarray[zone, 3]
    """

    grid: Grid
    number: int
    polygons: Sequence[bytes]
    colours: npt.NDArray[np.uint8]


def painted(window: Window) -> tuple[bytes, npt.NDArray[np.bool_]]:
    """`paint` a window; its pixels are packed, to travel back."""
    polygons = shapely.from_wkb(np.array(window.polygons, object))
    pixels, seen = paint(window.grid, window.number, polygons, window.colours)
    return zlib.compress(pixels.tobytes(), 1), seen


def unpacked(packed: bytes, part: Grid) -> npt.NDArray[np.uint8]:
    """Turn packed pixels of a chunk into uint8 ndarray[y, x, 4]."""
    return np.frombuffer(zlib.decompress(packed), np.uint8).reshape(part.height, part.width, 4)
