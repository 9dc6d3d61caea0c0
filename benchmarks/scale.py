"""`make bench-scale`: how zonal's cost grows, and what a slow store does to it.

    make bench-scale              (a) zones and chunks, (b) workers, (c) a slow store, (d) a whole country
    make bench-scale BENCH_ARGS="--only c --small"
    make bench-scale BENCH_ARGS="--only d --country-scale 0.1"

Knows which jobs to run side by side; each is a process of its own, `fractional`, mean and std of 64 bands.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from benchmarks.bench import FOLDER
from benchmarks.figures import Figure
from benchmarks.process import python, run, tree
from benchmarks.scene import Scene, scene, warm
from benchmarks.store import COUNTS, serving

ZONES = {1_000: (25, 40), 3_000: (50, 60), 10_000: (100, 100), 30_000: (150, 200), 100_000: (250, 400)}
"""Zones -> across and up."""

TICK = 0.005  # seconds between two looks at wire and CPU
STAGES = ("staging", "planning", "computing", "publishing")
HEAD = f"{'job s':>9}" + "".join(f"{stage:>11}" for stage in STAGES)

BUSY = 0.05  # share of a tick that a process computes in, above which it counts as working


@dataclass(frozen=True)
class Job:
    """What one run of zonal took: seconds by stage, of the job, from when on; counts of its plan; bytes."""

    job: float
    ready: float
    seconds: dict[str, float]
    plan: dict[str, int]
    bytes: dict[str, int]

    def __str__(self) -> str:
        return f"{self.job:9.2f}" + "".join(f"{self.seconds[stage]:11.2f}" for stage in STAGES)


def zonal(
    on: Scene, *, mirror: str = "", workers: int = 0, watch: Callable[[int], None] | None = None
) -> Job:
    """Run the job once, in a new process."""
    with tempfile.TemporaryDirectory(prefix="zonal-bench-") as scratch:
        given = {"mirror": mirror or on.ground.root, "raster": on.ground.files[0], "zones": on.zones}
        given |= {"scratch": f"{scratch}/out", "sample": 0, "threads": 0, "workers": workers}
        words = [word for name, value in given.items() for word in (f"--{name}", value)]
        command = python(
            "benchmarks.peers", "zonal", "--launched", time.time(), "--save", f"{scratch}/t.npz", *words
        )
        ended = run(command, watch=watch, tick=TICK if watch else 0.1)
    if ended.error:
        sys.exit(f"zonal failed: {ended.error}")
    report, manifest = ended.report, ended.report["manifest"]
    return Job(report["job"], report["ready"], manifest["seconds"], manifest["plan"], manifest["bytes"])


def several(rounds: int, jobs: dict[Any, Callable[[], Job]]) -> dict[Any, Job]:
    """Run jobs in turn; return the one of median seconds of each."""
    found: dict[Any, list[Job]] = {key: [] for key in jobs}
    for _ in range(rounds):
        for key, job in jobs.items():
            found[key].append(job())
    return {key: sorted(of, key=lambda one: one.job)[rounds // 2] for key, of in found.items()}


def sizes(folder: Path, rounds: int, small: bool) -> dict[str, Any]:
    """(a) Cost against the number of zones, and of chunks."""
    side = 2 if small else 4
    counts = [count for count in ZONES if count <= (10_000 if small else 100_000)]
    by_zones = {count: scene(folder, side, *ZONES[count]) for count in counts}
    by_chunks = {n * n: scene(folder, n, 25 * n, 40 * n) for n in ((1, 2) if small else (1, 2, 4))}
    found: dict[str, Any] = {}
    for title, scenes in (
        (f"zones, on {side} x {side} chunks", by_zones),
        ("chunks, of 1,000 zones each", by_chunks),
    ):
        for on in scenes.values():
            warm(on)
        jobs = several(rounds, {count: _of(on) for count, on in scenes.items()})
        print(f"\n(a) {title:32}{HEAD}{'units':>8}{'parts':>8}")
        for count, job in jobs.items():
            print(f"    {count:<32,}{job}{job.plan['units']:>8,}{job.plan['parts']:>8,}")
        found[title] = {count: vars(job) for count, job in jobs.items()}
    return found


def _of(on: Scene, **more: Any) -> Callable[[], Job]:
    return lambda: zonal(on, **more)


def workers(folder: Path, rounds: int, small: bool) -> dict[str, Any]:
    """(b) One worker and two, of one thread each."""
    side = 2 if small else 4
    on = scene(folder, side, 25 * side, 40 * side)
    warm(on)
    jobs = several(rounds, {count: _of(on, workers=count) for count in (1, 2)})
    print(f"\n(b) {'workers of one thread':32}{HEAD}")
    for count, job in jobs.items():
        print(f"    {count:<32}{job}")
    print(f"    two are {jobs[1].job / jobs[2].job:.2f} times as fast as one")
    return {str(count): vars(job) for count, job in jobs.items()}


class Idle:
    """Looks, tick by tick, whether a process tree computes and whether the store sends."""

    def __init__(self, counts: NDArray[np.int64]) -> None:
        self.counts = counts
        self.looks: list[tuple[float, float, int, int]] = []
        self.processes: list[psutil.Process] = []
        self.listed = 0.0

    def __call__(self, pid: int) -> None:
        now = time.time()
        if now - self.listed > 0.2:
            self.processes, self.listed = tree(pid), now
        cpu = sum(map(_cpu, self.processes))
        sent, sending = (int(self.counts[COUNTS.index(name)]) for name in ("sent", "sending"))
        self.looks.append((now, cpu, sent, sending))

    def share(self, start: float, stop: float) -> float:
        """Return the share of a time in which neither worked."""
        idle = whole = 0.0
        for (then, cpu, sent, sending), (now, cpu_now, sent_now, sending_now) in zip(
            self.looks, self.looks[1:], strict=False
        ):
            if then < start or now > stop:
                continue
            whole += now - then
            wire = sending or sending_now or sent_now != sent
            if not wire and abs(cpu_now - cpu) <= BUSY * (now - then):
                idle += now - then
        return idle / whole


def _cpu(process: psutil.Process) -> float:
    """Return a process's CPU seconds so far; 0 when it is gone."""
    try:
        if sys.platform == "linux":  # its CPU clock, in nanoseconds; cpu_times() counts hundredths
            return time.clock_gettime((~process.pid << 3) | 2)
        times = process.cpu_times()
        return float(times.user + times.system)
    except (OSError, psutil.Error):
        return 0.0


