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
from pathlib import PurePosixPath
from typing import Any

import geopandas as gpd

from zonal.cluster.connection import place_of
from zonal.cluster.runner import Runner
from zonal.config.catalog import Catalog
from zonal.config.settings import Settings
from zonal.credentials import without_credentials
from zonal.engine.fingerprint import digest, fingerprint
from zonal.engine.manifest import about, figures
from zonal.engine.output import Output
from zonal.engine.request import Request
from zonal.engine.rounds import gather
from zonal.engine.work import Job, look
from zonal.errors import InputError, ZonalError, first_line
from zonal.events import RUN_ID, Event, Notify, labelled, quiet, telling, timed
from zonal.io.store.folder import Folder
from zonal.io.store.lock import Lock
from zonal.io.table.names import DATASET, TABLE, WORK, part_name
from zonal.io.table.table import covered_zones
from zonal.planning.costs import Opened, costs, plan_year
from zonal.planning.inputs import absolute, policy_of
from zonal.planning.stage import Stage
from zonal.planning.units import Costs, Plan


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
    fresh: bool = False,
    notify: Notify = quiet,
    runner: Runner | None = None,
    frame: gpd.GeoDataFrame | None = None,
) -> list[Result]:
    """Make the table of a workflow: its first step.

    Parameters
    ----------
    settings : Settings
    fresh : bool
        Replace what the output holds, instead of resuming it or refusing.
    notify : callable
        Told of every `Event`.
    runner : Runner, optional
        Where tasks run, in place of what `settings.cluster` says.
    frame : GeoDataFrame, optional
        Zones, in place of `settings.zones`.

    Returns
    -------
    list of Result
        One for each year.

    Raises
    ------
    ZonalError
        One of its kinds, with the exit code of the command line.
    """
    inputs = Request.of(settings, frame)
    years = inputs.years
    places = outputs(settings, inputs.catalog)
    key = inputs.stage_key()
    if not fresh:
        done = [inputs.complete(year, output, key) for year, output in places.items()]
        if all(done):
            found = zip(places.values(), done, strict=True)
            return [_result(output, manifest, fresh=False) for output, manifest in found if manifest]
    results = []
    with ExitStack() as stack:
        if runner is None:  # its processes start while zones are staged
            runner = stack.enter_context(place_of(settings, notify))
        # The years share one stage: beside their outputs, or inside the only one.
        home = places[years[0]]
        if len(years) > 1:
            home = Output(_folder(settings, inputs.catalog, "stage"))
        locks = {
            url: stack.enter_context(output.locked(fresh=fresh, tell=telling(notify)))
            for url, output in {o.folder.url: o for o in (home, *places.values())}.items()
        }
        seconds: dict[str, float] = {}
        with timed("staging", seconds, notify):
            staged = inputs.stage(home.folder.sub(WORK).sub(f"stage-{key[:16]}"), key, telling(notify))
            _tell_zones(staged, notify)
        for year, output in places.items():
            with labelled(notify, year=year) as told:
                one = _Run(inputs, year, output, locks[output.folder.url], staged, told, dict(seconds))
                result = one.prepare(fresh=fresh)
                if result is None:
                    with timed("waiting", one.seconds, told):
                        told(Event("info", runner.described))
                    result = one.execute(runner, fresh=fresh)
            results.append(result)
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
    found: dict[int | None, Costs] = {}
    with (
        labelled(notify, **settings.labels) as notify,
        tempfile.TemporaryDirectory(prefix="zonal-plan-") as scratch,
    ):
        inputs = Request.of(settings, frame)
        staged = inputs.stage(Folder(scratch), inputs.stage_key(), telling(notify))
        for year in inputs.years:
            with labelled(notify, year=year) as told:
                made, opened, missing = plan_year(settings, inputs.raster, staged, year, headers=headers)
                for sentence in _lacking(missing):
                    told(Event("warning", sentence))
                found[year] = costs(inputs.raster, staged, made, opened)
    return found


def outputs(settings: Settings, catalog: Catalog) -> dict[int | None, Output]:
    """Where the table of each year goes."""
    return {year: Output(_folder(settings, catalog, str(year))) for year in settings.year or (None,)}


def _folder(settings: Settings, catalog: Catalog, year: str) -> Folder:
    """Fill in what the output's name leaves open; one of several years ends in its year if it leaves none."""
    url = (settings.output or default_output(settings)).rstrip("/") or "/"
    if len(settings.year) > 1 and "{year}" not in url:
        url += "-{year}"
    url = url.replace("{state}", settings.place).replace("{year}", year)
    policy = replace(policy_of(settings), twice=False, cache=None)  # what a run writes is its own
    return Folder(url, catalog.storage_options(url), policy)


def finished(settings: Settings) -> list[Result]:
    """Return the finished tables in a workflow's outputs, whatever they were made from.

    Raises
    ------
    InputError
        If an output holds none.
    """
    catalog = Catalog.load(settings.catalog, settings.mirror, settings.storage_options)
    found = []
    for output in outputs(settings, catalog).values():
        manifest = output.manifest()
        if manifest is None:
            raise InputError(f"{output.folder.shown()}: no finished table here; the step 'stats' makes it")
        found.append(_result(output, manifest, fresh=False))
    return found


