"""Workers that die, run out of memory or never come back: real processes, killed at seeded moments.

Whatever is lost, the table is that of the undisturbed run to the last byte, or the run stops and can go on.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from processes import Cluster, dask_cluster, zonal_run
from seam import Seam, goes_on, is_right, some_written, workflow, written
from servers import http_server

DEADLY = Path(__file__).with_name("deadly.py")

LATENCY = 0.1
"""Seconds of each answer: so that a run lasts, and some but not all of it is done when something dies."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    # One task at a worker, none in its queue: the one that kills it is the one to blame.
    strict = {"DASK_DISTRIBUTED__SCHEDULER__WORKER_SATURATION": "1.0"}
    with dask_cluster(tmp_path_factory.mktemp("cluster"), **strict) as cluster:
        yield cluster


def test_a_worker_killed_in_mid_run_does_not_show_in_the_table(
    seam: Seam, cluster: Cluster, tmp_path: Path, worker_kill: int
) -> None:
    draw = random.Random(f"worker {worker_kill}")
    when, pause = draw.randrange(1, seam.parts * 2 // 3), draw.uniform(0, 2 * LATENCY)
    kind = ("local", "no nanny", "nanny")[worker_kill % 3]
    output = tmp_path / "out"
    with http_server(seam.mirror, latency=LATENCY) as server:
        words = [workflow(tmp_path, server.url), "--output", output, "--quiet"]
        if kind == "local":
            words += ["--workers", 2, "--threads", 1]
        else:
            alone, nursed = cluster.fill()
            words += ["--cluster", cluster.address]
            target = cluster.computing(alone if kind == "no nanny" else nursed)
        with zonal_run(*words, folder=tmp_path) as driver:
            some_written(output, when, driver)
            if kind == "local":
                target = draw.choice(driver.workers())
            time.sleep(pause)
            target.kill()
            done = len(written(output))
            assert driver.ended() == 0, driver.said
    assert 0 < done < seam.parts, "it was killed with some but not all parts done"
    assert is_right(seam, output)


@pytest.mark.parametrize(
    "comes_back",
    [
        pytest.param(False, id="for good"),
        pytest.param(True, id="for a while", marks=pytest.mark.slow),
    ],
)
def test_all_workers_killed_is_waited_for_and_then_a_stop_that_can_go_on(
    seam: Seam, cluster: Cluster, tmp_path: Path, comes_back: bool
) -> None:
    output = tmp_path / "out"
    with http_server(seam.mirror, latency=LATENCY) as server:
        words = [workflow(tmp_path, server.url), "--output", output, "--cluster", cluster.address]
        cluster.fill()
        cluster.pids(2)
        patience = 60 if comes_back else 3
        with zonal_run(*words, "--quiet", "--patience", patience, folder=tmp_path) as driver:
            some_written(output, 5, driver)
            cluster.end_all()
            kept = written(output)
            assert 0 < len(kept) < seam.parts
            if comes_back:
                cluster.fill()
                assert driver.ended() == 0, driver.said
            else:
                assert driver.ended() == 4, driver.said
        if not comes_back:
            assert re.search(r"has had no worker for \d+ s; .*the same command goes on", driver.sentence)
            assert written(output) == kept
            assert goes_on(seam, server.url, output)
    assert is_right(seam, output)


def test_a_worker_that_runs_out_of_memory_is_replaced(seam: Seam, cluster: Cluster, tmp_path: Path) -> None:
    output, mark = tmp_path / "out", tmp_path / "mark"
    cluster.end_all()
    greedy = {"DEADLY_UNIT": "30", "DEADLY_MARK": str(mark)}
    worker = cluster.add("--memory-limit", "1.5 GB", "--preload", DEADLY, nanny=True, **greedy)
    with http_server(seam.mirror) as server:
        words = [workflow(tmp_path, server.url), "--output", output, "--cluster", cluster.address]
        with zonal_run(*words, folder=tmp_path) as driver:
            assert driver.ended() == 0, driver.said
    assert mark.exists() and "memory budget. Restarting" in cluster.log(worker).read_text()
    assert is_right(seam, output)


def test_a_unit_that_keeps_killing_workers_is_named_and_stops_the_run(
    seam: Seam, cluster: Cluster, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    cluster.end_all()
    for _ in range(4):
        cluster.add("--preload", DEADLY, DEADLY_UNIT="40")
    cluster.pids(4)
    with http_server(seam.mirror) as server:
        words = [workflow(tmp_path, server.url), "--output", output, "--cluster", cluster.address]
        with zonal_run(*words, "--quiet", folder=tmp_path) as driver:
            assert driver.ended() == 4, driver.said
        said = (
            r"unit 40 \(tile \S+\.tiff, chunks \d+\), or one .* ended 4 workers, .*the same command goes on"
        )
        assert re.search(said, driver.sentence)
        assert goes_on(seam, server.url, output)
