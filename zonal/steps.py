"""The steps of a run, one after the other: the table, its map, its evaluation, its page.

Where the two wings meet: knows which step makes what, and where tasks run; leaves each step to
the module that takes it. That module is imported when it is needed: workers start meanwhile, and
a table is made without what only its findings need.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from zonal.cluster.connection import place_of
from zonal.cluster.runner import Runner
from zonal.config.settings import Settings
from zonal.engine.fingerprint import digest
from zonal.engine.preload import FORKED, PRELOAD
from zonal.engine.step import Step, StepsOf, Task
from zonal.errors import InputError, UsageError
from zonal.events import Notify, labelled, quiet, telling
from zonal.io.table.names import DRAFTS, EVALUATION, MANIFEST, MAP, REPORT, STYLE, is_finding
from zonal.metrics import metered

if TYPE_CHECKING:
    import geopandas as gpd

    from zonal.config.catalog import Catalog
    from zonal.engine.run import Result


# ------------------------------------------------------------------ what each step makes


def _draw(task: Task) -> list[str]:
    from zonal.findings.map.draw import draw

    assert task.runner is not None
    # QGIS takes a style of its layer's own name; beside a table of somebody else it has another.
    style = f"{DRAFTS}{STYLE}" if task.name.startswith(DRAFTS) else f"{task.name}.qml"
    maps = draw(task.table, task.settings.pca, task.folder, task.name, style, task.runner, task.notify)
    return [file for drawn in maps for file in drawn.files]


def _evaluate(task: Task) -> list[str]:
    from zonal.findings.evaluation.evaluate import evaluate_table

    asked, options = task.settings.evaluate, task.catalog.storage_options
    evaluate_table(task.table, asked, task.folder, task.name, options, task.notify)
    return [f"{task.name}.json", f"{task.name}.md"]


def _report(task: Task) -> list[str]:
    from zonal.findings.report.report import report

    report(task.folder, f"{task.name}.html", table=task.table, notify=task.notify)
    return [f"{task.name}.html"]


def _map_depends(settings: Settings, *_: Any) -> dict[str, Any]:
    return {"settings": settings.pca.model_dump(mode="json")}


def _evaluation_depends(settings: Settings, catalog: Catalog, *_: Any) -> dict[str, Any]:
    from zonal.io.store.ranges import Blob

    attributes = settings.evaluate.attributes
    depends: dict[str, Any] = {"settings": settings.public()["evaluate"]}
    if attributes is not None:
        depends["attributes"] = asdict(Blob(attributes, catalog.storage_options(attributes)).stat())
    return depends


def _page_depends(
    settings: Settings, catalog: Catalog, manifest: Mapping[str, Any], made: Mapping[str, Any]
) -> dict[str, Any]:
    return {"manifest": digest(manifest), "made": made}


STEPS = (
    Step(
        name="pca",
        product="map",
        begins="drawing the map",
        stem=MAP,
        suffix=".tif",
        version=1,
        make=_draw,
        depends=_map_depends,
        runs_tasks=True,
    ),
    Step(
        name="evaluate",
        product="evaluation",
        begins="evaluating the features",
        stem=EVALUATION,
        suffix=".json",
        version=2,
        make=_evaluate,
        depends=_evaluation_depends,
    ),
    Step(
        name="report",
        product="report",
        begins="writing the report",
        stem=REPORT,
        suffix=".html",
        version=2,
        make=_report,
        depends=_page_depends,
        about_a_run=True,
    ),
)
"""The steps after the table, in their order."""


# ------------------------------------------------------------------ taking them


def run(
    settings: Settings,
    *,
    fresh: bool = False,
    notify: Notify = quiet,
    runner: Runner | None = None,
    frame: gpd.GeoDataFrame | None = None,
    forked: bool = False,
) -> list[Result]:
    """Run a workflow: the steps that it names, of each year.

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
    forked : bool
        Fork workers of this machine from a process that loads meanwhile: for a process that is zonal's own.

    Returns
    -------
    list of Result
        One for each year.

    Raises
    ------
    ZonalError
        One of its kinds, with the exit code of the command line.
    """
    wanted = [step for step in STEPS if step.name in settings.steps]
    with ExitStack() as stack:
        notify = stack.enter_context(metered(settings.metrics, notify))
        notify = stack.enter_context(labelled(notify, **settings.labels))
        if runner is None and ("stats" in settings.steps or any(step.runs_tasks for step in wanted)):
            runner = stack.enter_context(_place_of(settings, notify, forked=forked))
        from zonal.engine import run as engine  # takes its time, in which workers start
        from zonal.engine.output import outputs

        catalog = engine.catalog_of(settings)
        places = outputs(settings, catalog)
        if "stats" not in settings.steps:
            results = engine.finished(places)
        else:
            assert runner is not None
            known: dict[str, Any] = {"catalog": catalog, "places": places}
            results = engine.run(settings, runner=runner, fresh=fresh, notify=notify, frame=frame, **known)
            fresh = False  # a new table has no old files beside it
        if not wanted:
            return results
        further = []
        for result, (year, output) in zip(results, places.items(), strict=True):
            with labelled(notify, year=year) as notify_year:
                steps = StepsOf(output, settings, catalog, notify_year, runner)
                further.append(_after(result, steps, wanted, fresh=fresh))
        return further


def _after(result: Result, steps: StepsOf, wanted: list[Step], *, fresh: bool) -> Result:
    """Take the steps after the table, under the output's lock if one is not done."""
    manifest = steps.output.manifest()
    if fresh or manifest is None or not all(steps.done(step, manifest) for step in wanted):
        with steps.output.locked(fresh=False, tell=telling(steps.notify)) as lock:
            manifest = steps.output.manifest()
            if manifest is None:
                raise InputError(f"{result.output}: its table went away meanwhile; run the command again")
            for step in wanted:
                if fresh or not steps.done(step, manifest):
                    steps.take(step, manifest, lock)
    return replace(result, manifest=manifest, files={step.name: steps.files(step) for step in wanted})


