"""`make bench`: zonal beside its peers on one made-up raster, and the figures that zonal is judged by.

    make bench                          16,000 zones on 4 x 4 chunks; about half an hour
    make bench BENCH_ARGS=--small       4,000 zones on 2 x 2 chunks
    make bench BENCH_ARGS="--small --only decode zonal exactextract --rounds 1"

Knows the order of runs and how they are compared; every run is a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from benchmarks import figures
from benchmarks.process import BIN, Ended, python, run
from benchmarks.scene import BANDS, YEAR, Scene, scene, warm
from zonal.cluster.local import default_workers

FOLDER = Path(__file__).parent / ".scene"
PAUSE = 5.0
"""Seconds for each GiB that a run held, before the next one: a virtual machine gives the memory of a process
back to its host bit by bit after it ended, and whoever runs meanwhile pays for it."""
METHOD = """\
Each run is a new process, and waits 5 s for each GiB that the last one held; files were read once before.
Whole: from the start of the process to its end (of zonal: of `zonal run`). Job: from inputs named
(of zonal: settings resolved and workers ready) to the numbers (of zonal: to the manifest on disk).
Start: all before the job. MiB: sum of the peaks of all its processes. x zonal: jobs.
zonal's compiled kernels come from numba's cache on disk, as they do from the second run on."""


@dataclass(frozen=True)
class Way:
    """One row of the table.

    Parameters
    ----------
    name : str
        Of the peer.
    title : str
    against : str
        Whose numbers its own are compared with; empty for none.
    sample : int
        Zones that it does, for the slow ones; the others are reckoned from them.
    package : str
        Whose version is shown.
    note : str
        What it needed.
    """

    name: str
    title: str
    against: str = ""
    sample: int = 0
    package: str = ""
    note: str = ""


WAYS = (
    Way("decode", "decode alone", note="zonal's reader, same chunks and threads, nothing else: the limit"),
    Way("zonal", "zonal fractional", "exactextract", note="differences are from exactextract"),
    Way(
        "zonal-center",
        "zonal center",
        "rasterio",
        note="differences are from rasterio; ties may go elsewhere",
    ),
    Way(
        "exactextract",
        "exactextract, raster-sequential",
        "zonal",
        package="exactextract",
        note="pixels in memory; refuses the south-up file ('Incompatible extents')",
    ),
    Way(
        "exactextract-features", "exactextract, feature-sequential", "zonal", 400, "exactextract", "as above"
    ),
    Way(
        "rasterio",
        "rasterio, a window and mask a zone",
        "zonal-center",
        package="rasterio",
        note="the south-up file itself, a block cache for all of it",
    ),
    Way(
        "rasterstats",
        "rasterstats",
        "zonal-center",
        100,
        "rasterstats",
        "pixels in memory; fails on the south-up file ('width and height must be > 0')",
    ),
    Way(
        "extractrs",
        "extractrs, cache + mean + stdev",
        "zonal",
        package="extractrs",
        note="takes arrays only: pixels in memory",
    ),
    Way(
        "gdal",
        "GDAL zonal-stats, pixel centres",
        "zonal-center",
        note="north-up float32 file and GeoPackage made before the job; would read the south-up file too",
    ),
    Way(
        "gdal-fractional",
        "GDAL zonal-stats, fractional",
        "zonal",
        note="as above, but on south-up files its numbers are wrong, without a word",
    ),
)


@dataclass
class Row:
    """What was measured of one way, round by round."""

    way: Way
    whole: list[float] = field(default_factory=list)
    job: list[float] = field(default_factory=list)
    startup: list[float] = field(default_factory=list)
    peak: list[float] = field(default_factory=list)
    manifest: dict[str, Any] = field(default_factory=dict)
    zones: int = 0
    version: str = ""
    missing: str = ""
    error: str = ""
    differences: tuple[float, float] | None = None
    lost: int = 0
    nulls: int = 0

    def __bool__(self) -> bool:
        return bool(self.job)

    def as_json(self) -> dict[str, Any]:
        """All of it, as JSON holds it."""
        return {**vars(self), "way": vars(self.way)}


def measure(ways: list[Way], on: Scene, rounds: int, scratch: Path) -> list[Row]:
    """Run all ways in turn, and that `rounds` times."""
    rows = [Row(way) for way in ways]
    for at in range(rounds):
        for row in rows:
            if row.missing or row.error:
                continue
            _once(row, on, scratch)
            print(f"round {at + 1}: {row.way.title}: {_outcome(row)}", flush=True)
            if row:
                time.sleep(PAUSE * row.peak[-1] / 1024)
    tables = {row.way.name: scratch / f"{row.way.name}.npz" for row in rows if row}
    for row in rows:
        if row and row.way.against in tables:
            with np.load(tables[row.way.name]) as ours, np.load(tables[row.way.against]) as theirs:
                row.differences, row.lost, row.nulls = _differ(ours, theirs)
    return rows


def _once(row: Row, on: Scene, scratch: Path) -> None:
    way = row.way
    processes, threads = default_workers(None, None)
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        given = {
            "mirror": on.ground.root,
            "raster": on.ground.files[0],
            "zones": on.zones,
            "scratch": Path(folder) / "out",
            "sample": way.sample if way.sample < on.count else 0,
            "threads": processes * threads,
            "workers": 0,
        }
        words = [word for name, value in given.items() for word in (f"--{name}", value)]
        save = scratch / f"{way.name}.npz"
        child = run(python("benchmarks.peers", way.name, "--launched", time.time(), "--save", save, *words))
        row.missing = child.report.get("missing", "")
        row.error = child.error
        if row.missing or row.error:
            return
        job, whole, peak = child.report["job"], child.seconds, child.peak
        if given["sample"]:
            fixed = child.report["fixed"]
            reckoned = fixed + (job - fixed) * on.count / child.report["zones"]
            job, whole = reckoned, whole - job + reckoned
        if "table" in child.report:
            row.manifest = child.report["manifest"]
            _save(child.report["table"], save)
            command = _command_line(way, on, Path(folder) / "cli")
            row.error, whole, peak = command.error, command.seconds, command.peak
        row.version = child.report.get("version", "")
        row.zones = child.report["zones"] or on.count
    row.whole.append(whole)
    row.job.append(job)
    row.startup.append(child.report["startup"])
    row.peak.append(peak)


def _command_line(way: Way, on: Scene, output: Path) -> Ended:
    """Run the same job as anybody would."""
    coverage = "center" if way.name == "zonal-center" else "fractional"
    words = ["--zones", on.zones, "--zone-id", "GEOID20", "--raster", "aef_annual", "--year", YEAR]
    words += ["--mirror", on.ground.root, "--coverage", coverage, "--output", output, "--quiet"]
    words += ["--steps", "stats"]  # the peers make a table, and no map or report
    return run([str(BIN / "zonal"), "run", *map(str, words)])


def _save(table: str, path: Path) -> None:
    columns = {name: [f"A{band:02d}_{name}" for band in range(BANDS)] for name in ("mean", "std")}
    read = pq.read_table(table, columns=["GEOID20", *columns["mean"], *columns["std"]]).to_pandas()
    numbers = {name: read[of].to_numpy(np.float64) for name, of in columns.items()}
    np.savez(path, ids=read["GEOID20"].to_numpy(str), **numbers)


def _differ(ours: Any, theirs: Any) -> tuple[tuple[float, float], int, int]:
    """Return the largest differences in mean and std, and the zones and numbers that only one of them has."""
    _, mine, its = np.intersect1d(ours["ids"], theirs["ids"], return_indices=True)
    apart = [ours[name][mine] - theirs[name][its] for name in ("mean", "std")]
    nulls = np.isnan(ours["mean"][mine]) != np.isnan(theirs["mean"][its])
    mean, std = (float(np.nanmax(np.abs(one), initial=0.0)) for one in apart)
    return (mean, std), min(len(ours["ids"]), len(theirs["ids"])) - len(mine), int(nulls.sum())


def _outcome(row: Row) -> str:
    if row.missing:
        return f"not installed ({row.missing})"
    return row.error or f"job {row.job[-1]:.2f} s, whole process {row.whole[-1]:.2f} s"


def _lines(rows: list[Row], count: int) -> list[str]:
    """Lay the rows out as a table."""
    base = next((statistics.median(row.job) for row in rows if row and row.way.name == "zonal"), None)
    heads = ("whole s", "job s", "start s", "MiB", "x zonal", "|d mean|", "|d std|")
    lines = [" " * 36 + "".join(f"{head:>10}" for head in heads)]
    notes = []
    for row in rows:
        way = row.way
        if not row:
            why = f"failed: {row.error}" if row.error else f"not measured: {row.missing}"
            if way.package and row.missing:
                why = "not installed: pip install 'zonal[bench]'"
            lines.append(f"{way.title:38}{why}")
            continue
        whole, job, startup, peak = map(statistics.median, (row.whole, row.job, row.startup, row.peak))
        ratio = f"{job / base:.2f}" if base else "-"
        apart = [f"{value:.1e}" for value in row.differences] if row.differences else ["-", "-"]
        shown = [f"{whole:.2f}", f"{job:.2f}", f"{startup:.2f}", f"{peak:,.0f}", ratio, *apart]
        lines.append(f"{way.title:36}" + "".join(f"{text:>10}" for text in shown))
        note = way.note
        if way.package or row.version:
            note = f"{row.version or version(way.package)}; {note}"
        if row.manifest:
            seconds = row.manifest["seconds"].items()
            note += "; last job: " + ", ".join(f"{name} {value:.2f} s" for name, value in seconds)
        if row.zones < count:
            note += f"; scaled from {row.zones:,} zones to {count:,}"
        if row.lost:
            note += f"; {row.lost:,} zones are in one of the two tables only"
        if row.nulls:
            note += f"; {row.nulls:,} numbers are null in one of the two tables only"
        notes.append(f"  {way.title}: {note}")
        if row.error:
            notes.append(f"  {way.title}: failed in a later round: {row.error}")
    return [*lines, "", *notes]


def main() -> None:
    """Build the scene, run everything, print and write what came out."""
    parser = argparse.ArgumentParser(
        prog="make bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [*(way.name for way in WAYS), *figures.MEASURED]
    parser.add_argument("--small", action="store_true", help="4,000 zones on 2 x 2 chunks")
    parser.add_argument("--rounds", type=int, default=3, help="rounds, whose median counts (default: 3)")
    parser.add_argument(
        "--only", nargs="+", choices=names, metavar="NAME", help=f"some of {', '.join(names)}"
    )
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where rasters and zones are kept")
    parser.add_argument("--json", type=Path, help="file for all raw figures")
    parser.add_argument("--chunks", type=int, help="chunks along the raster's side")
    parser.add_argument(
        "--pixels", type=int, default=1024, help="pixels along a chunk's side (default: 1024)"
    )
    parser.add_argument("--zones", help="zones across and up, such as 100x160")
    words = parser.parse_args()
    chunks = words.chunks or (2 if words.small else 4)
    columns, high = map(int, (words.zones or f"{25 * chunks}x{40 * chunks}").split("x"))
    chosen = words.only or names
    on = scene(words.folder.resolve(), chunks, columns, high, size=words.pixels)
    warm(on)
    processes, threads = default_workers(None, None)
    size = on.ground.files[0].stat().st_size
    print(f"{on.title}, {BANDS} bands, {size / 2**20:,.0f} MiB; mean and std of every band")
    print(
        f"{platform.platform()}, Python {platform.python_version()}, {os.cpu_count()} cores; "
        f"zonal {version('zonal')}, {processes} workers x {threads} threads"
    )
    ways = [way for way in WAYS if way.name in chosen]
    if any(way.name.startswith("zonal") for way in ways):
        run(python("benchmarks.figures", "compile"))  # numba keeps what it compiled beside the package
    with tempfile.TemporaryDirectory(prefix="zonal-bench-") as scratch:
        rows = measure(ways, on, words.rounds, Path(scratch))
    of = {row.way.name: row for row in rows if row}
    judged = figures.judged(of, [name for name in figures.MEASURED if name in chosen], words.folder.resolve())
    lines = _lines(rows, on.count) if rows else []
    if rows:
        lines += ["", f"Medians of {words.rounds} interleaved rounds. {METHOD}"]
    if judged:
        lines += ["", *map(str, judged)]
    print("\n" + "\n".join(lines))
    if words.json:
        raw = {
            "scene": on.title,
            "rows": [row.as_json() for row in rows],
            "judged": [vars(one) for one in judged],
        }
        words.json.write_text(json.dumps(raw, indent=1, default=str))


if __name__ == "__main__":
    main()
