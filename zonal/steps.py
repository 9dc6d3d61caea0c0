"""The steps of a run, one after the other: the table, its map, its evaluation, its page.

Knows which step needs what, which are done already and what they wrote; leaves
each to the module that does it. A step's files carry no mark of their own:
`steps.json` beside them says what they were made from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from typing import Any

import geopandas as gpd

from zonal.cluster.connection import place_of
from zonal.cluster.runner import Runner
from zonal.config.analysis import Step
from zonal.config.catalog import Catalog
from zonal.config.settings import Settings
from zonal.engine import run as engine
from zonal.engine.fingerprint import digest
from zonal.engine.output import Output
from zonal.engine.run import Result
from zonal.errors import InputError, UnfitError, UsageError
from zonal.events import Event, Notify, labelled, quiet, telling, timed
from zonal.io.store.folder import Folder
from zonal.io.store.lock import Lock
from zonal.io.store.ranges import Blob
from zonal.io.table.export import beside
from zonal.io.table.finished import FinishedTable, load_table
from zonal.io.table.names import DRAFTS, EVALUATION, MANIFEST, MAP, REPORT, STEPS_MADE, STYLE, is_finding
from zonal.metrics import metered

VERSIONS = {"pca": 1, "evaluate": 1, "report": 1}
"""Of what each step makes; goes up when it would make other files of the same input."""


NAMES = {"pca": MAP, "evaluate": EVALUATION, "report": REPORT}
"""Names of each step's files in an output, without their ends."""

ENDS = {"pca": ".tif", "evaluate": ".json", "report": ".html"}
"""End of the name of each step's first file."""

MAKES = {"pca": "map", "evaluate": "evaluation", "report": "report"}
"""What each step makes, in a word."""

DOING = {
    "pca": "drawing the map",
    "evaluate": "evaluating the features",
    "report": "writing the report",
}
"""What is said when a step begins."""


def run(
    settings: Settings,
    *,
    fresh: bool = False,
    notify: Notify = quiet,
    runner: Runner | None = None,
    frame: gpd.GeoDataFrame | None = None,
) -> list[Result]:
    """Run a workflow: the steps that it names, of each year.

    Parameters, results and errors are those of `zonal.engine.run.run`, which makes the table.
    """
    with ExitStack() as stack:
        heard = stack.enter_context(metered(settings.metrics, notify))
        notify = stack.enter_context(labelled(heard, **settings.labels))
        if runner is None and {"stats", "pca"} & {*settings.steps}:
            runner = stack.enter_context(place_of(settings, notify))
        if "stats" not in settings.steps:
            results = engine.finished(settings)
        else:
            results = engine.run(settings, fresh=fresh, notify=notify, runner=runner, frame=frame)
            fresh = False  # a new table has no old files beside it
        if settings.steps == ("stats",):
            return results
        catalog = Catalog.load(settings.catalog, settings.mirror, settings.storage_options)
        made = []
        places = engine.outputs(settings, catalog).items()
        for result, (year, output) in zip(results, places, strict=True):
            with labelled(notify, year=year) as told:
                made.append(_after(result, Work(output, settings, catalog, told, runner), fresh=fresh))
        return made


def _after(result: Result, work: Work, *, fresh: bool) -> Result:
    """Take the steps after the table, under the output's lock if one is not done."""
    wanted = [step for step in work.settings.steps if step != "stats"]
    manifest = work.output.manifest()
    if fresh or manifest is None or not all(work.done(step, manifest) for step in wanted):
        with work.output.locked(fresh=False, tell=telling(work.notify)) as lock:
            manifest = work.output.manifest()
            if manifest is None:
                raise InputError(f"{result.output}: its table went away meanwhile; run the command again")
            for step in wanted:
                if fresh or not work.done(step, manifest):
                    work.take(step, manifest, lock)
    return replace(result, manifest=manifest, files={step: work.files(step) for step in wanted})


def take(settings: Settings, target: str | None, notify: Notify = quiet) -> tuple[str, ...]:
    """Take one step, `settings.steps`, for what is at `settings.output`: an output folder, or any table.

    Parameters
    ----------
    settings : Settings
    target : str, optional
        File to write; None for the usual names in the output folder, or names made of the table's beside it
        (of a remote table, in the working directory).
    notify : callable

    Returns
    -------
    tuple of str
        Paths or URLs of the files.

    Raises
    ------
    UsageError
        If the target's name does not end as such a file's does, or a report is asked for of a lone table.
    """
    (step,) = settings.steps
    place = str(settings.output)
    catalog = Catalog.load(settings.catalog, settings.mirror, settings.storage_options)
    if target is None and Folder(place.rstrip("/") or "/", catalog.storage_options(place)).exists(MANIFEST):
        (result,) = run(settings, fresh=True, notify=notify)
        return result.files[step]
    table = load_table(place, catalog.storage_options(place))
    if step == "report":
        raise UsageError(f"{table.name} is no output of zonal run: a report is about a run")
    end = ENDS[step]
    if target is None:
        file = beside(table, f"-{MAKES[step]}")
        home, name = str(file.parent), file.name
    else:
        if not target.endswith(end):
            raise UsageError(f"--output {target}: expected a name that ends in {end}")
        home, _, name = target.removesuffix(end).rpartition("/")
        home = home or ("/" if target.startswith("/") else ".")
    folder = Folder(home, catalog.storage_options(home))
    if is_finding(f"{name}{end}") and folder.exists(MANIFEST):
        raise UsageError(f"--output {target}: a run's own file; leave --output out to make it anew")
    with ExitStack() as stack:
        runner = stack.enter_context(place_of(settings, notify)) if step == "pca" else None
        files = make(step, table, settings, catalog, folder, name, notify, runner)
    return tuple(folder.shown(file) for file in files)


