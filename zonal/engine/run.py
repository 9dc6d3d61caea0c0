"""One run from start to manifest: stage, plan, submit, gather, publish.

Knows the order of things and what is worth telling; leaves numbers, bytes and
clusters to those that know them. Whatever fails leaves nothing published.
"""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from typing import Any

import geopandas as gpd

from zonal.cluster.runner import Runner
from zonal.config.catalog import Catalog
from zonal.config.settings import Settings
from zonal.engine.fingerprint import digest, fingerprint
from zonal.engine.manifest import about, figures
from zonal.engine.output import Output, folder_of, outputs
from zonal.engine.request import Request
from zonal.engine.rounds import gather
from zonal.engine.work import Job, PartReport, UnitReport, look
from zonal.errors import InputError, ZonalError, first_line
from zonal.events import RUN_ID, Event, Notify, labelled, quiet, telling, timed
from zonal.io.store.folder import Folder
from zonal.io.store.lock import Lock
from zonal.io.table.names import DATASET, TABLE, WORK, part_name
from zonal.io.table.table import covered_zones
from zonal.planning.costs import Costs, Opened, costs, plan_year
from zonal.planning.inputs import absolute
from zonal.planning.stage import Stage
from zonal.planning.units import Plan


@dataclass(frozen=True)
class Result:
    """A finished run.

    Parameters
    ----------
    output : str
        Its folder.
    table : str
        Path or URL of the table: a file, or the folder of a dataset.
    manifest : dict
        As written to manifest.json.
    fresh : bool
        False where the output was already complete and nothing was done.
    files : mapping of str to tuple of str
        Paths or URLs of what each further step made: `pca`, `evaluate`, `report`.
    """

    output: str
    table: str
    manifest: dict[str, Any] = field(repr=False)
    fresh: bool
    files: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def run(
    settings: Settings,
    *,
    runner: Runner,
    fresh: bool = False,
    notify: Notify = quiet,
    frame: gpd.GeoDataFrame | None = None,
    catalog: Catalog | None = None,
    places: Mapping[int | None, Output] | None = None,
) -> list[Result]:
    """Make the table of a workflow: its first step.

    Parameters
    ----------
    settings : Settings
    runner : Runner
        Where tasks run.
    fresh : bool
        Replace what the output holds, instead of resuming it or refusing.
    notify : callable
        Told of every `Event`.
    frame : GeoDataFrame, optional
        Zones, in place of `settings.zones`.
    catalog : Catalog, optional
        As the settings name it, if it is loaded already.
    places : mapping of year to Output, optional
        `outputs` of the same settings, if they are known already.

    Returns
    -------
    list of Result
        One for each year.

    Raises
    ------
    ZonalError
        One of its kinds, with the exit code of the command line.
    """
    catalog = catalog or catalog_of(settings)
    places = places or outputs(settings, catalog)
    request = Request.of(settings, catalog, frame)
    years = request.years
    key = request.stage_key()
    if not fresh:
        manifests = [request.complete(year, output, key) for year, output in places.items()]
        if all(manifests):
            pairs = zip(places.values(), manifests, strict=True)
            return [_result(output, manifest, fresh=False) for output, manifest in pairs if manifest]
    results = []
    with ExitStack() as stack:
        # The years share one stage: beside their outputs, or inside the only one.
        home = places[years[0]]
        if len(years) > 1:
            home = Output(folder_of(settings, catalog, "stage"))
        locks = {
            url: stack.enter_context(output.locked(fresh=fresh, tell=telling(notify)))
            for url, output in {o.folder.url: o for o in (home, *places.values())}.items()
        }
        seconds: dict[str, float] = {}
        with timed("staging", seconds, notify):
            staged = request.stage(home.folder.sub(WORK).sub(f"stage-{key[:16]}"), key, telling(notify))
            _tell_zones(staged, notify)
        for year, output in places.items():
            with labelled(notify, year=year) as notify_year:
                lock = locks[output.folder.url]
                task = _Year(request, year, output, lock, staged, notify_year, dict(seconds))
                results.append(task.run(runner, fresh=fresh))
    return results


