"""The Python face for notebooks: statistics of a frame's zones, without a folder or a command.

Knows frames and the engine; a run's files go to a temporary folder that goes
away with the call.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import geopandas as gpd
import pandas as pd
from pydantic import ValidationError

from zonal.cluster.connection import place_of
from zonal.config.settings import Settings, settings_error
from zonal.engine import run as engine
from zonal.engine.preload import PRELOAD
from zonal.errors import UsageError

ZONE = "zonal_zone"
"""Column that numbers the rows of a frame while they are away."""


def zonal_stats(
    zones: gpd.GeoDataFrame | str | Path,
    raster: str | Path | Sequence[str | Path],
    *,
    stats: Sequence[str] | str = ("mean", "std"),
    coverage: Literal["fractional", "center"] = "fractional",
    year: int | None = None,
    zone_id: str | None = None,
    **settings: Any,
) -> gpd.GeoDataFrame:
    """Summarise a raster by zone.

    Runs on the active Dask client where there is one (its workers must see
    this machine's temporary folder), else in threads of this process.

    Parameters
    ----------
    zones : GeoDataFrame or path
        Polygons in any CRS; a path takes any vector file or GeoParquet.
    raster : str, path, or sequence of them
        A catalog source (``"aef_annual"``, which needs `year`), or GeoTIFFs: every
        band, with its scale, offset and nodata.
    stats : sequence of str, or comma list
        Some of mean, std (population), min, max, sum, count.
    coverage : {"fractional", "center"}
        Weight pixels by the exact area inside the zone, or count pixel centres.
    year : int, optional
        One year: of the tiles, or a label for files.
    zone_id : str, optional
        Id column of zones from a path; of a frame, its rows are the zones.
    **settings
        Other fields of `Settings`, such as ``mirror``, ``bbox`` or ``engine``.

    Returns
    -------
    GeoDataFrame
        Of a frame: its rows, index, order and columns, and after them
        `pixel_count` (sum of coverage over valid pixels), `valid_fraction`,
        `tile_count` and ``{band}_{stat}``. Statistics are missing where no
        valid pixel is covered. Of a path: the table as `zonal run --keep-water` writes it.

    Raises
    ------
    UsageError, InputError, StoreError
        As the command line does.
    """
    rasters = [raster] if isinstance(raster, str | Path) else list(raster)
    frame = None
    words: dict[str, Any] = {
        "raster": [str(path) for path in rasters],
        "stats": stats,
        "coverage": coverage,
        "year": year or (),
        "keep_water": True,
        **settings,
    }
    for name in ("output", "state"):
        if name in settings:
            raise UsageError(f"zonal_stats has no use for {name!r}; zonal.run has")
    if isinstance(zones, gpd.GeoDataFrame):
        if zone_id is not None:
            raise UsageError("zone_id goes with zones from a path; the rows of a frame are its zones")
        frame = gpd.GeoDataFrame({ZONE: range(len(zones))}, geometry=zones.geometry.array, crs=zones.crs)
        words["zone_id"] = ZONE
    else:
        words |= {"zones": str(zones), "zone_id": zone_id}
    with tempfile.TemporaryDirectory(prefix="zonal-") as scratch:
        try:
            made = Settings(output=f"{scratch}/out", **words)
        except ValidationError as error:
            raise settings_error(error) from None
        if len(made.year) > 1:
            raise UsageError("zonal_stats takes one year at a time")
        with place_of(made, preload=PRELOAD, in_process=True) as runner:
            (result,) = engine.run(made, runner=runner, frame=frame)
        table = gpd.read_parquet(result.table)
    if not isinstance(zones, gpd.GeoDataFrame):
        return table
    # Zones that a filter such as bbox left out have missing values, as rows of a join without a match.
    added = table.set_index(ZONE).reindex(range(len(zones)))
    added = added.drop(columns=["geometry", "bbox", "year"], errors="ignore")
    clash = [name for name in added.columns if name in zones.columns]
    if clash:
        raise UsageError(f"the zones have a column {clash[0]!r} already; rename it")
    return gpd.GeoDataFrame(pd.concat([zones, added.set_axis(zones.index)], axis=1))
