"""Loads the compiled loops ahead of their first use; knows which a run of AEF codes needs, and any other.

``python -m zonal.stats.preload`` compiles them all into numba's cache, for an image or an installation that
cannot be written to.
"""

from __future__ import annotations

import numpy as np
import shapely

from zonal.geo.grid import Grid
from zonal.stats.coverage import Rule, cover
from zonal.stats.moments import accumulate, concat


def preload(*, every: bool = False) -> None:
    """Reduce four pixels in every way that a run may ask for.

    Loads the compiled loops from disk where they are kept, and else compiles them, which takes
    ten times as long. A worker that calls this at its start does neither in the middle of its
    first unit.

    Parameters
    ----------
    every : bool
        Of any raster, not of AEF codes alone.
    """
    grid = Grid("EPSG:32601", 0.0, 0.0, 1.0, 1.0, 2, 2, 2, 2)
    zones = np.array([shapely.box(0, 0, 1.5, 2), shapely.box(1.5, 0, 2, 2)], object)
    valid, keys = np.ones((2, 2), np.bool_), np.arange(2)
    rules: tuple[Rule, ...] = ("fractional", "center")
    for kind in (np.int8, np.float64) if every else (np.int8,):
        values = np.ones((1, 2, 2), kind)
        moments = [
            accumulate(
                values, valid, cover(zones, grid, rule), zone=keys, piece=keys, tile=0, chunk=0, extremes=True
            )
            for rule in rules
        ]
        concat(moments).statistics(0, 2, ("mean", "std", "min", "max"))


if __name__ == "__main__":
    preload(every=True)