def _place_of(settings: Settings, notify: Notify, *, forked: bool) -> AbstractContextManager[Runner]:
    return place_of(settings, notify, preload=PRELOAD, forked=FORKED if forked else None)


def take(
    settings: Settings, target: str | None, notify: Notify = quiet, *, forked: bool = False
) -> tuple[str, ...]:
    """Take one step, `settings.steps`, for what is at `settings.output`: an output folder, or any table.

    Parameters
    ----------
    settings : Settings
    target : str, optional
        File to write; None for the usual names in the output folder, or names made of the table's beside it
        (of a remote table, in the working directory).
    notify : callable
    forked : bool
        As for `run`.

    Returns
    -------
    tuple of str
        Paths or URLs of the files.

    Raises
    ------
    UsageError
        If the target's name does not end as such a file's does, or a report is asked for of a lone table.
    """
    from zonal.engine import run as engine
    from zonal.io.store.folder import Folder
    from zonal.io.table.export import beside
    from zonal.io.table.finished import load_table

    (step,) = (step for step in STEPS if (step.name,) == settings.steps)
    place = str(settings.output)
    catalog = engine.catalog_of(settings)
    if target is None and Folder(place.rstrip("/") or "/", catalog.storage_options(place)).exists(MANIFEST):
        (result,) = run(settings, fresh=True, notify=notify, forked=forked)
        return result.files[step.name]
    table = load_table(place, catalog.storage_options(place))
    if step.about_a_run:
        raise UsageError(f"{table.name} is no output of zonal run: a {step.product} is about a run")
    if target is None:
        file = beside(table, f"-{step.product}")
        home, name = str(file.parent), file.name
    else:
        if not target.endswith(step.suffix):
            raise UsageError(f"--output {target}: expected a name that ends in {step.suffix}")
        home, _, name = target.removesuffix(step.suffix).rpartition("/")
        home = home or ("/" if target.startswith("/") else ".")
    folder = Folder(home, catalog.storage_options(home))
    if is_finding(f"{name}{step.suffix}") and folder.exists(MANIFEST):
        raise UsageError(f"--output {target}: a run's own file; leave --output out to make it anew")
    with ExitStack() as stack:
        runner = None
        if step.runs_tasks:
            runner = stack.enter_context(_place_of(settings, notify, forked=forked))
        files = step.make(Task(table, settings, catalog, folder, name, notify, runner))
    return tuple(folder.shown(file) for file in files)
