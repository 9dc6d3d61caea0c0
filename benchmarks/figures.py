"""The figures that zonal is judged by, each with what it must and what it aims to reach.

Those that come of the table of ways are read off it; the others are measured
here, each in a process of its own: `python -m benchmarks.figures NAME FOLDER`.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from benchmarks.process import BIN, python, run


class Row(Protocol):
    """What `make bench` measured of one way: seconds of each round, and the last manifest."""

    job: list[float]
    whole: list[float]
    manifest: dict[str, Any]


@dataclass(frozen=True)
class Figure:
    """One judged figure.

    Parameters
    ----------
    name : str
    value : float or None
        None if it was not measured.
    must, aim : float
        Least values, or largest where `least` is False.
    least : bool
    about : str
        How it came about.
    """

    name: str
    value: float | None
    must: float
    aim: float
    least: bool = True
    about: str = ""

    def __str__(self) -> str:
        sign = ">=" if self.least else "<="
        asked = f"must {sign} {self.must:g}, aim {self.aim:g}"
        if self.value is None:
            return f"{self.name:58}{'-':>9}  {asked}: not measured{f' ({self.about})' if self.about else ''}"
        met = [(self.value >= bar) if self.least else (self.value <= bar) for bar in (self.must, self.aim)]
        verdict = "aim reached" if met[1] else "met" if met[0] else "MISSED"
        return (
            f"{self.name:58}{self.value:9.3f}  {asked}: {verdict}{f' ({self.about})' if self.about else ''}"
        )


def judged(rows: Mapping[str, Row], measured: Sequence[str], folder: Path) -> list[Figure]:
    """Return all judged figures that the rows allow, and measure the others that were asked for."""

    def ratio(a: str, b: str, what: str) -> float | None:
        if a not in rows or b not in rows:
            return None
        return statistics.median(getattr(rows[a], what)) / statistics.median(getattr(rows[b], what))

    fetched = None
    if "zonal" in rows:
        counted = rows["zonal"].manifest["bytes"]
        fetched = (counted["fetched"] + counted["headers"]) / counted["to_fetch"]
    found = [
        Figure(
            "exactextract raster-sequential / zonal fractional, job",
            ratio("exactextract", "zonal", "job"),
            20,
            50,
        ),
        Figure("the same, whole processes", ratio("exactextract", "zonal", "whole"), 10, 25),
        Figure("zonal fractional / decode alone, job", ratio("zonal", "decode", "job"), 2.0, 1.3, False),
        Figure("bytes fetched / compressed bytes of chunks", fetched, 1.05, 1.01, False, "from the manifest"),
    ]
    shown = [figure for figure in found if figure.value is not None]
    for name in measured:
        print(f"measuring: {MEASURED[name][0]}", flush=True)
        ended = run(python("benchmarks.figures", name, folder))
        title, must, aim, least, _ = MEASURED[name]
        report = ended.report if not ended.error else {"value": None, "about": ended.error}
        shown.append(Figure(title, report.get("value"), must, aim, least, report.get("about", "")))
    return shown


def coverage(folder: Path) -> dict[str, Any]:
    """Cover the pixels of a raster with 4,000 zones: exactextract's `cell_id` and `coverage`, and ours."""
    import geopandas as gpd
    import numpy as np
    import shapely
    from exactextract import exact_extract
    from exactextract.raster import NumPyRasterSource

    from benchmarks.scene import CRS, Ground, zones
    from zonal.geo.grid import Grid
    from zonal.stats.coverage import cover

    ground = Ground(folder, 2)  # its place only; no pixel is needed
    polygons = gpd.read_parquet(zones(folder / "zones-only-50x80.parquet", ground.bounds, 50, 80)).to_crs(CRS)
    (grid,) = ground.grids
    shapes = polygons.geometry.to_numpy()
    boxes = shapely.bounds(shapes)
    blank = NumPyRasterSource(
        np.zeros((grid.height, grid.width), np.int8), *grid.bounds, srs_wkt=polygons.crs.to_wkt()
    )

    def meets(chunk: Grid) -> Any:
        west, south, east, north = chunk.bounds
        return (boxes[:, 0] < east) & (boxes[:, 2] > west) & (boxes[:, 1] < north) & (boxes[:, 3] > south)

    def ours() -> float:
        found = 0.0
        for chunk in map(grid.chunk, range(grid.chunk_count)):
            covered = cover(shapes[meets(chunk)], chunk)
            found += covered.span_length.sum() + covered.edge_weight.sum()
        return found

    def theirs() -> float:
        found = exact_extract(blank, polygons, ["cell_id", "coverage"], output="pandas")
        return float(sum(share.sum(dtype=np.float64) for share in found["coverage"]))

    areas = ours(), theirs()
    if abs(areas[0] - areas[1]) > 1e-6 * areas[0]:
        raise AssertionError(f"the two do not cover the same: {areas}")
    seconds = _interleaved({"ours": ours, "theirs": theirs}, 5)
    about = f"{seconds['theirs']:.2f} s / {seconds['ours']:.4f} s, one thread each, medians of 5"
    return {"value": seconds["theirs"] / seconds["ours"], "about": about, **seconds}


