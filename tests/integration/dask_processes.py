"""A Dask cluster of real processes on loopback, and a run small enough to be tried on it many times."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from servers import LOOPBACK, clean_environment
from synthetic import jittered_blocks, make_mirror, random_tile, utm_grid


@dataclass(frozen=True)
class DaskCluster:
    """One scheduler and its workers; what they print is in `folder`, ``worker-0.log`` and so on."""

    address: str
    folder: Path
    scheduler: subprocess.Popen[bytes]
    workers: tuple[subprocess.Popen[bytes], ...]

    @property
    def logs(self) -> str:
        return "".join(path.read_text(errors="replace") for path in sorted(self.folder.glob("*.log")))


@contextmanager
def dask_cluster(
    folder: Path,
    *,
    workers: int = 1,
    words: Sequence[str] = (),
    preload: str = "",
    dashboard: bool = False,
    **environment: str,
) -> Iterator[DaskCluster]:
    """Start a scheduler and workers; `words` go to all of them, such as paths of certificates.

    `preload` is a module that each worker loads before it takes a task.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found = folder / "scheduler.json"
    common = [*words, "--host", LOOPBACK, "--dashboard-address", f"{LOOPBACK}:0"]
    common += [] if dashboard else ["--no-dashboard"]
    with ExitStack() as stack:

        def start(name: str, *words: str) -> subprocess.Popen[bytes]:
            command = [sys.executable, "-m", "dask", name.split("-")[0], *words, *common]
            log = stack.enter_context((folder / f"{name}.log").open("wb"))
            env = clean_environment(**environment)
            process = subprocess.Popen(command, cwd=folder, env=env, stdout=log, stderr=log)
            stack.callback(process.wait)
            stack.callback(process.kill)
            return process

        scheduler = start("scheduler", "--port", "0", "--scheduler-file", str(found))
        deadline = time.monotonic() + 30
        while not found.exists() or not found.read_text().strip():
            assert scheduler.poll() is None and time.monotonic() < deadline, "the scheduler did not start"
            time.sleep(0.05)
        address = str(json.loads(found.read_text())["address"])
        each = ["--nthreads", "1", "--no-nanny", "--local-directory", str(folder)]
        each += ["--preload", preload] if preload else []
        started = tuple(start(f"worker-{number}", address, *each) for number in range(workers))
        yield DaskCluster(address, folder, scheduler, started)


def small_town(folder: Path) -> list[str]:
    """Write a tile below ``mirror`` and 30 zones on it; return the words of `zonal` that summarise them.

    The mirror is not among the words: it may be served, or lie elsewhere.
    """
    grid = utm_grid(32611, 500_000, 5_160_000, 128, 128, 64)
    make_mirror(folder / "mirror", [random_tile(np.random.default_rng(3), grid)], year=2024)
    blocks = jittered_blocks((500_050, 5_160_050, 501_200, 5_161_200), 6, 5, "EPSG:32611")
    blocks.to_parquet(folder / "zones.parquet")
    return ["--zones", str(folder / "zones.parquet"), "--zone-id", "GEOID20", "--year", "2024"]
