"""The log lines and the metrics of the command, as who watches it from outside sees them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import urllib.request
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

import pytest
import seam
from processes import wait_for
from prometheus_client.parser import text_string_to_metric_families as parsed
from servers import FolderServer, clean_environment, http_server

LOGIN = "reader:pa55word"

Samples = dict[tuple[str, ...], float]


@pytest.fixture
def mirror(wide_seam: seam.Seam) -> Path:
    return wide_seam.mirror


@dataclass(frozen=True)
class Logged:
    """A run as a process of its own, and where its standard error goes."""

    process: subprocess.Popen[str]
    log: Path

    @property
    def over(self) -> bool:
        return self.process.poll() is not None

    def lines(self) -> list[dict[str, Any]]:
        """Each whole line that there is; all are JSON."""
        return [json.loads(line) for line in self.log.read_text().split("\n")[:-1]]

    def metrics(self) -> Samples | None:
        """What is served; None once the run is over."""
        url = wait_for(self.lines, "no line")[0]["message"].removeprefix("metrics: ")
        try:
            with urllib.request.urlopen(url, timeout=120) as answer:
                text = answer.read().decode()
        except (OSError, HTTPException):
            return None
        assert "pa55word" not in text and "127.0.0.1" not in text
        return {
            (sample.name, *sample.labels.values()): sample.value
            for family in parsed(text)
            for sample in family.samples
        }


@contextmanager
def started(mirror: FolderServer, output: Path, *words: str, **more: Any) -> Iterator[Logged]:
    """Start a run of the seam that logs JSON."""
    url = mirror.url.replace("://", f"://{LOGIN}@")
    file = seam.workflow(
        output.parent, url, keep_water=True, output=str(output), workers=1, threads=2, **more
    )
    log = output.parent / "log"
    command = [sys.executable, "-m", "zonal", "run", str(file), "--json-logs", *words]
    with (
        log.open("w") as said,
        subprocess.Popen(
            command, env=clean_environment(), stdout=subprocess.DEVNULL, stderr=said, text=True
        ) as process,
    ):
        try:
            yield Logged(process, log)
        finally:
            mirror.gate.set()
            process.kill()


def parts_in(lines: list[dict[str, Any]], year: int = 2024) -> list[int]:
    return sorted(line["part"] for line in lines if line.get("kind") == "part" and line["year"] == year)


def test_lines_and_metrics_of_a_run_agree_with_its_manifests(mirror: Path, tmp_path: Path) -> None:
    with http_server(mirror, login=LOGIN, latency=0.02) as server:

        def fault(method: str, path: str, span: str) -> int:
            """Some ranges come at the second time only."""
            asked = method, path, span
            drawn = path.endswith(".tiff") and zlib.crc32(repr(asked).encode()) % 5 == 0
            return 503 if drawn and server.asked.count(asked) == 1 else 0

        server.fault = fault
        words = ("--metrics", "127.0.0.1:0", "--steps", "stats,pca")
        with started(server, tmp_path / "out", *words, year=[2023, 2024]) as run:
            seen: list[Samples] = []
            while (found := run.metrics()) is not None:
                seen.append(found)
            assert run.process.wait() == 0, run.log.read_text()
            lines = run.lines()
    assert "pa55word" not in run.log.read_text()
    manifests = {year: seam.manifest(tmp_path / f"out-{year}") for year in (2023, 2024)}
    (identity,) = {line["run"] for line in lines} | {manifest["run"] for manifest in manifests.values()}
    assert {line.get("state") for line in lines[1:]} == {"WA"}
    assert {line["level"] for line in lines} == {"info"}
    for key, value in seen[0].items():
        assert key[0] != "zonal_info" or (identity in key and value == 1)

    counters = {key for samples in seen for key in samples if key[0].endswith("_total")}
    for key in counters:
        values = [samples[key] for samples in seen if key in samples]
        assert values == sorted(values), key
    for year, manifest in manifests.items():
        assert parts_in(lines, year) == list(range(manifest["plan"]["parts"]))
        of_year = ("WA", str(year))
        last = {key[0]: value for key, value in seen[-1].items() if key[1:] == of_year}
        for name in ("units", "parts", "chunks"):
            assert last[f"zonal_{name}"] == last[f"zonal_{name}_done_total"] == manifest["plan"][name]
        assert last["zonal_zones"] == last["zonal_zones_done_total"] == manifest["zones"]["kept"]
        assert last["zonal_bytes"] == manifest["bytes"]["to_fetch"]
        assert last["zonal_fetched_bytes_total"] == manifest["bytes"]["fetched"]
        assert last["zonal_retries_total"] == manifest["retries"] > 0
        assert last["zonal_warnings_total"] == last["zonal_units_failed_total"] == 0
        between = {samples.get(("zonal_chunks_done_total", *of_year)) for samples in seen}
        assert len(between) > 3, "it was seen while it went on"
        stages = {
            line["stage"]: line["seconds"] for line in lines if line.get("year") == year and "stage" in line
        }
        assert set(stages) == {"planning", "waiting", "computing", "publishing", "pca"}
        assert all(stages[name] == manifest["seconds"][name] for name in set(stages) - {"pca"})
        told = {
            key[1]: value
            for key, value in seen[-1].items()
            if key[0] == "zonal_stage_seconds" and key[2:] == of_year
        }
        assert told.items() <= stages.items() and "computing" in told


def test_the_last_line_of_a_run_that_fails_says_what_it_was_about_and_the_next_run_does_the_rest(
    mirror: Path, tmp_path: Path
) -> None:
    with http_server(mirror, login=LOGIN, latency=0.01) as server:
        with started(server, tmp_path / "out", "--attempts", "2", "--steps", "stats") as run:
            wait_for(lambda: len(seam.written(tmp_path / "out")) >= 3 or run.over, "no parts")
            server.fault = lambda method, path, span: 500 * path.endswith(".tiff")
            assert run.process.wait() == 4
            *before, last = run.lines()
        assert (last["level"], last["exit_code"], last["state"], last["year"]) == ("error", 4, "WA", 2024)
        done = parts_in(before)
        assert last["part"] and not {*last["part"]} & {*done}
        assert {line["run"] for line in before} == {last["run"]}
        assert {(line["state"], line["year"]) for line in before} == {("WA", 2024)}

        server.fault = lambda method, path, span: 0
        words = ("--steps", "stats", "--metrics", "127.0.0.1:0")
        with started(server, tmp_path / "out", *words) as again:
            seen: list[Samples] = []
            while (found := again.metrics()) is not None:
                seen.append(found)
            assert again.process.wait() == 0
            rest = parts_in(again.lines())
    manifest = seam.manifest(tmp_path / "out")
    assert len(done) >= 3 and Counter(done + rest) == Counter(range(manifest["plan"]["parts"]))
    begun = next(samples for samples in seen if ("zonal_parts", "WA", "2024") in samples)
    assert begun["zonal_parts_done_total", "WA", "2024"] >= len(done)
    assert manifest["run"] == again.lines()[0]["run"] != last["run"]


def test_a_run_that_is_stopped_says_so_with_the_id_that_its_lock_had(mirror: Path, tmp_path: Path) -> None:
    with (
        http_server(mirror, login=LOGIN) as server,
        started(server, tmp_path / "out", "--steps", "stats") as run,
    ):
        wait_for(lambda: seam.written(tmp_path / "out") or run.over, "no parts")
        server.gate.clear()
        held = json.loads((tmp_path / "out/.work/lock.json").read_text())["session"]
        run.process.send_signal(signal.SIGTERM)
        assert run.process.wait(timeout=300) == 143
        last = run.lines()[-1]
    assert (last["level"], last["state"], last["year"], last["run"]) == ("error", "WA", 2024, held)


def test_metrics_are_served_where_nothing_is_to_do(seam_output: Path, mirror: Path) -> None:
    with (
        http_server(mirror, login=LOGIN) as server,
        started(server, seam_output, "--steps", "stats", "--metrics", "127.0.0.1:0") as run,
    ):
        server.gate.clear()
        assert [name for name, *_ in run.metrics() or ()] == ["zonal_info"]
        server.gate.set()
        assert run.process.wait(timeout=300) == 0
        assert run.metrics() is None


@pytest.fixture
def seam_output(mirror: Path, tmp_path: Path) -> Path:
    """A finished output."""
    with (
        http_server(mirror, login=LOGIN) as server,
        started(server, tmp_path / "out", "--steps", "stats") as run,
    ):
        assert run.process.wait(timeout=300) == 0
    return tmp_path / "out"
