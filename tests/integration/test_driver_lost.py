"""A run whose own process is killed: nothing stays behind that should not, and the same command goes on."""

from __future__ import annotations

import random
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from processes import Cluster, Driver, dask_cluster, wait_for, zonal_run
from seam import Seam, goes_on, is_right, manifest, some_written, workflow, written
from servers import FolderServer, http_server

LATENCY = 0.1
"""Seconds of each answer: so that a run lasts, and some but not all of it is done when it is killed."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with dask_cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


def stopped(
    server: FolderServer, cluster: Cluster | None, folder: Path, number: int, when: int, pause: float
) -> tuple[list[object], Driver]:
    """Stop a run with a signal once `when` parts are written; give its words, and what is left of it."""
    words: list[object] = [workflow(folder, server.url), "--output", folder / "out"]
    if cluster is None:
        words += ["--workers", 2, "--threads", 1]
    else:
        cluster.fill()
        words += ["--cluster", cluster.address]
    with zonal_run(*words, "--quiet", folder=folder) as driver:
        some_written(folder / "out", when, driver)
        time.sleep(pause)
        driver.send(number)
        driver.ended()
        wait_for(lambda: not driver.family.alive(), f"left behind: {driver.family.alive()}")
    return words, driver


def test_a_driver_that_was_killed_is_gone_on_with_by_the_same_command(
    seam: Seam, cluster: Cluster, tmp_path: Path, driver_kill: int
) -> None:
    draw = random.Random(f"driver {driver_kill}")
    when, pause = draw.randrange(4, seam.parts * 2 // 3), draw.uniform(0, 2 * LATENCY)
    where = cluster if driver_kill % 2 else None
    output = tmp_path / "out"
    with http_server(seam.mirror, latency=LATENCY) as server:
        words, first = stopped(server, where, tmp_path, signal.SIGKILL, when, pause)
        assert first.ended() == -signal.SIGKILL
        before = written(output)
        assert 0 < len(before) < seam.parts, "it was stopped with some but not all parts done"
        assert [path.name for path in output.iterdir()] == [".work"], "nothing is published"
        server.latency = 0.0
        with zonal_run(*words, folder=tmp_path, name="again") as second:
            assert second.ended() == 0, second.said
    assert is_right(seam, output)
    kept = re.search(rf"(\d+) of {seam.parts} parts are there already", second.said)
    # Those that a cluster's workers had in hand were finished without their driver.
    assert kept and len(before) <= int(kept[1]) < seam.parts
    assert manifest(output)["bytes"]["fetched"] < seam.reference.manifest["bytes"]["fetched"]


@pytest.mark.parametrize("number", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGTERM])
def test_a_driver_that_was_interrupted_says_so_and_its_run_can_go_on(
    seam: Seam, tmp_path: Path, number: signal.Signals
) -> None:
    with http_server(seam.mirror, latency=LATENCY) as server:
        _, driver = stopped(server, None, tmp_path, number, 5, 0.0)
        assert len(written(tmp_path / "out")) < seam.parts, "it was stopped with some but not all parts done"
        server.latency = 0.0
        assert goes_on(seam, server.url, tmp_path / "out")
    word = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}[number]
    assert driver.ended() == 128 + number
    assert driver.said == f"zonal: {word}; the same command goes on where it stopped\n"
