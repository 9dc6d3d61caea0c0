from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from zonal import screen as screens
from zonal.events import Event
from zonal.screen import screen


def progress(zones: int, chunks: int) -> Event:
    totals = {"zones": 1_000, "chunks": 10, "bytes": 5_000_000}
    values = {"zones": zones, "chunks": chunks, "bytes": 500_000 * chunks, "seconds": 2.0, "totals": totals}
    return Event("progress", "", values)


EVENTS = (
    Event("info", "staging zones [of WA].zip"),
    Event("info", "Dask workers: 2, threads: 4, dashboard: http://127.0.0.1:8787/status"),
    *(progress(100 * step, step) for step in range(11)),
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
    assert [line["level"] for line in lines] == ["info", "info", "progress", "warning"]
    assert lines[2]["zones"] == 1_000
    assert lines[2]["totals"]["chunks"] == 10
    assert "10/10 chunks" in lines[2]["message"]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", line["time"]) for line in lines)


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


def test_no_bar_stays_behind_where_nothing_was_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with screen(quiet=False, json_logs=False):
        pass
    last = re.split(r"\x1b\[2K", terminal.getvalue())[-1]
    assert "━" not in last