def plan(
    settings: Settings,
    *,
    headers: bool = False,
    notify: Notify = quiet,
    frame: gpd.GeoDataFrame | None = None,
) -> dict[int | None, Costs]:
    """Plan a workflow without reading a pixel.

    Parameters
    ----------
    settings : Settings
    headers : bool
        Read the tiles' headers, for exact bytes.
    notify, frame
        As for `run`.

    Returns
    -------
    dict of year to Costs
    """
    by_year: dict[int | None, Costs] = {}
    with (
        labelled(notify, **settings.labels) as notify,
        tempfile.TemporaryDirectory(prefix="zonal-plan-") as scratch,
    ):
        request = Request.of(settings, catalog_of(settings), frame)
        staged = request.stage(Folder(scratch), request.stage_key(), telling(notify))
        for year in request.years:
            with labelled(notify, year=year) as notify_year:
                made, opened, missing = plan_year(settings, request.raster, staged, year, headers=headers)
                for sentence in _lacking(missing):
                    notify_year(Event("warning", sentence))
                by_year[year] = costs(request.raster, staged, made, opened)
    return by_year


def catalog_of(settings: Settings) -> Catalog:
    """Load the catalog that the settings name."""
    return Catalog.load(settings.catalog, settings.mirror, settings.storage_options)


def finished(places: Mapping[int | None, Output]) -> list[Result]:
    """Return the finished tables in a workflow's outputs, whatever they were made from.

    Raises
    ------
    InputError
        If an output holds none.
    """
    results = []
    for output in places.values():
        manifest = output.manifest()
        if manifest is None:
            raise InputError(f"{output.folder.shown()}: no finished table here; the step 'stats' makes it")
        results.append(_result(output, manifest, fresh=False))
    return results


def _tell_zones(staged: Stage, notify: Notify) -> None:
    report = staged.report
    kept, read = int(staged.row_groups.bounds[-1]), report["read"]
    notify(Event("info", f"{kept:,} of {read:,} zones kept", {"zones": kept, "read": read}))
    for reason, count in report["dropped"].items():
        if count:
            notify(Event("info", f"{count:,} zones dropped: {reason}", {"reason": reason, "dropped": count}))
    for what in ("repaired", "empty"):
        if report[what]:
            notify(Event("warning", f"{report[what]:,} zones {what}", {what: report[what]}))


def _result(output: Output, manifest: dict[str, Any], *, fresh: bool) -> Result:
    return Result(output.folder.shown(), output.folder.shown(manifest["table"]), manifest, fresh)


@dataclass(frozen=True)
class _Planned:
    """What a year's run will do, on the files' own headers."""

    plan: Plan
    opened: Sequence[Opened]
    missing: Sequence[str]
    costs: Costs
    fingerprint: dict[str, Any]

    @property
    def header_bytes(self) -> int:
        """Read to open the tiles."""
        return sum(raster.header_bytes for _, _, raster in self.opened)


