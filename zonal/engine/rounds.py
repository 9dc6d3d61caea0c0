"""Running what is missing of a plan, and once more, elsewhere, what failed.

Knows runners, graphs and which parts are written; knows no store and no zone.
A round is what a resume is: it looks which parts are there and does the rest.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

from zonal.cluster.runner import KilledError, Runner
from zonal.engine.graph import Wiring, wire
from zonal.engine.work import Job, PartReport, UnitFailure, UnitReport
from zonal.errors import StoreError, ZonalError
from zonal.events import Event, Notify, label
from zonal.io.table.names import part_name
from zonal.planning.units import Part, Plan

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
        Told of progress, of each part that is written, and of units that are tried again.
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
    progress = _Progress(notify, plan, bytes_to_fetch)
    reports: list[UnitReport | PartReport] = []
    failures: list[UnitFailure] = []
    avoid: set[str] = set()
    for number in range(TRIES):
        if failures:
            about = {"failed": len(failures), "part": _waiting(failures, plan)}
            notify(Event("warning", f"{_told(failures)}; tried again", about))
        written = {*job.parts.names()}
        done = {part.number for part in plan.parts if part_name(part.number) in written}
        if done and number == 0:
            notify(Event("info", f"{len(done):,} of {len(plan.parts):,} parts are there already"))
        wiring = wire(plan, job, headers, done, f"{name}-{number}")
        progress.begin(done)
        failures = []
        in_a_row = 0
        for value in _values(runner, wiring, plan, avoid):
            check()
            progress.tell(value)
            if isinstance(value, UnitFailure):
                failures.append(value)
                in_a_row += 1
                if in_a_row >= ENOUGH * max(runner.threads, 1):  # workers may have come, or all gone
                    raise _ended(failures, plan)
            elif value is not None:
                in_a_row = 0
                reports.append(value)
        if not failures:
            return reports
        avoid |= {failure.worker for failure in failures}
    raise _ended(failures, plan)


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
    """Counts what has come, and tells it.

    Zones, parts, chunks and units of the plan each count once, however often they are done; bytes,
    retries and failures count whenever they come.
    """

    def __init__(self, notify: Notify, plan: Plan, bytes_to_fetch: int | None) -> None:
        self.notify = notify
        self.plan = plan
        self.totals = {
            "zones": plan.zones,
            "parts": len(plan.parts),
            "chunks": plan.chunks,
            "units": len(plan.units),
            "bytes": bytes_to_fetch,
        }
        self.count = Counter[str]()
        self.units: set[int] = set()
        self.started = time.perf_counter()

    def begin(self, parts: Collection[int]) -> None:
        """Count the parts that are there, and the units that serve no other."""
        self.count["parts"] = len(parts)
        self.count["zones"] = sum(_zones(self.plan.parts[number]) for number in parts)
        for unit in self.plan.units:
            if all(number in parts for number in unit.parts):
                self._count_unit(unit.number)
        self._show()

    def tell(self, value: UnitReport | UnitFailure | PartReport | None) -> None:
        """Count what a task gave."""
        match value:
            case None:
                return
            case UnitReport():
                self._count_unit(value.number)
                self.count.update(bytes=value.fetched, cached=value.cached, retries=value.retries)
            case UnitFailure():
                self.count["failed"] += 1
            case PartReport():
                self.count.update(parts=1, zones=value.zones)
                figures = {"part": value.number, "zones": value.zones, "seconds": round(value.seconds, 3)}
                self.notify(Event("part", f"part {value.number} written", figures))
        self._show()

    def _count_unit(self, number: int) -> None:
        if number not in self.units:
            self.units.add(number)
            self.count.update(units=1, chunks=len(self.plan.units[number].chunks))

    def _show(self) -> None:
        figures = {name: self.count[name] for name in (*self.totals, "cached", "retries", "failed")}
        seconds = time.perf_counter() - self.started
        self.notify(Event("progress", "", {**figures, "totals": self.totals, "seconds": seconds}))


def _zones(part: Part) -> int:
    start, stop = part.zones
    return stop - start


def _waiting(failures: Sequence[UnitFailure], plan: Plan) -> list[int]:
    """Numbers of the parts that wait for units that failed."""
    return sorted({number for failure in failures for number in plan.units[failure.number].parts})


def _ended(failures: Sequence[UnitFailure], plan: Plan) -> ZonalError:
    error = type(_first(failures))(f"{_told(failures)}; {_KEPT}")
    label(error, part=_waiting(failures, plan))
    return error


def _first(failures: Sequence[UnitFailure]) -> ZonalError:
    return min(failures, key=lambda failure: failure.number).error


def _told(failures: Sequence[UnitFailure]) -> str:
    """Say why the first unit failed, and how many others did."""
    cause = str(_first(failures)).removesuffix("; try again later")
    return cause if len(failures) == 1 else f"{len(failures):,} units failed, the first by {cause}"