def make(
    step: Step,
    table: FinishedTable,
    settings: Settings,
    catalog: Catalog,
    folder: Folder,
    name: str,
    notify: Notify,
    runner: Runner | None,
) -> list[str]:
    """Take one step and return the names of its files, `name` with their ends."""
    if step == "pca":
        from zonal.findings.map.draw import draw

        assert runner is not None
        # QGIS takes a style of its layer's own name; beside a table of somebody else it has another.
        style = f"{DRAFTS}{STYLE}" if name.startswith(DRAFTS) else f"{name}.qml"
        maps = draw(table, settings.pca, folder, name, style, runner, notify)
        return [file for one in maps for file in one.files]
    if step == "evaluate":
        from zonal.findings.evaluation.evaluate import evaluate_table

        evaluate_table(table, settings.evaluate, folder, name, catalog.storage_options, notify)
        return [f"{name}.json", f"{name}.md"]
    from zonal.findings.report.report import report

    report(folder, f"{name}.html", table=table, notify=notify)
    return [f"{name}.html"]


@dataclass
class Work:
    """One output's steps after its table."""

    output: Output
    settings: Settings
    catalog: Catalog
    notify: Notify
    runner: Runner | None

    @property
    def _made(self) -> dict[str, Any]:
        return self.output.folder.read_json(STEPS_MADE) or {}

    def done(self, step: Step, manifest: Mapping[str, Any]) -> bool:
        """Whether a step was taken on the same table with the same settings, and its files are there."""
        made = self._made
        entry = made.get(step)
        return (
            entry is not None
            and entry["key"] == self._key(step, manifest, made)
            and all(self.output.folder.exists(name) for name in entry["files"])
        )

    def files(self, step: Step) -> tuple[str, ...]:
        """Say where a step's files are, or warn why there are none."""
        entry = self._made.get(step, {"files": (), "skipped": None})  # another run may be at it by now
        if entry["skipped"]:
            self.notify(Event("warning", f"no {MAKES[step]}: {entry['skipped']}"))
        return tuple(self.output.folder.shown(name) for name in entry["files"])

    def take(self, step: Step, manifest: Mapping[str, Any], lock: Lock) -> None:
        """Take a step; one that the table does not allow is left out, unless asked for by name or setting."""
        folder = self.output.folder
        seconds: dict[str, float] = {}
        files: list[str] = []
        skipped = None
        self.notify(Event("info", DOING[step]))
        with timed(step, seconds, self.notify):
            try:
                table = load_table(folder.url, folder.options)
                files = make(
                    *(step, table, self.settings, self.catalog, folder, DRAFTS + NAMES[step]),
                    *(self.notify, self.runner),
                )
            except UnfitError as error:
                if {"steps", step} & self.settings.model_fields_set:
                    raise
                skipped = str(error)
            lock.confirm()  # what another run has made meanwhile is not ours to replace
            made = self._publish(step, files)
        made[step] = {
            "key": self._key(step, manifest, made),
            "files": [file.removeprefix(DRAFTS) for file in files],
            "skipped": skipped,
            "seconds": round(seconds[step], 3),
        }
        folder.write_json(STEPS_MADE, made)

    def _publish(self, step: Step, files: Sequence[str]) -> dict[str, Any]:
        """Give a step's files their names; return what other steps made. Killed here, it is not done."""
        folder, others = self.output.folder, self._made
        old = others.pop(step, {"files": []})["files"]
        new = [file.removeprefix(DRAFTS) for file in files]
        # Without a key it is not done, and whatever comes next knows which files are to go.
        under_way = {"key": None, "files": sorted({*old, *new}), "skipped": None, "seconds": 0.0}
        folder.write_json(STEPS_MADE, {**others, step: under_way})
        for name in {*old} - {*new}:
            folder.remove(name)
        for file, name in zip(files, new, strict=True):
            folder.move(file, name)
        return others

    def _key(self, step: Step, manifest: Mapping[str, Any], made: Mapping[str, Any]) -> str:
        """Hash of all that a step's files depend on."""
        of: dict[str, Any] = {"step": step, "version": VERSIONS[step], "table": manifest["fingerprint"]}
        if step == "pca":
            of["settings"] = self.settings.pca.model_dump(mode="json")
        elif step == "evaluate":
            of["settings"] = self.settings.public()["evaluate"]
            attributes = self.settings.evaluate.attributes
            if attributes is not None:
                of["attributes"] = asdict(Blob(attributes, self.catalog.storage_options(attributes)).stat())
        else:
            others = {name: entry for name, entry in made.items() if name != step}
            of |= {"manifest": digest(manifest), "made": others}
        return digest(of)
