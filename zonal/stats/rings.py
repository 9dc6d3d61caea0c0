"""Polygons as flat arrays of vertices, for the sweeps of scanline.py and centres.py."""

from __future__ import annotations

from typing import NamedTuple

from zonal.stats.compiling import compiled
from zonal.stats.rows import Floats, Ints, Offsets


class Rings(NamedTuple):
    """Zone k of `zone` has polygons ``zone_at[k]:zone_at[k + 1]``, and so on down to vertices."""

    x: Floats
    y: Floats
    ring_at: Offsets
    polygon_at: Offsets
    zone_at: Offsets
    zone: Ints


@compiled
def extent(values: Floats, rings: Rings, k: int) -> tuple[float, float]:
    """Return the least and the greatest of a zone's coordinates along one axis."""
    first = rings.ring_at[rings.polygon_at[rings.zone_at[k]]]
    end = rings.ring_at[rings.polygon_at[rings.zone_at[k + 1]]]
    low = high = values[first]
    for i in range(first + 1, end):
        low, high = min(low, values[i]), max(high, values[i])
    return low, high
