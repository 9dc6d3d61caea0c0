"""What one worker does: reduce a unit of chunks to moments, finish a part of zones.

Composes io and stats; knows no Dask and no cluster. Both functions take plain
values and give plain values, whoever calls them and however often.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt
import pyproj
import shapely

from zonal.credentials import hide
from zonal.errors import InputError, ZonalError
from zonal.geo.antimeridian import Geometries
from zonal.geo.grid import Bounds, Grid
from zonal.geo.pieces import Pieces, areas
from zonal.io.raster.raster import Pixels, Raster, Stored
from zonal.io.raster.reader import Reader
from zonal.io.store.folder import Folder
from zonal.io.store.ranges import FileStat
from zonal.io.table.names import part_name
from zonal.io.table.table import AREA, TableColumns, part_table, write_part
from zonal.planning.stage import STAGE, Stage
from zonal.planning.tiles import Tile
from zonal.planning.units import HAIR, Part, Unit

if TYPE_CHECKING:
    from zonal.stats.coverage import Coverage, Engine, Rule
    from zonal.stats.moments import Moments, Statistics

P = ParamSpec("P")
T = TypeVar("T")


class Scratch(threading.local):
    """Pixels that a thread needs no more, for its next unit to write over; stay behind when pickled."""

    pixels: Pixels | None = None

    def __reduce__(self) -> tuple[type[Scratch], tuple[()]]:
        return Scratch, ()


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
        Where each tile is read (after any mirror); never printed.
    columns : TableColumns
    coverage, engine : str
        Rule and provider of the coverage.
    year : int or None
    about : dict
        Metadata of every file written.
    stats : tuple of FileStat
        Size and version of each tile when the run was planned; empty to take the files as they are.
    scratch : Scratch
        Memory that units of one worker thread share.
    """

    stage: Stage
    parts: Folder
    reader: Reader
    tiles: tuple[Tile, ...]
    urls: tuple[str, ...] = field(repr=False)
    columns: TableColumns
    coverage: Rule
    engine: Engine
    year: int | None
    about: dict[str, Any]
    stats: tuple[FileStat, ...] = ()
    scratch: Scratch = field(default_factory=Scratch, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class UnitReport:
    """What a unit did.

    Parameters
    ----------
    number, chunks : int
    fetched, staged : int
        Bytes that its chunks took (each counted once, wherever it came from), and those read of the stage.
    retries, cached : int
        Requests that were sent again, and bytes that came from the cache.
    seconds : float
    """

    number: int
    chunks: int
    fetched: int
    staged: int
    retries: int
    cached: int
    seconds: float


@dataclass(frozen=True, slots=True)
class UnitFailure:
    """A unit whose bytes the store did not give: why, and which Dask worker asked for them."""

    number: int
    error: ZonalError
    worker: str


@dataclass(frozen=True, slots=True)
class PartReport:
    """What a part did: the zones it wrote, its seconds."""

    number: int
    zones: int
    seconds: float


def _guarded(function: Callable[Concatenate[Job, P], T]) -> Callable[Concatenate[Job, P], T]:
    """Take the credentials out of errors that nobody foresaw: whoever runs a task logs how it failed."""

    @wraps(function)
    def guarded(job: Job, /, *arguments: P.args, **named: P.kwargs) -> T:
        try:
            return function(job, *arguments, **named)
        except ZonalError:
            raise
        except Exception as error:
            text = f"{type(error).__name__}: {error}"
            shown = hide(text, job.reader.options, job.parts.options)
            # Dask's client waits for ever for an error whose traceback is too deep to be pickled.
            deep = isinstance(error, RecursionError)
            if shown == text and not deep:
                raise
            trace = None if deep else error.__traceback__
        raise RuntimeError(shown).with_traceback(trace)

    return guarded


@contextmanager
def _decoded(
    raster: Raster, chunks: Sequence[int], scratch: Scratch, then: Callable[[], None] | None = None
) -> Iterator[Iterator[tuple[int, Pixels]]]:
    """Begin to fetch chunks, and decode them as they are asked for.

    Memory: the pixels of one chunk, and the stored bytes of two that came over a network.

    Parameters
    ----------
    raster : Raster
    chunks : sequence of int
        At least one.
    scratch : Scratch
        Of the run.
    then : callable, optional
        Called while the last chunk is decoded; what it raises is raised after that chunk.

    Yields
    ------
    iterator of (int, Pixels)
        For each chunk the bytes read for it, and its pixels: those of the one before are written over.
    """
    ahead = ThreadPoolExecutor(1, "zonal-ahead")
    try:

        def follow(coming: Future[Any]) -> Iterator[tuple[int, Pixels]]:
            for after in (*chunks[1:], None):
                stored: Stored = coming.result()
                if after is not None:
                    coming = ahead.submit(raster.fetch, after)
                elif then is not None:
                    coming = ahead.submit(then)
                scratch.pixels = raster.decode(stored, scratch.pixels)
                yield stored.nbytes, scratch.pixels
            coming.result()

        yield follow(ahead.submit(raster.fetch, chunks[0]))
    finally:  # not waited for when this thread fails or is interrupted
        ahead.shutdown(wait=False, cancel_futures=True)


@_guarded
def run_unit(
    job: Job, unit: Unit, zones: Sequence[tuple[int, int]], header: Any = None
) -> tuple[UnitReport, list[list[Moments]]]:
    """Fetch, decode and reduce the chunks of a unit.

    Parameters
    ----------
    job : Job
    unit : Unit
    zones : sequence of (start, stop)
        Zones of each part that the unit serves, in the order of `unit.parts`.
    header : optional
        Of the unit's tile, as `Raster.header` gave it to the driver.

    Returns
    -------
    (UnitReport, list of list of Moments)
        One list for each part, so that a part is not held up by its neighbours'
        moments: those of each chunk that holds some of its zones.
    """
    # The driver names tasks and runs none: it need not load the compiler.
    from zonal.stats.coverage import cover
    from zonal.stats.moments import EXTREMES, accumulate

    started = time.perf_counter()
    tile, url = job.tiles[unit.tile], job.urls[unit.tile]
    stat = job.stats[unit.tile] if job.stats else None
    raster = job.reader.open(url, stat, header)
    before = replace(raster.counters)
    if raster.grid != tile.grid:
        raise InputError(
            f"tile {raster.name}: its header is not the one the plan was made from; was it replaced?"
        )
    grids = [tile.grid.chunk(chunk) for chunk in unit.chunks]
    unchanged = partial(job.reader.check_unchanged, url, raster.stat)
    by_chunk: list[Moments] = []
    fetched = 0
    try:
        with _decoded(raster, unit.chunks, job.scratch, unchanged) as coming:
            pieces, numbers, staged = _pieces(job, unit, _around(grids))
            bounds = shapely.bounds(pieces.geometry)
            for chunk, grid, (nbytes, pixels) in zip(unit.chunks, grids, coming, strict=True):
                fetched += nbytes
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
                by_chunk.append(moments)
    except ZonalError:
        job.reader.blame_replacement(url, raster.stat)
        raise
    # Not joined yet: to copy them all once more would only make the last part wait.
    served = [[some for of_chunk in by_chunk if len(some := of_chunk.of_zones(*run))] for run in zones]
    report = UnitReport(
        unit.number,
        len(unit.chunks),
        fetched,
        staged,
        raster.counters.retries - before.retries,
        raster.counters.cached - before.cached,
        time.perf_counter() - started,
    )
    return report, served


def _pieces(job: Job, unit: Unit, bounds: Bounds) -> tuple[Pieces, npt.NDArray[np.int64], int]:
    """Read the pieces that a unit may need, cut to the ground that its tile owns."""
    tile = job.tiles[unit.tile]
    pieces, numbers, staged = job.stage.pieces(
        unit.row_groups, epsg=tile.epsg, year=job.year or 0, bounds=bounds
    )
    if tile.ground is not None:
        clipped = areas(shapely.intersection(areas(pieces.geometry), tile.owned))
        owned = shapely.area(clipped) > 0
        pieces = Pieces(pieces.zone[owned], pieces.epsg[owned], clipped[owned])
        numbers = numbers[owned]
    return pieces, numbers, staged


@_guarded
def finish_part(job: Job, part: Part, shares: Sequence[Sequence[Moments]]) -> PartReport:
    """Merge the moments of a part's zones, finish their statistics and write the part.

    The order of `shares`, one from each unit, does not matter: moments merge by their keys.
    """
    from zonal.stats.moments import concat, nothing

    started = time.perf_counter()
    start, stop = part.zones
    given = [moments for share in shares for moments in share]
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
    write_part(
        job.parts,
        part_name(part.number),
        table,
        pyproj.CRS(job.stage.crs),
        job.about,
        published=job.stage.partitioned,
    )
    return PartReport(part.number, stop - start, time.perf_counter() - started)


def look(job: Job) -> ZonalError | None:
    """Find out what a worker lacks for its tasks: the run's output, the tiles.

    Returns
    -------
    ZonalError or None
        What is wrong, of the kind that the run should end with.
    """
    try:
        if not job.stage.folder.exists(STAGE):
            return InputError(
                f"it does not see {job.stage.folder.shown()}; choose an --output that every worker reaches"
            )
        probe = f".probe-{uuid.uuid4().hex}"
        job.parts.write(probe, b"")
        job.parts.remove(probe)
        for url, stat in zip(job.urls[:1], job.stats, strict=False):
            job.reader.check_unchanged(url, stat)
    except ZonalError as error:
        return error
    return None


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