def slow_store(folder: Path, rounds: int, small: bool, delay: int) -> dict[str, Any]:
    """(c) HTTP on loopback, as it is and with a delay before every answer."""
    side = 2 if small else 4
    on = scene(folder, side, 25 * side, 40 * side)
    warm(on)
    found: dict[int, list[dict[str, Any]]] = {0: [], delay: []}
    with (
        tempfile.TemporaryDirectory(prefix="zonal-bench-") as scratch,
        serving(on.ground.root, Path(scratch)) as (url, counts),
    ):
        for _ in range(rounds):
            for wait, of in found.items():
                counts[:] = 0
                idle = Idle(counts)
                job = zonal(on, mirror=f"{url}/{wait}", watch=idle)
                counted = dict(zip(COUNTS, counts.tolist(), strict=True))
                of.append({**vars(job), **counted, "idle": idle.share(job.ready, job.ready + job.job)})
    head = f"{'job s':>9}{'computing':>11}{'requests':>11}{'at once':>9}{'idle':>8}"
    print(f"\n(c) {'milliseconds before an answer':32}{head}")
    medians = {}
    for wait, of in found.items():
        middle = {
            name: statistics.median(one[name] for one in of) for name in ("job", "requests", "most", "idle")
        }
        computing = statistics.median(one["seconds"]["computing"] for one in of)
        shown = f"{middle['job']:9.2f}{computing:11.2f}{middle['requests']:11,.0f}{middle['most']:9,.0f}"
        print(f"    {wait:<32}{shown}{middle['idle']:8.1%}")
        medians[wait] = middle
    print(
        "    idle: share of the job in which the store sent no byte and zonal's processes together computed\n"
        f"    for under {BUSY:.0%} of the time, looked at every {TICK * 1000:.0f} ms; "
        f"medians of {rounds} interleaved rounds"
    )
    sent = found[delay][-1]
    figures = [
        Figure(
            f"{delay} ms added to every request: job / without",
            medians[delay]["job"] / medians[0]["job"],
            1.5,
            1.15,
            False,
        ),
        Figure(
            "bytes of tiles sent / compressed bytes of chunks",
            sent["of_tiles"] / sent["bytes"]["to_fetch"],
            1.05,
            1.01,
            False,
            "counted by the store, headers included",
        ),
    ]
    print("\n".join(f"    {figure}" for figure in figures))
    return {str(wait): of for wait, of in found.items()} | {"judged": [vars(figure) for figure in figures]}


def country(scale: float) -> dict[str, Any]:
    """(d) Staging and planning of the whole country."""
    print(f"\n(d) the whole country, scale {scale:g}: benchmarks/country.py", flush=True)
    ended = run(python("benchmarks.country", "--scale", scale), limit=6 * 3600)
    print(f"    failed: {ended.error}" if ended.error else "")
    for name, value in ended.report.items():
        print(f"    {name.replace('_', ' '):<32}{value:>16,}")
    return ended.report


def main() -> None:
    """Run what was asked for, print it and write it."""
    parser = argparse.ArgumentParser(
        prog="make bench-scale", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices="abcd", default=list("abcd"), help="some of a, b, c, d")
    parser.add_argument("--small", action="store_true", help="2 x 2 chunks in place of 4 x 4, fewer zones")
    parser.add_argument("--rounds", type=int, default=3, help="rounds, whose median counts (default: 3)")
    parser.add_argument("--latency", type=int, default=50, metavar="MS", help="of (c) (default: 50)")
    parser.add_argument(
        "--country-scale", type=float, default=1.0, help="part of the country, for (d) (default: 1)"
    )
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where rasters and zones are kept")
    parser.add_argument("--json", type=Path, help="file for all raw figures")
    words = parser.parse_args()
    folder = words.folder.resolve()
    ended = run(python("benchmarks.figures", "compile"))
    if ended.error:
        sys.exit(f"zonal failed: {ended.error}")
    found: dict[str, Any] = {}
    if "a" in words.only:
        found["a"] = sizes(folder, words.rounds, words.small)
    if "b" in words.only:
        found["b"] = workers(folder, words.rounds, words.small)
    if "c" in words.only:
        found["c"] = slow_store(folder, words.rounds, words.small, words.latency)
    if "d" in words.only:
        found["d"] = country(words.country_scale)
    if words.json:
        words.json.write_text(json.dumps(found, indent=1, default=str))


if __name__ == "__main__":
    main()
