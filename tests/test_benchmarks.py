"""The benchmarks' harness, on a raster of a few chunks: no peer is needed, and no seconds are judged."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from builds import REPO, Builds

from benchmarks.process import run

SMALL = ("--chunks", "2", "--pixels", "128", "--zones", "5x5", "--rounds", "1")


@pytest.fixture(scope="session")
def bench(builds: Builds) -> tuple[str, dict[str, Any]]:
    """What it prints, and its JSON."""

    def make(folder: Path) -> None:
        command = [sys.executable, "-m", "benchmarks.bench", *SMALL]
        command += ["--folder", str(folder / "scene"), "--json", str(folder / "figures.json")]
        command += ["--only", "decode", "zonal", "exactextract", "rasterstats"]
        ran = subprocess.run(command, cwd=REPO, capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr
        (folder / "printed").write_text(ran.stdout)

    folder = builds.folder("bench", make)
    return (folder / "printed").read_text(), json.loads((folder / "figures.json").read_text())


def test_each_way_has_its_row_and_its_seconds(bench: tuple[str, dict[str, Any]]) -> None:
    printed, figures = bench
    assert "25 zones on 2 x 2 chunks" in printed
    rows = {row["way"]["name"]: row for row in figures["rows"]}
    for name in ("decode", "zonal", "exactextract"):
        assert not rows[name]["error"]
        for what in ("whole", "job", "startup", "peak"):
            assert len(rows[name][what]) == 1 and rows[name][what][0] > 0
        if name != "zonal":  # whose two figures are of two runs, of which a busy machine may slow either
            assert rows[name]["whole"][0] >= rows[name]["job"][0]
        assert rows[name]["way"]["title"] in printed


def test_a_peer_that_is_not_installed_is_a_row_that_says_so(bench: tuple[str, dict[str, Any]]) -> None:
    printed, figures = bench
    row = next(row for row in figures["rows"] if row["way"]["name"] == "rasterstats")
    assert bool(row["missing"]) == ("not installed: pip install 'zonal[bench]'" in printed)
    assert row["missing"] or row["job"] or row["error"]


def test_exactextract_and_zonal_agree(bench: tuple[str, dict[str, Any]]) -> None:
    rows = {row["way"]["name"]: row for row in bench[1]["rows"]}
    for name in ("zonal", "exactextract"):
        assert max(rows[name]["differences"]) < 1e-6
        assert rows[name]["nulls"] == 0


def test_the_figures_that_are_judged_name_their_bars(bench: tuple[str, dict[str, Any]]) -> None:
    printed, figures = bench
    judged = {figure["name"]: figure for figure in figures["judged"]}
    fetched = judged["bytes fetched / compressed bytes of chunks"]
    assert 1 <= fetched["value"] < 1.2
    assert "must <= 1.05, aim 1.01" in printed
    assert "must >= 20, aim 50" in printed


@pytest.mark.parametrize(
    ("words", "limit", "said"),
    [
        ("import os; os.kill(os.getpid(), 11)", 60, "signal 11"),
        ("1 / 0", 60, "exit code 1: ZeroDivisionError"),
        ("import time; time.sleep(60)", 1, "stopped after 1 s"),
    ],
)
def test_a_process_that_crashes_or_hangs_is_an_outcome(words: str, limit: float, said: str) -> None:
    ended = run([sys.executable, "-c", words], limit=limit)
    assert ended.error.startswith(said)


def test_a_process_tells_its_seconds_its_peak_and_its_last_line() -> None:
    words = "import time; room = bytearray(200 << 20); time.sleep(0.5); print('hello'); print('{\"a\": 1}')"
    ended = run([sys.executable, "-c", words])
    assert ended.error == ""
    assert ended.report == {"a": 1}
    assert ended.seconds >= 0.5
    assert ended.peak > 200
