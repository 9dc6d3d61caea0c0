"""A unit that fails on one worker is tried on another; who cannot do the work is found before any is done."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fsspec
import pytest
from distributed import Client
from processes import Cluster, dask_cluster, wait_for
from seam import Seam, is_right, settings
from servers import http_server

from zonal.cluster.connection import connect
from zonal.engine.rounds import _named
from zonal.engine.run import run
from zonal.errors import InputError, StoreError
from zonal.events import Event

BLIND = Path(__file__).with_name("blind.py")


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with dask_cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture
def cluster(scheduler: Cluster) -> Iterator[Cluster]:
    """The one scheduler, without workers."""
    yield scheduler
    scheduler.end_all()
    with Client(scheduler.address, set_as_default=False) as client:
        wait_for(lambda: not client.scheduler_info()["workers"], "the workers never left")


def test_units_that_fail_on_one_worker_are_done_by_another(
    seam: Seam, cluster: Cluster, tmp_path: Path
) -> None:
    cluster.add("--preload", str(BLIND))
    cluster.add()
    cluster.pids(2)
    said: list[Event] = []
    with http_server(seam.mirror) as server, connect(cluster.address, None, None) as runner:
        asked = settings(server.url, tmp_path / "out", attempts=4)
        (result,) = run(asked, runner=runner, notify=said.append)
    assert is_right(seam, tmp_path / "out")
    again = [event for event in said if event.message.endswith("tried again")]
    assert len(again) == 1 and again[0].values["failed"] > 0
    assert "no route to the store (4 attempts)" in again[0].message
    assert result.manifest["plan"]["units"] == seam.reference.manifest["plan"]["units"]


def test_where_no_worker_reads_the_tiles_the_run_stops_with_tile_chunk_and_cause(
    seam: Seam, cluster: Cluster, tmp_path: Path
) -> None:
    cluster.add("--preload", str(BLIND))
    said = r"units failed, the first by http:\S+\.tiff: chunk \d+, bytes \d+ to \d+: no route to the store"
    with (
        http_server(seam.mirror) as server,
        connect(cluster.address, None, None) as runner,
        pytest.raises(StoreError, match=said + r" \(2 attempts\); finished parts are kept"),
    ):
        run(settings(server.url, tmp_path / "out", attempts=2), runner=runner)
    assert not (tmp_path / "out" / "stats.parquet").exists()


def test_a_worker_that_does_not_see_the_output_is_found_before_any_work(seam: Seam, cluster: Cluster) -> None:
    worker = cluster.add()
    cluster.pids(1)
    out = f"memory://only-here-{worker.pid}"
    with (
        connect(cluster.address, None, None) as runner,
        pytest.raises(InputError, match=rf"worker tcp://\S+: it does not see {out}\S*; choose an --output"),
    ):
        run(settings(seam.mirror, out), runner=runner)
    assert not fsspec.filesystem("memory").find(f"/only-here-{worker.pid}/.work/parts")


def test_a_worker_that_does_not_see_the_tiles_is_found_before_any_work(
    seam: Seam, cluster: Cluster, tmp_path: Path
) -> None:
    cluster.add()
    cluster.pids(1)
    memory = fsspec.filesystem("memory")
    memory.put(f"{seam.mirror}/", "/mirror-of-the-driver/", recursive=True)
    try:
        with (
            connect(cluster.address, None, None) as runner,
            pytest.raises(InputError, match=r"worker tcp://\S+: memory://mirror\S+\.tiff: no such file"),
        ):
            run(settings("memory://mirror-of-the-driver", tmp_path / "out"), runner=runner)
    finally:
        memory.rm("/mirror-of-the-driver", recursive=True)


PLAN: Any = SimpleNamespace(
    units=[SimpleNamespace(tile=0, chunks=(3, 4))], tiles=[SimpleNamespace(path="a/b.tiff")]
)


@pytest.mark.parametrize(
    ("key", "name"),
    [
        (("unit-x", 0), "unit 0 (tile a/b.tiff, chunks 3, 4)"),
        (("part-x", 7), "part 7"),
        (("share-x", 2), "task share-x"),
        ("job-x", "task job-x"),
    ],
)
def test_a_task_that_no_worker_survives_is_named_whatever_it_is(key: Any, name: str) -> None:
    assert _named(key, PLAN) == name
