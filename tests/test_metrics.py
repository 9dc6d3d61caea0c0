"""What Prometheus is given, made of events alone; and the port where it asks."""

from __future__ import annotations

import socket
import struct
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families as parsed

from zonal.engine.rounds import gather
from zonal.engine.work import PartReport, UnitFailure, UnitReport
from zonal.errors import StoreError, UsageError
from zonal.events import RUN_ID, Event, quiet
from zonal.io.store.folder import Folder
from zonal.io.table.names import part_name
from zonal.metrics import DONE, PLANNED, Metrics, metered
from zonal.planning.units import Part, Unit

WA: dict[str, Any] = {"state": "WA", "year": 2024}


def progress(done: int, **labels: Any) -> Event:
    totals = {"units": 9, "parts": 8, "zones": 70, "chunks": 60, "bytes": 500}
    values = {"units": done, "parts": done, "zones": 8 * done, "chunks": 7 * done, "bytes": 40 * done}
    more = {"cached": 3 * done, "retries": done, "failed": 1, "seconds": 1.0, "totals": totals}
    return Event("progress", "", {**labels, **values, **more})


def samples(metrics: Metrics) -> dict[tuple[str, ...], float]:
    registry = CollectorRegistry()
    registry.register(metrics)
    found: dict[tuple[str, ...], float] = {}
    for family in parsed(generate_latest(registry).decode()):
        assert family.documentation
        for sample in family.samples:
            key = (sample.name, *sample.labels.values())
            assert key not in found
            found[key] = sample.value
    return found


def told(*events: Event) -> dict[tuple[str, ...], float]:
    metrics = Metrics()
    for event in events:
        metrics(event)
    return samples(metrics)


def test_the_last_progress_is_what_is_shown() -> None:
    found = told(progress(0, **WA), progress(2, **WA))
    del found[next(key for key in found if key[0] == "zonal_info")]
    assert {key[1:] for key in found} == {("WA", "2024")}
    assert {key[0].removeprefix("zonal_"): value for key, value in found.items()} == {
        "units": 9,
        "parts": 8,
        "zones": 70,
        "chunks": 60,
        "bytes": 500,
        "units_done_total": 2,
        "parts_done_total": 2,
        "zones_done_total": 16,
        "chunks_done_total": 14,
        "fetched_bytes_total": 74,
        "retries_total": 2,
        "units_failed_total": 1,
        "warnings_total": 0,
    }


def test_each_year_has_series_of_its_own() -> None:
    found = told(progress(1, **WA), progress(2, state="WA", year=2023), progress(3))
    assert found["zonal_units_done_total", "WA", "2024"] == 1
    assert found["zonal_units_done_total", "WA", "2023"] == 2
    assert found["zonal_units_done_total", "", ""] == 3


def test_stages_and_warnings_are_shown_as_they_come() -> None:
    stage = Event("stage", "stage planning took 2.5 s", {**WA, "stage": "planning", "seconds": 2.5})
    found = told(Event("info", "hello", WA), stage, Event("warning", "a"), Event("warning", "b", WA))
    assert found["zonal_stage_seconds", "planning", "WA", "2024"] == 2.5
    assert found["zonal_warnings_total", "WA", "2024"] == found["zonal_warnings_total", "", ""] == 1


def test_before_anything_is_told_there_is_who_runs() -> None:
    ((name, *labels),) = told()
    assert name == "zonal_info" and RUN_ID in labels


def test_bytes_that_nobody_knows_are_not_shown() -> None:
    event = progress(1)
    event.values["totals"]["bytes"] = None
    assert not [key for key in told(event) if key[0] == "zonal_bytes"]


def test_names_follow_the_practice_of_prometheus() -> None:
    registry = CollectorRegistry()
    metrics = Metrics()
    metrics(progress(1))
    registry.register(metrics)
    families = {family.name: family for family in parsed(generate_latest(registry).decode())}
    for name in DONE:
        assert families[f"zonal_{name}"].type == "counter"
        assert {sample.name for sample in families[f"zonal_{name}"].samples} == {f"zonal_{name}_total"}
    for name in PLANNED:
        assert families[f"zonal_{name}"].type == "gauge"


# ------------------------------------------------------------------ rounds


class Rounds:
    """A cluster that gives what it was told to, round by round."""

    described = ""
    threads = 8

    def __init__(self, *rounds: list[Any]) -> None:
        self.rounds = iter(rounds)

    def run(self, *_: Any) -> Iterator[tuple[Any, Any]]:
        yield from enumerate(next(self.rounds))

    def everywhere(self, *_: Any) -> dict[str, Any]:
        return {}


