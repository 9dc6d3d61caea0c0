"""Memory of a worker thread: bounded, however many chunks it has seen."""

from __future__ import annotations

import multiprocessing
import tracemalloc
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import fsspec
import numpy as np
import psutil
import pytest
from synthetic import jittered_blocks, make_mirror, random_tile, utm_grid

from zonal.config.settings import Settings
from zonal.engine import run as engine
from zonal.io.raster.cog import Cog

WEST, SOUTH = 500_000, 4_000_000
SIDE, CHUNK = 2048, 256  # 64 chunks of 4 MiB decoded, and as much stored: the codes are noise
DECODED = 64 * CHUNK * CHUNK
REST = DECODED - 1  # coverage, moments and small change: no room for another chunk


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("memory")
    grid = utm_grid(32616, WEST, SOUTH, SIDE, SIDE, CHUNK)
    mirror = make_mirror(folder, [random_tile(np.random.default_rng(0), grid)])
    blocks = jittered_blocks((WEST, SOUTH, WEST + 10 * SIDE, SOUTH + 10 * SIDE), 30, 30, "EPSG:32616")
    blocks.to_parquet(folder / "zones.parquet")
    return {
        "zones": str(folder / "zones.parquet"),
        "zone_id": "GEOID20",
        "year": 2024,
        "mirror": str(mirror),
        "output": str(folder / "out"),
        "unit_chunks": 4,
    }


class Watching:
    """A runner that does one task after the other, and looks at the process after each."""

    described = "one task after the other"

    def __init__(self) -> None:
        self.resident: list[int] = []
        self.peaks: list[int] = []

    def run(
        self, graph: dict[Any, Any], keys: Sequence[Any], avoid: Collection[str] = ()
    ) -> Iterator[tuple[Any, Any]]:
        import dask
        from dask.callbacks import Callback

        def begin(key: Any, *_: Any) -> None:
            if tracemalloc.is_tracing():
                tracemalloc.reset_peak()
                self.before = tracemalloc.get_traced_memory()[0]

        def end(key: Any, *_: Any) -> None:
            if key[0].startswith("unit-"):
                self.resident.append(psutil.Process().memory_info().rss)
                if tracemalloc.is_tracing():
                    self.peaks.append(tracemalloc.get_traced_memory()[1] - self.before)

        with Callback(pretask=begin, posttask=end):
            values = dask.get(graph, list(keys))
        yield from zip(keys, values, strict=True)

    def everywhere(self, function: Any, *arguments: Any) -> dict[str, Any]:
        return {"here": function(*arguments)}


def resident(settings: dict[str, Any], told: Any) -> None:
    """Child process: resident memory after each unit of a run."""
    runner = Watching()
    engine.run(Settings(**settings), runner=runner)
    told.send(runner.resident)


@pytest.mark.slow
def test_resident_memory_after_64_chunks_is_that_after_16(inputs: dict[str, Any]) -> None:
    context = multiprocessing.get_context("spawn")
    mine, its = context.Pipe(duplex=False)
    child = context.Process(target=resident, args=(inputs, its))
    child.start()
    assert mine.poll(300), "the run did not end, or failed"
    after = mine.recv()
    child.join(timeout=60)
    assert len(after) == 16  # units of 4 chunks
    assert after[15] <= 1.1 * after[3]


@pytest.fixture
def traced(inputs: dict[str, Any], tmp_path: Path) -> Callable[..., tuple[list[int], int]]:
    """Peak of each unit of a run beyond what there was before it, and the most stored bytes of a chunk.

    Servers of other tests may live in this process and take memory in the middle of a unit: the median tells.
    """

    def trace(**more: Any) -> tuple[list[int], int]:
        settings = Settings(**inputs | {"output": str(tmp_path)} | more)
        engine.run(settings, runner=Watching())  # what is loaded once is not a unit's memory
        (tile,) = Path(inputs["mirror"]).rglob("*.tiff")
        cog = Cog.open(str(tile), rule="aef")
        watching = Watching()
        tracemalloc.start()
        try:
            engine.run(settings, fresh=True, runner=watching)
        finally:
            tracemalloc.stop()
        assert len(watching.peaks) == 16
        return watching.peaks, max(cog.chunk_bytes(chunk) for chunk in range(cog.grid.chunk_count))

    return trace


def test_a_thread_holds_the_pixels_of_one_chunk_and_writes_all_others_over_them(
    traced: Callable[..., tuple[list[int], int]],
) -> None:
    (first, *others), _ = traced()
    assert DECODED < first < DECODED + REST
    assert median(others) < REST


def test_of_a_store_it_holds_the_stored_bytes_of_two_chunks_as_well(
    inputs: dict[str, Any], traced: Callable[..., tuple[list[int], int]]
) -> None:
    # A store in this process's memory: the buffers of a server and its client would count too.
    store = fsspec.filesystem("memory")
    store.put(inputs["mirror"], "/mirror-in-memory", recursive=True)
    try:
        (first, *others), stored = traced(mirror="memory://mirror-in-memory")
    finally:
        store.rm("/mirror-in-memory", recursive=True)
    assert DECODED + stored < first < DECODED + 2 * stored + REST
    assert median(others) < 2 * stored + REST
