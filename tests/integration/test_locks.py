"""Who may write to an output, among processes that are alive, stopped and killed."""

from __future__ import annotations

import json
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from builds import Run
from servers import http_server
from town import Town, ended, parts_of


@pytest.fixture(scope="module")
def mirror(town: Town) -> Iterator[str]:
    """The tiles again, from a server that nobody stops: they have the same ETags."""
    with http_server(town.mirror) as server:
        yield server.url


@pytest.fixture
def reference(town_table: Run) -> bytes:
    return town_table.bytes


def status(output: Path) -> dict[str, object]:
    done = ended([sys.executable, "-m", "zonal", "status", str(output), "--json"])
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout)
    return found


def files(output: Path) -> dict[str, tuple[int, bytes]]:
    return {
        path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in output.iterdir() if path.is_file()
    }


def test_of_two_runs_on_one_output_the_second_is_told_who_is_first(
    town: Town, mirror: str, reference: bytes, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    with town.started(output) as (first, server):
        second = ended(town.command(output, mirror))
        assert second.returncode == 5, second.stderr
        assert f"in use by process {first.pid} on {socket.gethostname()} since " in second.stderr
        assert second.stderr.count("\n") == 1
        seen = status(output)
        assert seen["state"] == "running" and f"process {first.pid} on" in str(seen["holder"])
        server.gate.set()
        _, said = first.communicate(timeout=300)
    assert first.returncode == 0, said
    assert (output / "stats.parquet").read_bytes() == reference
    assert sorted(path.name for path in output.iterdir()) == ["manifest.json", "stats.parquet"]


def test_a_run_that_was_killed_goes_on_at_once_and_does_only_what_is_missing(
    town: Town, mirror: str, reference: bytes, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    with town.started(output) as (first, _):
        first.kill()
        first.wait()
        seen = status(output)
        assert seen["state"] == "unfinished"
        done, of = seen["parts"]  # type: ignore[misc]
        assert 3 <= done < of == 26
        again = ended(town.command(output, mirror))
    assert again.returncode == 0, again.stderr
    assert f"{done} of 26 parts are there already" in again.stderr
    assert (output / "stats.parquet").read_bytes() == reference
    assert sorted(path.name for path in output.iterdir()) == ["manifest.json", "stats.parquet"]


@pytest.mark.parametrize(
    ("first_owner", "second_owner", "beat"),
    [
        pytest.param("job-1", "job-1", "10", id="the same owner takes over at once"),
        pytest.param("job-1", "job-2", "0.5", id="another after three missed beats"),
    ],
)
def test_a_stopped_run_loses_its_lock_and_publishes_nothing_when_it_is_continued(
    town: Town, mirror: str, reference: bytes, tmp_path: Path, first_owner: str, second_owner: str, beat: str
) -> None:
    output = tmp_path / "out"
    with town.started(output, ZONAL_OWNER=first_owner, ZONAL_BEAT=beat) as (first, server):
        first.send_signal(signal.SIGSTOP)
        try:
            before = parts_of(output)
            if first_owner != second_owner:
                time.sleep(3 * float(beat))  # its last sign of life is no longer fresh
            second = ended(town.command(output, mirror), ZONAL_OWNER=second_owner, ZONAL_BEAT=beat)
            assert second.returncode == 0, second.stderr
            assert f"{before} of 26 parts are there already" in second.stderr
            published = files(output)
            assert published["stats.parquet"][1] == reference
        finally:
            first.send_signal(signal.SIGCONT)
        server.gate.set()
        _, said = first.communicate(timeout=300)
    assert first.returncode == 5, said
    last = said.strip().splitlines()[-1]
    assert "nothing more is written" in last
    assert files(output) == published, "neither written anew nor removed"
