"""A cluster of its own processes on loopback, and what is said when it goes away."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from distributed import Client, LocalCluster
from processes import dask_cluster, wait_for
from servers import LOOPBACK, clean_environment

import zonal
from zonal.cluster import connection
from zonal.cluster.connection import Starting, connect
from zonal.cluster.runner import Runner
from zonal.config.workflows import load
from zonal.demo.town import write_sample
from zonal.errors import InputError, StoreError
from zonal.events import Event

pytestmark = pytest.mark.timeout(240)


@dataclass(frozen=True)
class Cluster:
    """One scheduler and one worker, each a process."""

    address: str
    scheduler: subprocess.Popen[bytes]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    found = tmp_path / "scheduler.json"
    with ExitStack() as stack:
        words = ["--host", LOOPBACK, "--port", "0", "--no-dashboard", "--scheduler-file", str(found)]
        scheduler = stack.enter_context(_process("scheduler", *words, folder=tmp_path))
        address = _address(found)
        stack.enter_context(_process("worker", address, "--nthreads", "2", "--no-nanny", folder=tmp_path))
        yield Cluster(address, scheduler)


@contextmanager
def _process(kind: str, *words: str, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "dask", kind, *words]
    with (folder / f"{kind}.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, env=clean_environment(), stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _address(file: Path) -> str:
    text = wait_for(lambda: file.exists() and file.read_text().strip(), "no scheduler came")
    return str(json.loads(text)["address"])


def test_a_scheduler_that_dies_during_a_run_is_one_sentence_that_says_how_to_go_on(cluster: Cluster) -> None:
    # Whoever waited for the slow one would wait for ever.
    graph = {"quick": (os.getpid,), "slow": (time.sleep, 3600)}
    with (
        pytest.raises(StoreError, match=r"scheduler tcp:.* was lost.*the same command goes on") as caught,
        connect(cluster.address, None, None) as runner,
    ):
        for key, value in runner.run(graph, ["quick", "slow"]):
            assert (key, value != os.getpid()) == ("quick", True)
            cluster.scheduler.kill()
    assert "\n" not in str(caught.value)


def test_a_scheduler_that_dies_before_the_first_task_is_the_same_sentence(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        pytest.raises(StoreError, match=r"scheduler tcp:.* was lost.*the same command goes on"),
        connect(cluster.address, None, None) as runner,
    ):
        cluster.scheduler.kill()
        cluster.scheduler.wait()
        runner.everywhere(os.getpid)
    # Servers of other tests live in this process, too, and may still answer somebody.
    said = [
        record.getMessage() + (record.exc_text or "")
        for record in caplog.records
        if record.name != "werkzeug"
    ]
    assert "Traceback" not in "".join(said)


def test_a_scheduler_that_dies_before_anybody_asked_is_the_same_sentence(cluster: Cluster) -> None:
    with (
        pytest.raises(StoreError, match=r"scheduler tcp:.* was lost.*the same command goes on"),
        Starting(cluster.address, None, None) as runner,
    ):
        assert "Dask workers: " in runner.described
        cluster.scheduler.kill()
        cluster.scheduler.wait()
        time.sleep(0.5)
        runner.everywhere(os.getpid)


def test_a_cluster_that_nobody_waited_for_goes_away_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    left, came = threading.Event(), threading.Event()

    @contextmanager
    def late(*arguments: Any) -> Iterator[Runner]:
        """Come up when it has been left already: who waited for it would wait for ever."""
        left.wait()
        with connect(*arguments) as runner:
            came.set()
            yield runner

    monkeypatch.setattr(connection, "connect", late)
    with Starting("local", 1, 1):
        pass
    left.set()
    wait_for(lambda: not any(thread.name == "zonal-cluster" for thread in threading.enumerate()), "it stays")
    assert came.is_set()
    assert not [child for child in multiprocessing.active_children() if child.is_alive()]


def test_what_is_wrong_with_a_cluster_is_said_when_it_is_first_needed() -> None:
    with (
        Starting(f"tls://{LOOPBACK}:1", None, None) as runner,
        pytest.raises(InputError, match="no certificates"),
    ):
        runner.everywhere(os.getpid)


def test_a_tls_address_without_certificates_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def client(*arguments: Any, **options: Any) -> None:
        raise AssertionError("a client of Dask would try for as long as it waits for a scheduler")

    monkeypatch.setattr("distributed.Client", client)
    with pytest.raises(InputError, match="no certificates"), connect(f"tls://{LOOPBACK}:1", None, None):
        pass


def test_a_cluster_with_another_version_of_what_both_speak_is_refused_by_both_versions(
    tmp_path: Path,
) -> None:
    with dask_cluster(tmp_path / "cluster") as cluster:
        for name in ("dask", "numpy", "pyarrow"):
            other = tmp_path / name / f"{name}-0.0.1.dist-info"
            other.mkdir(parents=True)
            (other / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.0.1\n")
            worker = cluster.add(PYTHONPATH=str(other.parent))
            says = rf"worker tcp.* has {name} 0\.0\.1, this process {name} {version(name)}$"
            with pytest.raises(InputError, match=says), connect(cluster.address, None, None):
                pass
            cluster.end(worker)


def test_a_run_in_python_is_done_by_the_active_client(tmp_path: Path) -> None:
    sample = write_sample(tmp_path / "town")
    words = {"zones": str(sample.zones), "mirror": str(sample.mirror), "output": str(tmp_path / "out")}
    told: list[Event] = []
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None) as cluster,
        Client(cluster),
    ):
        (result,) = zonal.run(load("demo", {**words, "steps": "stats"}), notify=told.append)
    assert result.fresh
    (where,) = [event.message for event in told if event.message.startswith("Dask workers")]
    assert where.startswith("Dask workers: 1, threads: 1,")
