"""A year's plan, made on the driver of staged zones, tiles and their headers, and what it costs.

Composes inputs, stage and units; reads headers where asked, and never a pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from zonal.config.settings import Settings
from zonal.io.raster.raster import Raster
from zonal.io.store.ranges import FileStat
from zonal.planning import units
from zonal.planning.inputs import RasterInput
from zonal.planning.stage import Stage
from zonal.planning.tiles import Tile
from zonal.planning.units import Plan
from zonal.text import human

Opened = tuple[Tile, FileStat, Raster]
"""A tile with its file's own grid, the file's size and version, and the file."""


@dataclass(frozen=True, slots=True)
class Costs:
    """What a plan costs, in words that a person can weigh; ``str()`` is what `zonal plan` prints.

    Parameters
    ----------
    zones_read, zones : int
        Zones in the files, and zones to summarise.
    dropped : dict of str to int
        Zones left out, by reason.
    tiles, chunks, units, parts : int
    bytes_to_fetch, bytes_of_whole_files : int or None
        None where neither the catalog nor headers tell.
    exact : bool
        Whether the bytes are from the files' headers rather than an estimate.
    memory : int
        Bytes of decoded and compressed chunks that a worker thread holds at most.
    """

    zones_read: int
    zones: int
    dropped: dict[str, int]
    tiles: int
    chunks: int
    units: int
    parts: int
    bytes_to_fetch: int | None
    bytes_of_whole_files: int | None
    exact: bool
    memory: int

    def __str__(self) -> str:
        about = "" if self.exact else "about "
        lines = [("zones in the files", f"{self.zones_read:,}")]
        lines += [(f"  dropped, {reason}", f"{count:,}") for reason, count in self.dropped.items()]
        lines += [
            ("zones to summarise", f"{self.zones:,}"),
            ("tiles", f"{self.tiles:,}"),
            ("chunks", f"{self.chunks:,}"),
        ]
        if self.bytes_to_fetch is not None:
            lines.append(("to fetch", about + human(self.bytes_to_fetch)))
        if self.bytes_of_whole_files is not None:
            lines.append(("whole files", about + human(self.bytes_of_whole_files)))
        lines += [
            ("units", f"{self.units:,}"),
            ("parts", f"{self.parts:,}"),
            ("memory a worker thread", f"about {human(self.memory)}"),
        ]
        wide = max(len(name) for name, _ in lines)
        return "\n".join(f"{name:<{wide}}  {value:>14}" for name, value in lines)


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
    plan = _make(settings, staged, year, tiles)
    if not tiles or not headers:
        return plan, [], []
    opened = raster.open_all(plan.tiles, allow_missing=settings.allow_missing)
    missing = sorted({tile.path for tile in plan.tiles} - {tile.path for tile, _, _ in opened})
    by_path = {tile.path: (tile, stat, file) for tile, stat, file in opened}
    own_grids = [tile for tile, _, _ in opened]
    # Other chunks or another row direction than the catalog says, or tiles that are missing.
    if own_grids != list(plan.tiles):
        plan = _make(settings, staged, year, own_grids)
    return plan, [by_path[tile.path] for tile in plan.tiles], missing


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


def costs(raster: RasterInput, staged: Stage, plan: Plan, opened: Sequence[Opened]) -> Costs:
    """Weigh a plan: exact bytes with `opened`, else from the catalog's bytes a chunk."""
    source = raster.source
    guess = source.chunk_bytes if source else None
    fetch = None if guess is None else guess * plan.chunks
    whole = None if guess is None else guess * plan.chunks_of_whole_files
    if opened:
        rasters = [file for _, _, file in opened]
        fetch = sum(rasters[unit.tile].chunk_bytes(chunk) for unit in plan.units for chunk in unit.chunks)
        whole = sum(stat.size for _, stat, _ in opened)
    itemsize = 1 if raster.reader.rule == "aef" else 8
    pixels = max((t.grid.chunk_width * t.grid.chunk_height for t in plan.tiles), default=0)
    decoded = pixels * len(raster.reader.bands) * itemsize
    return Costs(
        zones_read=staged.report["read"],
        zones=plan.zones,
        dropped={k: v for k, v in staged.report["dropped"].items() if v},
        tiles=len(plan.tiles),
        chunks=plan.chunks,
        units=len(plan.units),
        parts=len(plan.parts),
        bytes_to_fetch=fetch,
        bytes_of_whole_files=whole,
        exact=bool(opened),
        memory=2 * (decoded + (guess or decoded)),
    )
