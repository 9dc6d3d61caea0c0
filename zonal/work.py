"""What one worker does: reduce a unit of chunks to moments, finish a part of zones.

Composes io and stats; knows no Dask and no cluster. Both functions take plain
values and give plain values, whoever calls them and however often.
"""

from __future__ import annotations

import pickle
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyproj
import shapely

from zonal.errors import InputError
from zonal.grid import Bounds, Grid
from zonal.io.folder import Folder
from zonal.io.ranges import Blob
from zonal.io.raster import DecodeRule, Raster, Stat
from zonal.io.stage import AREA, Stage
from zonal.io.table import Columns, part_table, write_part
from zonal.pieces import Geometries, Pieces, areas
from zonal.stats.coverage import Coverage, Engine, Rule, cover
from zonal.stats.moments import EXTREMES, Moments, Statistics, accumulate, concat, nothing
from zonal.tiles import Tile
from zonal.units import HAIR, Part, Unit

Driver = Literal["cog", "rasterio"]


@dataclass(frozen=True)
class Reader:
    """How tiles are opened: the same on the driver and on every worker.

    Parameters
    ----------
    driver : {"cog", "rasterio"}
    rule : {"aef", "linear"}
        Decode rule of the source.
    bands : tuple of str
        Bands that every tile must have; empty for whatever the first one has.
    options : mapping
        fsspec storage options; never printed.
    nodata : float or None
        Stored value that every tile must state as nodata; None for whatever it states.
    """

    driver: Driver
    rule: DecodeRule
    bands: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    nodata: float | None = None

    def open(self, url: str, stat: Stat | None = None) -> Raster:
        """Open a tile; its header is read once a process, and anew when the file is another.

        Parameters
        ----------
        url : str
        stat : Stat, optional
            Size and version that the file should have; None asks the store for what it has now.

        Raises
        ------
        InputError
            If the file has other bands or another nodata than the source, or is not the one that
            `stat` tells of.
        """
        stat = stat or Blob(url, self.options).stat()
        with _opening(url):
            raster = _open(self.driver, self.rule, url, pickle.dumps(dict(self.options)), stat)
        if raster.stat != stat:
            raise InputError(
                f"tile {raster.name}: it is not the file (size, version) that the plan was made from; "
                "was it replaced?"
            )
        self.check(raster)
        return raster

    def check(self, raster: Raster) -> None:
        """Raise InputError if a tile has other bands or another nodata than the source."""
        if self.bands and raster.bands != self.bands:
            raise InputError(
                f"tile {raster.name}: {_named(raster.bands)}, expected {_named(self.bands)}; "
                "is it of another product?"
            )
        if self.nodata is not None:
            _check_nodata(raster, self.nodata)


@lru_cache(maxsize=1024)
def _opening(url: str) -> threading.Lock:
    """Threads that need the same tile wait for the first to read its header, and for no other tile's."""
    return threading.Lock()


@lru_cache(maxsize=64)
def _open(driver: Driver, rule: DecodeRule, url: str, options: bytes, stat: Stat) -> Raster:
    # `stat` is only a part of the key: a file that was replaced is another file.
    # Imported here, so that a worker that reads chunks does not load GDAL, nor the other way round.
    if driver == "cog":
        from zonal.io.cog import Cog

        return Cog.open(url, pickle.loads(options), rule=rule)
    from zonal.io.gdal import GdalRaster

    return GdalRaster.open(url, pickle.loads(options))


def _check_nodata(raster: Raster, expected: float) -> None:
    for band, stated in zip(raster.bands, raster.nodata, strict=True):
        if stated is None and raster.rule == "aef":
            continue  # the rule itself says what nodata is
        # A float32 file states the catalog's decimal number as the nearest float32.
        if stated is None or not np.isclose(stated, expected, rtol=1e-6, atol=0, equal_nan=True):
            said = "no nodata" if stated is None else f"nodata {stated:g}"
            raise InputError(
                f"tile {raster.name}: band {band} states {said}, the catalog says {expected:g}; "
                "correct the one that is wrong"
            )


