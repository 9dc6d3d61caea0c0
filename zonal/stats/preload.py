"""Loads the compiled loops ahead of their first use; knows which a run of AEF codes needs."""

from __future__ import annotations

import numpy as np
import shapely

from zonal.grid import Grid
from zonal.stats.coverage import Rule, cover
from zonal.stats.moments import accumulate, concat


def preload() -> None:
    """Reduce four pixels in every way that a run of AEF codes may ask for.

    Loads the compiled loops from disk where they are kept, and else compiles them, which takes
    ten times as long. A worker that calls this at its start does neither in the middle of its
    first unit.
    """
    grid = Grid("EPSG:32601", 0.0, 0.0, 1.0, 1.0, 2, 2, 2, 2)
    zones = np.array([shapely.box(0, 0, 1.5, 2), shapely.box(1.5, 0, 2, 2)], object)
    codes, valid = np.ones((1, 2, 2), np.int8), np.ones((2, 2), np.bool_)
    keys = np.arange(2)
    rules: tuple[Rule, ...] = ("fractional", "center")
    found = [
        accumulate(
            codes, valid, cover(zones, grid, rule), zone=keys, piece=keys, tile=0, chunk=0, extremes=True
        )
        for rule in rules
    ]
    concat(found).statistics(0, 2, ("mean", "std", "min", "max"))
