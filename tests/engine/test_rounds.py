from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from zonal.engine.rounds import gather
from zonal.engine.work import PartReport, UnitFailure, UnitReport
from zonal.errors import StoreError
from zonal.events import quiet
from zonal.io.store.folder import Folder
from zonal.planning.units import Part, Unit

PLAN: Any = SimpleNamespace(
    units=[Unit(0, 0, (0,), (0,), (0,))], parts=[Part(0, 0, (0, 1), (0, 1), (0,))], zones=1, chunks=1
)


class _AllLost:
    """A cluster whose only worker ended after a unit that failed; another comes for the next round."""

    described = ""
    threads = 0

    def __init__(self) -> None:
        report = UnitReport(0, 1, 0, 0, 0, 0, 0.0)
        failure = UnitFailure(0, StoreError("no answer"), "tcp://gone")
        self.rounds: list[list[Any]] = [[failure, None], [report, PartReport(0, 1, 0.0)]]

    def run(self, *_: Any) -> Iterator[tuple[Any, Any]]:
        yield from enumerate(self.rounds.pop(0))

    def everywhere(self, *_: Any) -> dict[str, Any]:
        return {}


def test_one_failure_while_no_worker_is_there_is_not_many(tmp_path: Path) -> None:
    job: Any = SimpleNamespace(parts=Folder(str(tmp_path)))
    reports = gather(_AllLost(), PLAN, job, [None], "x", None, quiet, lambda: None)
    assert [type(report) for report in reports] == [UnitReport, PartReport]
