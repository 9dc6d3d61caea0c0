"""The plan as a Dask graph: wiring only.

Knows task keys and which value goes where; knows nothing of what the tasks do.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from zonal.units import Plan
from zonal.work import Job, UnitReport, finish_part, run_unit

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
        Values are `UnitReport`.
    parts : tuple of keys
        Values are `PartReport`; when one is there, its file is written.
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
        graph[whole] = (run_unit, common, replace(unit, parts=parts), zones, header)
        graph[report] = (_report, whole)
        unit_keys.append(report)
        for place, number in enumerate(parts):
            key = (f"share-{name}", len(share))
            graph[key] = (_share, whole, place)
            share[unit.number, number] = key
    part_keys: list[Key] = []
    for part in todo:
        key = (f"part-{name}", part.number)
        graph[key] = (finish_part, common, part, [share[unit, part.number] for unit in part.units])
        part_keys.append(key)
    return Wiring(graph, tuple(unit_keys), tuple(part_keys))


def _report(result: tuple[UnitReport, list[list[Moments]]]) -> UnitReport:
    return result[0]


def _share(result: tuple[UnitReport, list[list[Moments]]], place: int) -> list[Moments]:
    return result[1][place]