def default_output(settings: Settings) -> str:
    """``./zonal-out/WA-2020``; of several years, their common beginning; other zones and rasters by name."""
    words = [settings.place] if settings.state else []
    for name in ("zones", "raster"):
        value = getattr(settings, name)
        if value != type(settings).model_fields[name].default:
            first = value if isinstance(value, str) else value[0]
            words.append(PurePosixPath(without_credentials(first).split("?")[0]).stem)
    words += [str(year) for year in settings.year] if len(settings.year) == 1 else []
    return "./zonal-out/" + "-".join(words)


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


@dataclass
class _Run:
    """One year into one folder; what must outlive it is on the store."""

    inputs: Request
    year: int | None
    output: Output
    lock: Lock
    staged: Stage
    notify: Notify
    seconds: dict[str, float]
    plan: Plan = field(init=False)
    opened: list[Opened] = field(init=False)
    missing: list[str] = field(init=False)
    costs: Costs = field(init=False)
    header_bytes: int = field(init=False)
    fingerprint: dict[str, Any] = field(init=False)

    def prepare(self, *, fresh: bool) -> Result | None:
        """Plan on the files' own headers; return the result if the output holds it already."""
        raster = self.inputs.raster
        with timed("planning", self.seconds, self.notify):
            self.plan, self.opened, self.missing = plan_year(
                self.inputs.settings, raster, self.staged, self.year, headers=True
            )
            self.header_bytes = sum(file.header_bytes for _, _, file in self.opened)
            self.costs = costs(raster, self.staged, self.plan, self.opened)
        if not self.plan.units:
            of_year = f" of {self.year}" if self.year else ""
            raise InputError(f"no tile{of_year} in {raster.name} covers any of the {self.plan.zones:,} zones")
        tiles = {
            tile.path: {"bounds": list(tile.grid.bounds), "crs": tile.grid.crs, **asdict(stat)}
            for tile, stat, _ in self.opened
        }
        self.fingerprint = fingerprint(
            self.inputs.settings, self.year, self.inputs.reading, self.staged.hash_of(self.year), tiles
        )
        manifest = None if fresh else self.output.finished(self.fingerprint)
        return None if manifest is None else _result(self.output, manifest, fresh=False)

    def execute(self, runner: Runner, *, fresh: bool) -> Result:
        """Run what is missing, publish, commit."""
        with timed("computing", self.seconds, self.notify):
            parts = self.output.begin(self.fingerprint, self.plan, self.lock, fresh=fresh)
            job = self._job(parts)
            _probe(runner, job)
            headers = [file.header for _, _, file in self.opened]
            name = f"{digest(self.fingerprint)[:8]}-{uuid.uuid4().hex[:8]}"
            to_fetch = self.costs.bytes_to_fetch
            reports = gather(runner, self.plan, job, headers, name, to_fetch, self.notify, self.lock.check)
        with timed("publishing", self.seconds, self.notify):
            zones = covered_zones(parts, [part_name(part.number) for part in self.plan.parts])
            if not zones["covered"]:
                self.output.abandon()
                raise InputError(
                    f"none of the {self.plan.zones:,} zones covers a valid pixel of {self.inputs.raster.name}"
                )
            files = self.output.assemble(self.plan, self.staged, parts, job.columns, job.about)
        manifest = {
            **self._described(),
            "table": TABLE if files == [TABLE] else DATASET,
            "files": files,
            **figures(self.staged, self.plan, zones, self.costs, self.header_bytes, reports, self.seconds),
        }
        self.output.commit(manifest, parts, self.lock)
        for sentence in _warnings(manifest["zones"], self.missing):
            self.notify(Event("warning", sentence))
        return _result(self.output, manifest, fresh=True)

    def _job(self, parts: Folder) -> Job:
        settings, raster = self.inputs.settings, self.inputs.raster
        return Job(
            stage=replace(self.staged, folder=_everywhere(self.staged.folder)),
            parts=_everywhere(parts),
            reader=raster.reader,
            tiles=self.plan.tiles,
            urls=tuple(raster.url(tile.path) for tile in self.plan.tiles),
            columns=self.inputs.columns,
            coverage=settings.coverage,
            engine=settings.engine,
            year=self.year,
            about=about(settings, self.year, self.staged.zone_id, self.inputs.zones.source, raster.source),
            stats=tuple(stat for _, stat, _ in self.opened),
        )

    def _described(self) -> dict[str, Any]:
        """Say what ran on what: the first half of the manifest."""
        raster = self.inputs.raster
        index = {"url": raster.index_name, **asdict(raster.index_stat)} if raster.index_stat else None
        return {
            "zonal_version": version("zonal"),
            "run": RUN_ID,
            "settings": self.inputs.settings.public() | {"year": self.year},
            "fingerprint": digest(self.fingerprint),
            "fingerprint_of": self.fingerprint,
            "stage_key": self.staged.key,
            "inputs": {
                "zones": self.staged.report["files"],
                "index": index,
                "tiles": [{"path": tile.path, **asdict(stat)} for tile, stat, _ in self.opened],
                "missing_tiles": self.missing,
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