@dataclass(frozen=True)
class _Year:
    """One year into one folder; what must outlive it is on the store."""

    request: Request
    year: int | None
    output: Output
    lock: Lock
    staged: Stage
    notify: Notify
    seconds: dict[str, float]

    def run(self, runner: Runner, *, fresh: bool) -> Result:
        """Plan, run what is missing, publish; or return what the output holds already."""
        planned = self._plan()
        manifest = None if fresh else self.output.finished(planned.fingerprint)
        if manifest is not None:
            return _result(self.output, manifest, fresh=False)
        with timed("waiting", self.seconds, self.notify):
            self.notify(Event("info", runner.described))
        parts = self.output.begin(planned.fingerprint, planned.plan, self.lock, fresh=fresh)
        job = self._job(planned, parts)
        with timed("computing", self.seconds, self.notify):
            reports = self._compute(planned, job, runner)
        with timed("publishing", self.seconds, self.notify):
            zones, files = self._assemble(planned, job)
        manifest = {
            **self._described(planned),
            "table": TABLE if files == [TABLE] else DATASET,
            "files": files,
            **figures(
                *(self.staged, planned.plan, zones, planned.costs, planned.header_bytes),
                *(reports, self.seconds),
            ),
        }
        self.output.commit(manifest, parts, self.lock)
        for sentence in _warnings(manifest["zones"], planned.missing):
            self.notify(Event("warning", sentence))
        return _result(self.output, manifest, fresh=True)

    def _plan(self) -> _Planned:
        """Plan on the files' own headers; InputError if no tile covers a zone."""
        settings, raster = self.request.settings, self.request.raster
        with timed("planning", self.seconds, self.notify):
            plan, opened, missing = plan_year(settings, raster, self.staged, self.year, headers=True)
            weighed = costs(raster, self.staged, plan, opened)
        if not plan.units:
            of_year = f" of {self.year}" if self.year else ""
            raise InputError(f"no tile{of_year} in {raster.name} covers any of the {plan.zones:,} zones")
        tiles = {
            tile.path: {"bounds": list(tile.grid.bounds), "crs": tile.grid.crs, **asdict(stat)}
            for tile, stat, _ in opened
        }
        zones = self.staged.hash_of(self.year)
        identity = fingerprint(settings, self.year, self.request.reading, zones, tiles)
        return _Planned(plan, opened, missing, weighed, identity)

    def _compute(self, planned: _Planned, job: Job, runner: Runner) -> list[UnitReport | PartReport]:
        """Have all parts written that are not there yet."""
        _probe(runner, job)
        headers = [raster.header for _, _, raster in planned.opened]
        name = f"{digest(planned.fingerprint)[:8]}-{uuid.uuid4().hex[:8]}"  # other runs may share the cluster
        to_fetch = planned.costs.bytes_to_fetch
        return gather(runner, planned.plan, job, headers, name, to_fetch, self.notify, self.lock.check)

    def _assemble(self, planned: _Planned, job: Job) -> tuple[dict[str, int], list[str]]:
        """Make the table of the parts: its zones by fate, and the names that its files will have."""
        plan, parts = planned.plan, job.parts
        zones = covered_zones(parts, [part_name(part.number) for part in plan.parts])
        if not zones["covered"]:
            self.output.abandon()
            raise InputError(
                f"none of the {plan.zones:,} zones covers a valid pixel of {self.request.raster.name}"
            )
        return zones, self.output.assemble(plan, self.staged, parts, job.columns, job.about)

    def _job(self, planned: _Planned, parts: Folder) -> Job:
        settings, raster = self.request.settings, self.request.raster
        return Job(
            stage=replace(self.staged, folder=_everywhere(self.staged.folder)),
            parts=_everywhere(parts),
            reader=raster.reader,
            tiles=planned.plan.tiles,
            urls=tuple(raster.url(tile.path) for tile in planned.plan.tiles),
            columns=self.request.columns,
            coverage=settings.coverage,
            engine=settings.engine,
            year=self.year,
            about=about(settings, self.year, self.staged.zone_id, self.request.zones.source, raster.source),
            stats=tuple(stat for _, stat, _ in planned.opened),
        )

    def _described(self, planned: _Planned) -> dict[str, Any]:
        """Say what ran on what: the first half of the manifest."""
        raster = self.request.raster
        index = {"url": raster.index_name, **asdict(raster.index_stat)} if raster.index_stat else None
        return {
            "zonal_version": version("zonal"),
            "run": RUN_ID,
            "settings": self.request.settings.public() | {"year": self.year},
            "fingerprint": digest(planned.fingerprint),
            "fingerprint_of": planned.fingerprint,
            "stage_key": self.staged.key,
            "inputs": {
                "zones": self.staged.report["files"],
                "index": index,
                "tiles": [{"path": tile.path, **asdict(stat)} for tile, stat, _ in planned.opened],
                "missing_tiles": planned.missing,
                "coordinate_operations": self.staged.report["operations"],
            },
        }


def _everywhere(folder: Folder) -> Folder:
    """Name a folder so that a worker in another working directory finds it."""
    return replace(folder, url=absolute(folder.url))


def _warnings(zones: dict[str, Any], missing: Sequence[str]) -> Iterator[str]:
    yield from _lacking(missing)
    if zones["outside_tiles"]:
        yield f"{zones['outside_tiles']:,} zones lie outside every tile: their statistics are null"
    if zones["without_pixels"]:
        yield f"{zones['without_pixels']:,} zones have no valid pixel: their statistics are null"


def _lacking(missing: Sequence[str]) -> Iterator[str]:
    if missing:
        one = len(missing) == 1
        tiles = (
            f"{len(missing):,} {'tile that the index lists is' if one else 'tiles that the index lists are'}"
        )
        yield f"{tiles} missing ({missing[0]}{'' if one else ', ...'}): left out"


def _probe(runner: Runner, job: Job) -> None:
    """Find workers that cannot do the work, before any is done."""
    for name, problem in runner.everywhere(look, job).items():
        if isinstance(problem, ZonalError):
            raise type(problem)(f"worker {name}: {problem}")
        if isinstance(problem, OSError):  # it ended meanwhile: others do the work
            continue
        if problem is not None:
            raise InputError(
                f"worker {name} cannot run zonal's tasks ({type(problem).__name__}: {first_line(problem)}); "
                "install there what the driver has"
            )