def tasks(folder: Path) -> dict[str, Any]:
    """Share of the threads' time that no task computes in, on a run of 30 s or more."""
    from benchmarks.peers import zonal_settings
    from benchmarks.scene import scene
    from zonal.cluster.connection import connect
    from zonal.cluster.local import default_workers
    from zonal.engine import run as engine
    from zonal.engine.preload import PRELOAD

    on = scene(folder, 8, 192, 300, tiles=3, drawn=1)
    processes, threads = default_workers(None, None)
    with (
        tempfile.TemporaryDirectory(prefix="zonal-bench-") as scratch,
        connect("local", None, None, preload=PRELOAD) as runner,
    ):
        settings = zonal_settings(str(on.ground.root), str(on.zones), scratch)
        (result,) = engine.run(settings, fresh=True, runner=runner)
    seconds = result.manifest["seconds"]
    wall = seconds["computing"]
    value = 1 - (seconds["in_units"] + seconds["in_parts"]) / (processes * threads * wall)
    about = f"{on.title}; computing took {wall:.1f} s"
    if wall < 30:
        about += ", too short to count"
    return {"value": value, "about": about, **seconds}


def help_(folder: Path) -> dict[str, Any]:
    """Time `zonal --help` beside `python -c "import geopandas"`."""
    commands = {
        "zonal": [str(BIN / "zonal"), "--help"],
        "geopandas": [sys.executable, "-c", "import geopandas"],
    }
    for command in commands.values():
        run(command)
    found: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(7):
        for name, command in commands.items():
            found[name].append(run(command).seconds)
    seconds = {name: statistics.median(times) for name, times in found.items()}
    about = f"{seconds['zonal']:.2f} s / {seconds['geopandas']:.2f} s, medians of 7"
    return {"value": seconds["zonal"] / seconds["geopandas"], "about": about}


def compile_(folder: Path) -> dict[str, Any]:
    """Have numba compile what it has not yet, so that no run pays for that."""
    from benchmarks.peers import zonal_settings
    from benchmarks.scene import scene
    from zonal.cluster.runner import Threads
    from zonal.engine import run as engine

    with tempfile.TemporaryDirectory() as scratch:
        on = scene(Path(scratch), 1, 3, 3, size=64)
        for coverage in ("fractional", "center"):
            output = f"{scratch}/{coverage}"
            settings = zonal_settings(str(on.ground.root), str(on.zones), output, coverage=coverage)
            engine.run(settings, runner=Threads(1))
    return {}


Measure = Callable[[Path], dict[str, Any]]
MEASURED: dict[str, tuple[str, float, float, bool, Measure]] = {
    "coverage": ("coverage of 4,000 zones, exactextract / zonal", 20, 50, True, coverage),
    "help": ("zonal --help / python -c 'import geopandas'", 0.7, 0.4, False, help_),
    "tasks": ("Dask: 1 - task seconds / (threads x computing)", 0.10, 0.05, False, tasks),
}
"""Name -> title, must, aim, whether they are least values, and what measures it."""


def _interleaved(ways: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Return each way's median seconds."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            started = time.perf_counter()
            way()
            found[name].append(time.perf_counter() - started)
    return {name: statistics.median(times) for name, times in found.items()}


if __name__ == "__main__":
    measures = {name: entry[-1] for name, entry in MEASURED.items()} | {"compile": compile_}
    print(json.dumps(measures[sys.argv[1]](Path(*sys.argv[2:]))))
