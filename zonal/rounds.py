"""Running what is missing of a plan, and once more, elsewhere, what failed.

Knows runners, graphs and which parts are written; knows no store and no zone.
A round is what a resume is: it looks which parts are there and does the rest.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

from zonal.clusters import KilledError, Runner
from zonal.errors import StoreError, ZonalError
from zonal.events import Event, Notify
from zonal.graph import Wiring, wire
from zonal.units import Plan
from zonal.work import Job, PartReport, UnitFailure, UnitReport, part_name

TRIES = 2
"""Rounds of a unit that fails, each time after all retries of its ranges."""

ENOUGH = 4
"""Units a thread that fail one after the other, with none between them that ends well: the store is gone."""

_KEPT = "finished parts are kept: the same command goes on where it stopped"


def gather(
    runner: Runner,
    plan: Plan,
    job: Job,
    headers: Sequence[Any],
    name: str,
    bytes_to_fetch: int | None,
    notify: Notify,
    check: Callable[[], None],
) -> list[UnitReport | PartReport]:
    """Have all parts written that are not there yet.

    Parameters
    ----------
    runner : Runner
    plan : Plan
    job : Job
    headers : sequence
        `Raster.header` of each tile of the plan.
    name : str
        Makes keys unique on a cluster that other runs share.
    bytes_to_fetch : int or None
        In all, for the progress that is told.
    notify : callable
        Told of progress, and of units that are tried again.
    check : callable
        Called at each value; raises where there is no sense in going on.

    Returns
    -------
    list of UnitReport or PartReport
        Of all that ran.

    Raises
    ------
    StoreError
        If a unit failed in its last round too, or many did one after the other, or one ended its workers.
    MissingError
        The same of a unit whose tile has gone.
    """
    totals = {"zones": plan.zones, "chunks": plan.chunks, "bytes": bytes_to_fetch}
    reports: list[UnitReport | PartReport] = []
    failures: list[UnitFailure] = []
    avoid: set[str] = set()
    for number in range(TRIES):
        if failures:
            notify(Event("warning", f"{_told(failures)}; tried again", {"failed": len(failures)}))
        written = {*job.parts.names()}
        done = {part.number for part in plan.parts if part_name(part.number) in written}
        if done and number == 0:
            notify(Event("info", f"{len(done):,} of {len(plan.parts):,} parts are there already"))
        wiring = wire(plan, job, headers, done, f"{name}-{number}")
        kept = sum(stop - start for start, stop in (plan.parts[part].zones for part in done))
        progress = _Progress(notify, totals, kept)
        failures = []
        in_a_row = 0
        for value in _values(runner, wiring, plan, avoid):
            check()
            if isinstance(value, UnitFailure):
                failures.append(value)
                in_a_row += 1
                if in_a_row >= ENOUGH * max(runner.threads, 1):  # workers may have come, or all gone
                    raise _ended(failures)
            elif value is not None:
                in_a_row = 0
                reports.append(value)
                progress.tell(value)
        if not failures:
            return reports
        avoid |= {failure.worker for failure in failures}
    raise _ended(failures)


def _values(
    runner: Runner, wiring: Wiring, plan: Plan, avoid: Collection[str]
) -> Iterator[UnitReport | UnitFailure | PartReport | None]:
    """Run a graph; name the unit or part that no worker survived."""
    try:
        for _, value in runner.run(wiring.graph, [*wiring.units, *wiring.parts], avoid):
            yield value
    except KilledError as error:
        what = _named(error.key, plan)
        # Dask counts what waited on a worker, too.
        raise StoreError(
            f"{what}, or one that was beside it, ended {error.workers} workers, one after the other; "
            f"have they too little memory? {_KEPT}"
        ) from error


def _named(key: Any, plan: Plan) -> str:
    """Name a task of `wire` as the plan does."""
    kind, number = key if isinstance(key, tuple) else (str(key), 0)
    if kind.startswith("unit-"):
        unit = plan.units[number]
        chunks = ", ".join(map(str, unit.chunks))
        return f"unit {number} (tile {plan.tiles[unit.tile].path}, chunks {chunks})"
    return f"part {number}" if kind.startswith("part-") else f"task {kind}"


class _Progress:
    """Counts what has come, and tells it."""

    def __init__(self, notify: Notify, totals: dict[str, Any], zones: int) -> None:
        self.notify = notify
        self.totals = totals
        self.zones = zones
        self.chunks = self.bytes = 0
        self.started = time.perf_counter()

    def tell(self, report: UnitReport | PartReport) -> None:
        if isinstance(report, PartReport):
            self.zones += report.zones
        else:
            self.chunks += report.chunks
            self.bytes += report.fetched
        figures = {"zones": self.zones, "chunks": self.chunks, "bytes": self.bytes, "totals": self.totals}
        self.notify(Event("progress", "", {**figures, "seconds": time.perf_counter() - self.started}))


def _ended(failures: Sequence[UnitFailure]) -> ZonalError:
    return type(_first(failures))(f"{_told(failures)}; {_KEPT}")


def _first(failures: Sequence[UnitFailure]) -> ZonalError:
    return min(failures, key=lambda failure: failure.number).error


def _told(failures: Sequence[UnitFailure]) -> str:
    """Say why the first unit failed, and how many others did."""
    cause = str(_first(failures)).removesuffix("; try again later")
    return cause if len(failures) == 1 else f"{len(failures):,} units failed, the first by {cause}"
