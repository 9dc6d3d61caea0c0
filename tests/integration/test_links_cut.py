"""A scheduler that dies, and links that are cut: between worker and scheduler, driver and scheduler."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from processes import Cluster, dask_cluster, link, zonal_run
from seam import Seam, goes_on, is_right, some_written, workflow, written
from servers import http_server

pytestmark = pytest.mark.timeout(240)

LATENCY = 0.1

CUTS = (
    ("worker", "cut"),
    ("driver", "cut"),
    ("worker", "silent"),
    ("driver", "silent"),
    ("worker", "cut"),
    ("driver", "cut"),
)
"""Whose link to the scheduler, and how: closed at both ends, or open with nothing coming through."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    # Dask's own patience with a silent worker is five minutes.
    quick = {"DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "20s"}
    with dask_cluster(tmp_path_factory.mktemp("cluster"), **quick) as cluster:
        cluster.fill()
        yield cluster


def test_a_link_that_is_cut_does_not_show_in_the_table(
    seam: Seam, cluster: Cluster, tmp_path: Path, cut: int
) -> None:
    whose, how = CUTS[cut]
    draw = random.Random(f"cut {cut}")
    when, pause = draw.randrange(3, seam.parts * 2 // 3), draw.uniform(0, 2 * LATENCY)
    output = tmp_path / "out"
    with http_server(seam.mirror, latency=LATENCY) as server, link(cluster.address) as between:
        cluster.fill()
        if whose == "worker":
            far = cluster.add(address=between.address)
        cluster.pids(len(cluster.workers))
        words = [workflow(tmp_path, server.url, patience=15), "--output", output, "--cluster"]
        place = between.address if whose == "driver" else cluster.address
        words.append(place)
        with zonal_run(*words, "--quiet", folder=tmp_path) as driver:
            some_written(output, when, driver)
            time.sleep(pause)
            between.cut() if how == "cut" else between.swallow()
            assert 0 < len(written(output)) < seam.parts, "it was cut with some but not all parts done"
            if whose == "worker":
                assert driver.ended() == 0, driver.said
                cluster.end(far)
            else:
                assert driver.ended() == 4, driver.said
                assert "the same command goes on where it stopped" in driver.sentence
                # Where nobody knew that the driver was cut off, its cluster may have done all.
                assert goes_on(seam, server.url, output)
    assert is_right(seam, output)


def test_a_scheduler_that_dies_stops_the_run_and_the_same_command_goes_on_with_another(
    seam: Seam, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    with http_server(seam.mirror, latency=LATENCY) as server:
        words = [workflow(tmp_path, server.url), "--output", output]
        with dask_cluster(tmp_path / "one") as cluster:
            cluster.add()
            with zonal_run(*words, "--cluster", cluster.address, "--quiet", folder=tmp_path) as driver:
                some_written(output, 5, driver)
                cluster.scheduler.kill()
                assert driver.ended() == 4, driver.said
                assert len(written(output)) < seam.parts, "it died with some but not all parts done"
        assert f"the connection to the Dask scheduler {cluster.address} was lost" in driver.sentence
        assert "the same command goes on where it stopped" in driver.sentence
        server.latency = 0.0
        assert goes_on(seam, server.url, output)
