"""Workers of this machine: what they start from, what they are given, and that they go."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from processes import SECONDS, wait_for
from servers import clean_environment

from zonal.cluster.connection import Starting, connect
from zonal.errors import UsageError

pytestmark = pytest.mark.timeout(240)

# What `zonal run` does before its inputs are read; then it tells of its processes, and waits.
COMMAND = """
import json, os, sys, threading
from zonal.cluster.connection import place_of
from zonal.config.settings import Settings
from zonal.engine.preload import FORKED, PRELOAD

def tell():
    import gc, os, sys
    names = ("numba", "zonal.engine.work", "distributed", "bokeh")
    tasks = f"/proc/{os.getppid()}/task"
    return {
        "parent": os.getppid(),
        "threads_of_parent": [open(f"{tasks}/{task}/comm").read().strip() for task in os.listdir(tasks)],
        "mmap_threshold": os.environ.get("MALLOC_MMAP_THRESHOLD_"),
        "omp": os.environ.get("OMP_NUM_THREADS"),
        "loaded": [name for name in names if name in sys.modules],
        "frozen": gc.get_freeze_count(),
        "gc": gc.isenabled(),
    }

if __name__ == "__main__":
    place = place_of(Settings(workers=2, threads=1), preload=PRELOAD, forked=FORKED)
    mine = {name: os.environ.get(name) for name in ("MALLOC_MMAP_THRESHOLD_", "OMP_NUM_THREADS")}
    with place as runner:
        told = list(runner.everywhere(tell).values())
        print(json.dumps({"mine": mine, "workers": told}), flush=True)
        sys.stdin.read()
"""

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="workers are forks on Linux only")


@contextmanager
def _command(folder: Path) -> Iterator[subprocess.Popen[str]]:
    script = folder / "command.py"
    script.write_text(COMMAND)
    # Dask leaves its own in the environment of a process that has started workers, as this one may have.
    environment = {
        name: value
        for name, value in clean_environment().items()
        if not name.endswith("NUM_THREADS") and not name.startswith("MALLOC")
    }
    with subprocess.Popen(
        [sys.executable, str(script)],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@on_linux
def test_workers_are_forks_of_one_process_that_has_loaded_all_they_need(tmp_path: Path) -> None:
    with _command(tmp_path) as process:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        process.communicate("")
    first, second = told["workers"]
    assert first["parent"] == second["parent"] != process.pid
    # A fork takes one thread with it, and all locks; jemalloc (Arrow brings it) lets go of its own.
    assert sum(name != "jemalloc_bg_thd" for name in first["threads_of_parent"]) == 1
    assert first["frozen"] > 100_000  # before the fork: the forks share these pages
    assert first["loaded"] == ["numba", "zonal.engine.work", "distributed"]
    assert first["gc"]
    assert (first["mmap_threshold"], first["omp"]) == (str(32 * 2**20), "1")
    assert told["mine"] == {"MALLOC_MMAP_THRESHOLD_": None, "OMP_NUM_THREADS": None}
    assert process.returncode == 0


@on_linux
@pytest.mark.parametrize("when", ["loading", "working"])
def test_nothing_is_left_of_a_command_that_was_killed(tmp_path: Path, when: str) -> None:
    with _command(tmp_path) as process:
        assert process.stdout is not None
        if when == "working":
            process.stdout.readline()
        command = psutil.Process(process.pid)
        children = wait_for(lambda: command.children(recursive=True), "nothing is started")
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        _, alive = psutil.wait_procs(children, timeout=SECONDS)
    assert not alive


def test_the_dashboard_is_loaded_when_somebody_looks() -> None:
    with connect("local", 1, 1) as runner:
        base = runner.described.split("dashboard: ")[1].rsplit("/", 1)[0]

        def look(page: str) -> tuple[int, str]:
            with urllib.request.urlopen(f"{base}/{page}", timeout=30) as answer:
                return answer.status, answer.read().decode()

        bokeh = "bokeh.server.server" in sys.modules
        assert look("health") == (200, "ok")
        assert ("bokeh.server.server" in sys.modules) == bokeh
        for page in ("status", "tasks", ""):
            status, text = look(page)
            assert status == 200
            assert "bokeh" in text
        assert "bokeh.server.server" in sys.modules


def _listening(*processes: psutil.Process) -> dict[int, str]:
    """Ports that processes listen on: port -> address."""
    found = [place for process in processes for place in process.net_connections("inet")]
    return {place.laddr.port: place.laddr.ip for place in found if place.status == "LISTEN"}


def test_scheduler_workers_and_dashboard_listen_on_loopback_only() -> None:
    before = _listening(psutil.Process())
    with connect("local", 2, 1) as runner:
        port = int(runner.described.rsplit(":", 1)[1].removesuffix("/status"))
        workers = [psutil.Process(pid) for pid in runner.everywhere(os.getpid).values()]
        places = _listening(psutil.Process(), *workers)
    places = {port: address for port, address in places.items() if port not in before}
    assert port in places and len(places) >= 4
    assert {*places.values()} == {"127.0.0.1"}


def test_the_dashboard_listens_where_it_is_told_to_and_nothing_else_does() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.2", 0))
        told = free.getsockname()[1]
    before = _listening(psutil.Process())
    with Starting("local", 1, 1, f"127.0.0.2:{told}") as runner:
        assert runner.described.endswith(f"dashboard: http://127.0.0.2:{told}/status")
        places = _listening(psutil.Process())
        with urllib.request.urlopen(f"http://127.0.0.2:{told}/health", timeout=30) as answer:
            assert answer.status == 200
        with pytest.raises(OSError):
            socket.create_connection(("127.0.0.1", told), timeout=5)
    places = {port: address for port, address in places.items() if port not in before}
    assert places.pop(told) == "127.0.0.2"
    assert {*places.values()} == {"127.0.0.1"}


@pytest.mark.parametrize("place", ["203.0.113.1:0", "no-such-host.invalid:1"])
def test_a_place_where_the_dashboard_cannot_listen_is_one_sentence(place: str) -> None:
    with (
        pytest.raises(UsageError, match=rf"^dashboard {place}: cannot listen there: [^\n]+$"),
        connect("local", 1, 1, place),
    ):
        pass


def test_a_port_of_another_is_not_exchanged_for_a_free_one() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        place = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(UsageError, match="already in use"), connect("local", 1, 1, place):
            pass
