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

import pytest
from distributed import Client, LocalCluster
from processes import dask_cluster
from servers import LOOPBACK, clean_environment

import zonal
from zonal.cluster.connection import Starting, connect
from zonal.config.workflows import load
from zonal.demo.town import write_sample
from zonal.errors import InputError, StoreError
from zonal.events import Event

pytestmark = pytest.mark.timeout(60)


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
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if file.exists() and (text := file.read_text()).strip():
            return str(json.loads(text)["address"])
        time.sleep(0.05)
    raise TimeoutError(file)


def test_a_scheduler_that_dies_during_a_run_is_one_sentence_that_says_how_to_go_on(cluster: Cluster) -> None:
    graph = {"quick": (os.getpid,), "slow": (time.sleep, 30)}
    with (
        pytest.raises(StoreError, match=r"scheduler tcp:.* was lost.*the same command goes on") as caught,
        connect(cluster.address, None, None) as runner,
    ):
        for key, value in runner.run(graph, ["quick", "slow"]):
            assert (key, value != os.getpid()) == ("quick", True)
            cluster.scheduler.kill()
            began = time.monotonic()
    assert "\n" not in str(caught.value)
    assert time.monotonic() - began < 20


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
    assert "Traceback" not in caplog.text


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


def test_a_cluster_that_nobody_waited_for_goes_away_by_itself() -> None:
    began = time.monotonic()
    with Starting("local", 1, 1):
        pass
    assert time.monotonic() - began < 1  # it was not waited for
    deadline = time.monotonic() + 60
    while any(t.name == "zonal-cluster" for t in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert not [child for child in multiprocessing.active_children() if child.is_alive()]


def test_what_is_wrong_with_a_cluster_is_said_when_it_is_first_needed() -> None:
    with (
        Starting(f"tls://{LOOPBACK}:1", None, None) as runner,
        pytest.raises(InputError, match="no certificates"),
    ):
        runner.everywhere(os.getpid)


def test_a_tls_address_without_certificates_is_refused_at_once() -> None:
    began = time.monotonic()
    with pytest.raises(InputError, match="no certificates"), connect(f"tls://{LOOPBACK}:1", None, None):
        pass
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("name", ["dask", "numpy", "pyarrow"])
def test_a_cluster_with_another_version_of_what_both_speak_is_refused_by_both_versions(
    name: str, tmp_path: Path
) -> None:
    other = tmp_path / "other" / f"{name}-0.0.1.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.0.1\n")
    with dask_cluster(tmp_path / "cluster") as cluster:
        cluster.add(PYTHONPATH=str(tmp_path / "other"))
        mine = version(name)
        with (
            pytest.raises(InputError, match=rf"worker tcp.* has {name} 0\.0\.1, this process {name} {mine}$"),
            connect(cluster.address, None, None),
        ):
            pass


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
