"""The plan as a Dask graph: wiring only.

Knows task keys and which value goes where; knows nothing of what the tasks do.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from zonal.engine.work import Job, PartReport, UnitFailure, UnitReport, finish_part, run_unit
from zonal.errors import MissingError, StoreError
from zonal.planning.units import Part, Plan, Unit

if TYPE_CHECKING:
    from zonal.stats.moments import Moments

Key = tuple[str, int]


@dataclass(frozen=True)
class Wiring:
    """A graph and the keys whose values the engine wants.

    Parameters
    ----------
    graph : dict
        In Dask's own format.
    units : tuple of keys
        Values are `UnitReport` or `UnitFailure`.
    parts : tuple of keys
        Values are `PartReport`; when one is there, its file is written. None where a unit failed.
    """

    graph: dict[Any, Any]
    units: tuple[Key, ...]
    parts: tuple[Key, ...]


def wire(plan: Plan, job: Job, headers: Sequence[Any], done: Collection[int], name: str) -> Wiring:
    """Wire the parts that are not done, and the units that serve them.

    Parameters
    ----------
    plan : Plan
    job : Job
    headers : sequence
        `Raster.header` of each tile of the plan: read by the driver, shared by all units of the tile.
    done : collection of int
        Numbers of the parts that need no work.
    name : str
        Makes keys unique on a cluster that other runs share.

    Notes
    -----
    A unit gives one value for each part; each is picked by a task of its own,
    so that a finished part frees its share whatever its neighbours wait for.
    A unit that its store failed gives a failure in place of moments, and its parts
    give nothing: all others go on.
    """
    todo = [part for part in plan.parts if part.number not in done]
    wanted = {part.number for part in todo}
    common = f"job-{name}"
    graph: dict[Any, Any] = {common: job}
    unit_keys: list[Key] = []
    share: dict[tuple[int, int], Key] = {}
    for unit in plan.units:
        parts = tuple(number for number in unit.parts if number in wanted)
        if not parts:
            continue
        zones = [plan.parts[number].zones for number in parts]
        header = (f"header-{name}", unit.tile)
        graph[header] = headers[unit.tile]
        whole, report = (f"unit-{name}", unit.number), (f"report-{name}", unit.number)
        graph[whole] = (_unit, common, replace(unit, parts=parts), zones, header)
        graph[report] = (_report, whole)
        unit_keys.append(report)
        for place, number in enumerate(parts):
            key = (f"share-{name}", len(share))
            graph[key] = (_share, whole, place)
            share[unit.number, number] = key
    part_keys: list[Key] = []
    for part in todo:
        key = (f"part-{name}", part.number)
        graph[key] = (_part, common, part, [share[unit, part.number] for unit in part.units])
        part_keys.append(key)
    return Wiring(graph, tuple(unit_keys), tuple(part_keys))


UnitValue = tuple[UnitReport | UnitFailure, "list[list[Moments]]"]
"""What a unit gives: its report, and moments for each part that it serves."""


def _unit(job: Job, unit: Unit, zones: Sequence[tuple[int, int]], header: Any) -> UnitValue:
    try:
        return run_unit(job, unit, zones, header)
    except (StoreError, MissingError) as error:  # missing to this worker: the driver saw the tile
        return UnitFailure(unit.number, error, _here()), []


def _report(result: UnitValue) -> UnitReport | UnitFailure:
    return result[0]


def _share(result: UnitValue, place: int) -> list[Moments] | None:
    report, shares = result
    return shares[place] if isinstance(report, UnitReport) else None


def _part(job: Job, part: Part, shares: Sequence[list[Moments] | None]) -> PartReport | None:
    there = [share for share in shares if share is not None]
    return finish_part(job, part, there) if len(there) == len(shares) else None


def _here() -> str:
    """Address of the Dask worker that runs this, if one does."""
    from distributed import get_worker

    try:
        return str(get_worker().address)
    except ValueError:
        return ""
