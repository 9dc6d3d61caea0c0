"""Planning a year on the driver: staged zones, tiles and their headers -> plan and costs.

Composes inputs, stage and plan; reads headers where asked, and never a pixel.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from zonal.config.settings import Settings
from zonal.io.raster.raster import Raster
from zonal.io.store.ranges import Stat
from zonal.planning import units
from zonal.planning.inputs import RasterInput
from zonal.planning.stage import Stage
from zonal.planning.tiles import Tile
from zonal.planning.units import Costs, Plan

Opened = tuple[Tile, Stat, Raster]
"""A tile with its file's own grid, the file's size and version, and the file."""


def plan_year(
    settings: Settings, raster: RasterInput, staged: Stage, year: int | None, *, headers: bool
) -> tuple[Plan, list[Opened], list[str]]:
    """Plan a year; with `headers`, on the files' own grids.

    Returns
    -------
    (Plan, list of Opened, list of str)
        With `headers` the tiles as they were opened, and the paths of those that the index lists and the
        store lacks, where the settings allow to leave them out.
    """
    boxes = np.array(staged.report["boxes"], float).reshape(-1, 4)
    tiles = raster.near(year, boxes)
    if not tiles:
        return _make(settings, staged, year, tiles), [], []
    made = _make(settings, staged, year, tiles)
    if not headers:
        return made, [], []
    opened = raster.open_all(made.tiles, allow_missing=settings.allow_missing)
    missing = sorted({tile.path for tile in made.tiles} - {tile.path for tile, _, _ in opened})
    by_path = {tile.path: (tile, stat, file) for tile, stat, file in opened}
    own_grids = [tile for tile, _, _ in opened]
    # Other chunks or another row direction than the catalog says, or tiles that are missing.
    if own_grids != list(made.tiles):
        made = _make(settings, staged, year, own_grids)
    return made, [by_path[tile.path] for tile in made.tiles], missing


def _make(settings: Settings, staged: Stage, year: int | None, tiles: Sequence[Tile]) -> Plan:
    touched = [
        units.touches(staged.outlines(batch, year or 0), tiles) for batch in range(len(staged.batches))
    ]
    return units.make(
        staged.row_groups,
        units.join(touched),
        tiles,
        part_zones=settings.part_zones,
        part_chunks=settings.part_chunks,
        unit_chunks=settings.unit_chunks,
    )


def costs(raster: RasterInput, staged: Stage, made: Plan, opened: Sequence[Opened]) -> Costs:
    """Weigh a plan: exact bytes with `opened`, else from the catalog's bytes a chunk."""
    source = raster.source
    guess = source.chunk_bytes if source else None
    fetch = None if guess is None else guess * made.chunks
    whole = None if guess is None else guess * made.chunks_of_whole_files
    if opened:
        rasters = [file for _, _, file in opened]
        fetch = sum(rasters[unit.tile].chunk_bytes(chunk) for unit in made.units for chunk in unit.chunks)
        whole = sum(stat.size for _, stat, _ in opened)
    itemsize = 1 if raster.reader.rule == "aef" else 8
    pixels = max((t.grid.chunk_width * t.grid.chunk_height for t in made.tiles), default=0)
    decoded = pixels * len(raster.reader.bands) * itemsize
    return Costs(
        zones_read=staged.report["read"],
        zones=made.zones,
        dropped={k: v for k, v in staged.report["dropped"].items() if v},
        tiles=len(made.tiles),
        chunks=made.chunks,
        units=len(made.units),
        parts=len(made.parts),
        bytes_to_fetch=fetch,
        bytes_of_whole_files=whole,
        exact=bool(opened),
        memory=2 * (decoded + (guess or decoded)),
    )