def _named(bands: Sequence[str]) -> str:
    return (
        f"{len(bands)} bands ({bands[0]}..{bands[-1]})" if len(bands) > 1 else f"1 band ({', '.join(bands)})"
    )


def located(tile: Tile, raster: Raster) -> Tile:
    """Return the tile with the grid that its file states.

    Raises
    ------
    InputError
        If the file lies elsewhere than the index says, or has other pixels.
    """
    said, found = tile.grid, raster.grid
    hair = 1e-6 * said.dx
    same = (
        found.crs == said.crs
        and (found.width, found.height) == (said.width, said.height)
        and np.allclose((found.dx, abs(found.dy)), (said.dx, abs(said.dy)), rtol=0, atol=1e-9 * said.dx)
        and np.allclose(found.bounds, said.bounds, rtol=0, atol=hair)
    )
    if not same:
        raise InputError(
            f"tile {raster.name}: the file has {_placed(found)}, the index says {_placed(said)}; "
            "the index and the file do not belong together"
        )
    return replace(tile, grid=found)


def _placed(grid: Grid) -> str:
    box = ", ".join(f"{value:.10g}" for value in grid.bounds)
    return f"{grid.width} x {grid.height} px of {grid.dx:g} at {box} in {grid.crs[:40]}"


@dataclass(frozen=True)
class Job:
    """What all tasks of a run share.

    Parameters
    ----------
    stage : Stage
    parts : Folder
        Where finished parts go.
    reader : Reader
    tiles : tuple of Tile
        Of the plan, in its order, with their files' own grids.
    urls : tuple of str
        Where each tile is read (after any mirror).
    columns : Columns
    coverage, engine : str
        Rule and provider of the coverage.
    year : int or None
    about : dict
        Metadata of every file written.
    stats : tuple of Stat
        Size and version of each tile when the run was planned; empty to take the files as they are.
    """

    stage: Stage
    parts: Folder
    reader: Reader
    tiles: tuple[Tile, ...]
    urls: tuple[str, ...]
    columns: Columns
    coverage: Rule
    engine: Engine
    year: int | None
    about: dict[str, Any]
    stats: tuple[Stat, ...] = ()


@dataclass(frozen=True, slots=True)
class UnitReport:
    """What a unit did: its chunks, the bytes it fetched and read of the stage, its seconds."""

    number: int
    chunks: int
    fetched: int
    staged: int
    seconds: float


@dataclass(frozen=True, slots=True)
class PartReport:
    """What a part did: the zones it wrote, its seconds."""

    number: int
    zones: int
    seconds: float


def run_unit(
    job: Job, unit: Unit, zones: Sequence[tuple[int, int]]
) -> tuple[list[Moments | None], UnitReport]:
    """Fetch, decode and reduce the chunks of a unit.

    Parameters
    ----------
    job : Job
    unit : Unit
    zones : sequence of (start, stop)
        Zones of each part that the unit serves, in the order of `unit.parts`.

    Returns
    -------
    (list of Moments or None, UnitReport)
        One value for each part, so that a part is not held up by its
        neighbours' moments; None where the unit found nothing for it.
    """
    started = time.perf_counter()
    tile = job.tiles[unit.tile]
    raster = job.reader.open(job.urls[unit.tile], job.stats[unit.tile] if job.stats else None)
    if raster.grid != tile.grid:
        raise InputError(
            f"tile {raster.name}: its header is not the one the plan was made from; was it replaced?"
        )
    grids = [tile.grid.chunk(chunk) for chunk in unit.chunks]
    pieces, numbers, staged = job.stage.pieces(
        unit.row_groups, epsg=tile.epsg, year=job.year or 0, bounds=_around(grids)
    )
    if tile.ground is not None:
        clipped = areas(shapely.intersection(areas(pieces.geometry), tile.owned))
        owned = shapely.area(clipped) > 0
        pieces = Pieces(pieces.zone[owned], pieces.epsg[owned], clipped[owned])
        numbers = numbers[owned]
    bounds = shapely.bounds(pieces.geometry)
    found: list[Moments] = []
    fetched = 0
    # The next chunk is in flight while this one is decoded and reduced; no more, to bound memory.
    with ThreadPoolExecutor(1) as ahead:
        coming = ahead.submit(raster.fetch, unit.chunks[0])
        for at, (chunk, grid) in enumerate(zip(unit.chunks, grids, strict=True)):
            stored = coming.result()
            if at + 1 < len(unit.chunks):
                coming = ahead.submit(raster.fetch, unit.chunks[at + 1])
            fetched += stored.nbytes
            pixels = raster.decode(stored)
            del stored
            here = _meets(bounds, grid.bounds)
            coverage = cover(pieces.geometry[here], grid, job.coverage, job.engine)
            moments = accumulate(
                pixels.values,
                pixels.valid,
                coverage,
                zone=pieces.zone[here],
                piece=numbers[here],
                tile=unit.tile,
                chunk=chunk,
                extremes=bool(EXTREMES & {*job.columns.stats}),
                kept=_held(pieces.geometry[here], coverage, grid),
            )
            found.append(moments)
    all_moments = concat(found)
    served: list[Moments | None] = []
    for start, stop in zones:
        mine = (all_moments.zone >= start) & (all_moments.zone < stop)
        served.append(all_moments.take(mine) if mine.any() else None)
    seconds = time.perf_counter() - started
    return served, UnitReport(unit.number, len(unit.chunks), fetched, staged, seconds)


