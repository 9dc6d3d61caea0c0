"""Polygons onto pixels: which zone a pixel of a map shows.

Knows polygons in the map's CRS and an affine transform; knows neither files,
statistics nor colours.
"""

from __future__ import annotations

import warnings

import numpy as np
import numpy.typing as npt
import rasterio.features
from affine import Affine
from rasterio.errors import NotGeoreferencedWarning


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
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # a window at the origin is not lost
        found = rasterio.features.rasterize(shapes, shape, fill=-1, transform=transform, dtype="int32")
    return np.asarray(found, np.int32)
