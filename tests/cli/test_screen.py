from __future__ import annotations

import io
import json
import logging
import re
import warnings
from collections.abc import Callable
from typing import Any

import pytest

from zonal.cli import screen as screens
from zonal.cli.screen import screen
from zonal.events import RUN_ID, Event, labelled, labels_of, quiet, telling


def progress(zones: int, chunks: int) -> Event:
    totals = {"zones": 1_000, "chunks": 10, "bytes": 5_000_000}
    values = {"zones": zones, "chunks": chunks, "bytes": 500_000 * chunks, "seconds": 2.0, "totals": totals}
    return Event("progress", "", values)


EVENTS = (
    Event("info", "staging zones [of WA].zip"),
    Event("info", "Dask workers: 2, threads: 4, dashboard: http://127.0.0.1:8787/status"),
    *(progress(100 * step, step) for step in range(11)),
    Event("part", "part 7 written", {"part": 7}),
    Event("stage", "stage computing took 2 s", {"stage": "computing", "seconds": 2.0}),
    Event("warning", "3 zones have no valid pixel", {"zones": 3}),
)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(capture: Callable[[], str], **words: bool) -> str:
    with screen(**{"quiet": False, "json_logs": False, **words}) as notify:
        for event in EVENTS:
            notify(event)
    return capture()


@pytest.fixture
def stderr(capsys: pytest.CaptureFixture[str]) -> Callable[[], str]:
    return lambda: capsys.readouterr().err


def test_away_from_a_terminal_there_are_plain_lines(stderr: Callable[[], str]) -> None:
    assert shown(stderr).splitlines() == [
        "staging zones [of WA].zip",
        "Dask workers: 2, threads: 4, dashboard: http://127.0.0.1:8787/status",
        "1,000/1,000 zones, 10/10 chunks, 5.0 MB at 2.5 MB/s",
        "warning: 3 zones have no valid pixel",
    ]


def test_progress_lines_come_every_few_seconds(
    stderr: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(0, 1000, 2))
    monkeypatch.setattr(screens.time, "monotonic", lambda: float(next(clock)))
    lines = [line for line in shown(stderr).splitlines() if "chunks" in line]
    assert [int(line.split("/")[0].replace(",", "")) for line in lines] == [200, 500, 800, 1000]


def test_quiet_shows_warnings_only(stderr: Callable[[], str]) -> None:
    assert shown(stderr, quiet=True) == "warning: 3 zones have no valid pixel\n"


def test_json_logs_are_one_object_a_line(stderr: Callable[[], str]) -> None:
    lines: list[dict[str, Any]] = [json.loads(line) for line in shown(stderr, json_logs=True).splitlines()]
    assert [line["level"] for line in lines] == ["info"] * 5 + ["warning"]
    assert [line.get("kind") for line in lines] == [None, None, "progress", "part", "stage", None]
    assert {line["run"] for line in lines} == {RUN_ID}
    assert lines[2]["zones"] == 1_000
    assert lines[3]["part"] == 7 and lines[4]["seconds"] == 2.0
    assert lines[2]["totals"]["chunks"] == 10
    assert "10/10 chunks" in lines[2]["message"]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", line["time"]) for line in lines)


def test_what_libraries_say_is_a_json_line_too_and_shows_no_password(stderr: Callable[[], str]) -> None:
    with screen(quiet=False, json_logs=True):
        logging.getLogger("a.client").warning("no answer from %s", "https://me:pa55word@host/x")
        warnings.warn("an old way", stacklevel=1)
    logged, warned = map(json.loads, stderr().splitlines())
    assert (logged["level"], logged["logger"]) == ("warning", "a.client")
    assert logged["message"] == "no answer from https://host/x"
    assert "an old way" in warned["message"] and warned["run"] == RUN_ID


def test_quiet_json_logs_are_warnings_only(stderr: Callable[[], str]) -> None:
    (line,) = shown(stderr, quiet=True, json_logs=True).splitlines()
    assert json.loads(line)["message"] == "3 zones have no valid pixel"


def test_a_terminal_gets_a_bar_with_zones_chunks_bytes_and_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERM", "xterm")
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown(terminal.getvalue))
    assert "staging zones [of WA].zip\n" in text.replace("\r", "")
    assert "dashboard: http://127.0.0.1:8787/status" in text
    assert re.search(r"━+ 1,000/1,000 zones, 10/10 chunks, 5\.0 MB at 2\.5 MB/s 0:00:0\d", text)
    assert "part 7" not in text and "took" not in text


def test_no_bar_stays_behind_where_nothing_was_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with screen(quiet=False, json_logs=False):
        pass
    last = re.split(r"\x1b\[2K", terminal.getvalue())[-1]
    assert "━" not in last


def test_labels_are_of_every_event_and_inner_ones_win() -> None:
    told: list[Event] = []
    with (
        labelled(told.append, state="WA", year=None) as outer,
        labelled(outer, year=2024, state="OR") as inner,
    ):
        telling(outer)("a state")
        inner(Event("info", "a year", {"part": 3}))
        inner(Event("info", "another", {"year": 2023}))
    assert [event.values for event in told] == [
        {"state": "WA"},
        {"state": "OR", "year": 2024, "part": 3},
        {"state": "OR", "year": 2023},
    ]


@pytest.mark.parametrize("kind", [ValueError, SystemExit, KeyboardInterrupt])
def test_an_error_that_leaves_has_the_same_labels(kind: type[BaseException]) -> None:
    with pytest.raises(kind) as caught, labelled(quiet, state="WA", year=2020), labelled(quiet, year=2024):
        raise kind
    assert labels_of(caught.value) == {"state": "WA", "year": 2024}
    assert labels_of(ValueError()) == labels_of(None) == {}