def finish_part(job: Job, part: Part, partials: Sequence[Moments | None]) -> PartReport:
    """Merge the moments of a part's zones, finish their statistics and write the part.

    The order of `partials` does not matter: moments merge by their keys.
    """
    started = time.perf_counter()
    start, stop = part.zones
    given = [moments for moments in partials if moments is not None]
    statistics = (
        concat(given).statistics(start, stop, job.columns.stats)
        if given
        else nothing(
            stop - start,
            len(job.columns.bands),
            job.columns.stats,
            by_band=job.reader.rule == "linear",
        )
    )
    zones = job.stage.zones(*part.row_groups)
    table = part_table(
        zones.drop_columns([AREA]),
        job.columns,
        year=job.year,
        pixel_count=statistics.pixel_count,
        valid_fraction=_valid_fraction(statistics, zones[AREA].to_numpy(), job.tiles),
        tile_count=statistics.tile_count,
        statistics=statistics.columns,
        band_count=statistics.band_count,
    )
    write_part(job.parts, part_name(part.number), table, pyproj.CRS(job.stage.crs), job.about)
    return PartReport(part.number, stop - start, time.perf_counter() - started)


def part_name(number: int) -> str:
    """File name of a part."""
    return f"part-{number:05d}.parquet"


def _valid_fraction(
    statistics: Statistics, area: npt.NDArray[np.float64], tiles: Sequence[Tile]
) -> npt.NDArray[np.float64]:
    pixel = tiles[0].grid.pixel_area if tiles else 1.0
    fraction: npt.NDArray[np.float64] = np.full(len(area), np.nan)
    np.divide(statistics.pixel_count * pixel, area, out=fraction, where=area > 0)
    return fraction


def _held(geometry: Geometries, coverage: Coverage, grid: Grid) -> npt.NDArray[np.bool_]:
    """Which pieces the chunk holds some of, were it too little for any pixel (or its centre)."""
    held = coverage.covering
    hair = HAIR * grid.dx
    west, south, east, north = grid.bounds
    box = shapely.box(west + hair, south + hair, east - hair, north - hair)
    held[~held] = shapely.intersects(geometry[~held], box)
    return held


def _around(grids: Sequence[Grid]) -> Bounds:
    west, south, east, north = np.array([grid.bounds for grid in grids]).T
    return float(west.min()), float(south.min()), float(east.max()), float(north.max())


def _meets(bounds: npt.NDArray[np.float64], box: Bounds) -> npt.NDArray[np.bool_]:
    west, south, east, north = box
    return np.asarray(
        (bounds[:, 0] < east) & (bounds[:, 2] > west) & (bounds[:, 1] < north) & (bounds[:, 3] > south)
    )