PLAN: Any = SimpleNamespace(
    units=[Unit(0, 0, (0, 1), (0,), (0, 1)), Unit(1, 0, (2,), (0,), (1,))],
    parts=[Part(0, 0, (0, 1), (0, 5), (0,)), Part(1, 0, (1, 2), (5, 12), (0, 1))],
    zones=12,
    chunks=3,
)


def gathered(folder: Path, *rounds: list[Any]) -> list[Event]:
    events: list[Event] = []
    job: Any = SimpleNamespace(parts=Folder(str(folder)))
    gather(Rounds(*rounds), PLAN, job, [None], "x", 100, events.append, lambda: None)
    return events


def figures(events: list[Event], *names: str) -> list[tuple[int, ...]]:
    return [tuple(event.values[name] for name in names) for event in events if event.kind == "progress"]


def test_what_is_done_twice_counts_once_and_its_bytes_twice(tmp_path: Path) -> None:
    again = UnitReport(0, 2, 40, 0, 1, 10, 0.0)
    failure = UnitFailure(1, StoreError("no answer"), "tcp://a")
    last = [again, UnitReport(1, 1, 20, 0, 0, 0, 0.0), PartReport(0, 5, 0.0), PartReport(1, 7, 0.0)]
    events = gathered(tmp_path, [again, failure, None, None], last)
    counts = figures(events, "units", "chunks", "parts", "zones", "bytes", "cached", "retries", "failed")
    assert counts[0] == (0, 0, 0, 0, 0, 0, 0, 0)
    assert counts[-1] == (2, 3, 2, 12, 100, 20, 2, 1)
    assert all([*column] == sorted(column) for column in zip(*counts, strict=True)), "none ever falls"
    (warning,) = [event for event in events if event.kind == "warning"]
    assert warning.values == {"failed": 1, "part": [1]}
    parts = [event.values["part"] for event in events if event.kind == "part"]
    assert parts == [0, 1]


def test_what_an_earlier_run_did_is_done_from_the_start(tmp_path: Path) -> None:
    (tmp_path / part_name(1)).touch()
    events = gathered(tmp_path, [UnitReport(0, 2, 40, 0, 0, 0, 0.0), PartReport(0, 5, 0.0)])
    counts = figures(events, "units", "chunks", "parts", "zones", "bytes")
    assert (counts[0], counts[-1]) == ((1, 1, 1, 7, 0), (2, 3, 2, 12, 40))


# ------------------------------------------------------------------ the port


def asked(said: list[Event]) -> tuple[str, str]:
    """The address that was told, and what is there."""
    url = said[0].message.removeprefix("metrics: ")
    with urllib.request.urlopen(url, timeout=120) as answer:
        return url, answer.read().decode()


def test_whoever_asks_gets_what_was_told_until_the_end() -> None:
    said: list[Event] = []
    with metered("127.0.0.1:0", said.append) as notify:
        notify(progress(4, **WA))
        url, text = asked(said)
        assert 'zonal_parts_done_total{state="WA",year="2024"} 4.0' in text.splitlines()
        assert said[1].kind == "progress"
    with pytest.raises(OSError):
        urllib.request.urlopen(url, timeout=120)


def test_without_a_place_nothing_is_served() -> None:
    with metered(None, quiet) as notify:
        assert notify is quiet


@pytest.mark.parametrize("host", ["127.0.0.1", "no-such-host.invalid"])
def test_a_place_where_nothing_can_listen_is_a_usage_error(host: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        place = f"{host}:{taken.getsockname()[1]}"
        said = rf"^metrics {place}: cannot listen there: [\w ]+; choose another$"
        with pytest.raises(UsageError, match=said), metered(place, quiet):
            pass


def test_who_hangs_up_leaves_no_trace(capfd: pytest.CaptureFixture[str]) -> None:
    said: list[Event] = []
    with metered("127.0.0.1:0", said.append):
        port = int(said[0].message.split(":")[-1].split("/")[0])
        for request in (b"", b"GET /metrics HTTP/1.1\r\n"):
            with socket.create_connection(("127.0.0.1", port)) as caller:
                caller.sendall(request)
                time.sleep(0.1)  # it is being read
                caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        time.sleep(0.1)
        assert "zonal_info" in asked(said)[1]
    assert capfd.readouterr() == ("", "")
