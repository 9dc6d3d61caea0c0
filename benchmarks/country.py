"""The whole country's zones, synthetic: how long staging and planning take, and how much memory.

Knows how to make block-like zones state by state and an index of tiles under them; calls the staging and
the planning that `zonal run` uses, and reads no pixel.

    python benchmarks/country.py [--zones 8100000] [--tiles 2000] [--states 56] [--scale 1.0]

Making the zones happens in another process, one state at a time; it is neither timed nor counted as memory.
"""

from __future__ import annotations

import argparse
import json
import pickle
import resource
import shutil
import signal
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pandas as pd
import shapely

from zonal.config.catalog import Catalog
from zonal.config.settings import Settings
from zonal.demo.tiles import index_row, tile_key
from zonal.engine.graph import wire
from zonal.engine.work import Job, Reader
from zonal.geo.grid import Bounds, Grid
from zonal.io.store.folder import Folder
from zonal.io.store.ranges import FileStat
from zonal.io.table.table import TableColumns
from zonal.planning.costs import plan_year
from zonal.planning.inputs import RasterInput, ZoneFile, ZoneInput
from zonal.planning.staging import stage
from zonal.planning.zones import Filters, ZoneColumns

YEAR = 2020
LOWER_48 = (-124.7, 25.0, -67.0, 49.0)
ELSEWHERE = (
    (-154.0, 60.0), (-158.0, 21.4), (-66.4, 18.2), (144.8, 13.5), (-170.7, -14.3), (145.7, 15.2),
    (-64.8, 18.3), (-133.0, 56.0),
)  # fmt: skip
"""South-western corners of states outside: Alaska twice, Hawaii, Puerto Rico, the islands."""
LARGEST = 0.082
"""Share of the largest state (Texas: 668,757 of 8,132,968 blocks)."""
LAND, TILES = 0.6, 2_000
"""Part of the rectangles that is land, and about the number of tiles that it takes."""
SIDE = 81_920
"""Metres of a tile's side."""
POINTS = 6.25
"""Vertices along one side of a zone, corners apart, in the mean: 30 vertices a zone."""
ROOM = 1_300
"""Bytes of disk a zone."""


@dataclass(frozen=True)
class State:
    """A rectangle of land, its zones, and the number that makes them."""

    number: int
    box: Bounds
    zones: int

    @property
    def code(self) -> str:
        return f"S{self.number:02d}"


def states(count: int, zones: int, ground: float) -> list[State]:
    """Share the lower 48 (and some places elsewhere) among states of very different numbers of zones.

    `ground` is the part of each state's share of the rectangle that its zones cover.
    """
    outside = ELSEWHERE[: max(0, min(len(ELSEWHERE), count // 7))]
    inside = count - len(outside)
    columns = int(np.ceil(np.sqrt(inside * 4 / 3)))
    rows = -(-inside // columns)
    west, south, east, north = LOWER_48
    wide, high = (east - west) / columns, (north - south) / rows
    corners = [(west + wide * (n % columns), south + high * (n // columns)) for n in range(inside)]
    weight = np.random.default_rng(1).lognormal(0, 0.9, count)
    weight[inside:] = np.sort(weight)[: len(outside)]
    share = np.minimum(weight / weight.sum(), LARGEST)
    number = np.maximum(1, np.rint(share / share.sum() * zones)).astype(int)
    small = np.where(np.arange(count) < inside, 1.0, 0.2) * np.sqrt(ground)
    return [
        State(n, (x, y, x + wide * small[n], y + high * small[n]), int(number[n]))
        for n, (x, y) in enumerate([*corners, *outside])
    ]


def zones_of(state: State) -> gpd.GeoDataFrame:
    """Polygons that tile a state: a bent grid of rows and columns of very different widths.

    Neighbours share every vertex, those along a side drawn from a log-normal distribution. Coordinates have
    six decimals, as the Census Bureau's.
    """
    rng = np.random.default_rng([2, state.number])
    west, south, east, north = state.box
    columns = max(1, round(np.sqrt(state.zones * (east - west) / (north - south))))
    rows = -(-state.zones // columns)
    x, y = (
        low + (high - low) * np.concatenate([[0], np.cumsum(w := rng.lognormal(0, 0.7, n))]) / w.sum()
        for low, high, n in ((west, east, columns), (south, north, rows))
    )
    room_x, room_y = (np.minimum(np.append(d[0], d), np.append(d, d[-1])) for d in (np.diff(x), np.diff(y)))
    corner_x, corner_y = np.meshgrid(x, y)
    corner_x = corner_x + rng.uniform(-0.1, 0.1, corner_x.shape) * room_x
    corner_y = corner_y + rng.uniform(-0.1, 0.1, corner_y.shape) * room_y[:, None]
    corners = np.stack([corner_x, corner_y], axis=-1)
    across, across_at = _sides(corners[:, :-1], corners[:, 1:], room_y[:, None], 1, rng)
    up, up_at = _sides(corners[:-1], corners[1:], room_x[None, :], 0, rng)

    row, column = (v.ravel()[: state.zones] for v in np.mgrid[:rows, :columns])
    lines = np.concatenate([across, up])
    up_at = up_at + len(across)
    low, high = row * columns + column, (row + 1) * columns + column
    left, right = row * (columns + 1) + column, row * (columns + 1) + column + 1
    # Counter-clockwise: along the lower and the right side, back along the upper and the left one.
    start = np.stack([across_at[low], up_at[right], across_at[high + 1] - 1, up_at[left + 1] - 1], axis=1)
    across_count, up_count = np.diff(across_at), np.diff(up_at)
    count = np.stack([across_count[low], up_count[right], across_count[high], up_count[left]], axis=1)
    step = np.broadcast_to([1, 1, -1, -1], start.shape)
    kept = (count - 1).ravel()  # a side's last vertex is the next one's first
    within = np.arange(kept.sum()) - np.repeat(np.cumsum(kept) - kept, kept)
    vertex = np.repeat(start.ravel(), kept) + within * np.repeat(step.ravel(), kept)
    owner = np.repeat(np.arange(len(row)), kept.reshape(-1, 4).sum(axis=1))
    shapes = shapely.polygons(shapely.linearrings(np.round(lines[vertex], 6), indices=owner))

    number = np.arange(len(row))
    tract = [f"{n:06d}" for n in number // 400]
    block = [f"{n:05d}" for n in number % 400]
    area = (shapely.area(shapes) * 111_320**2 * np.cos(np.radians((south + north) / 2))).astype(np.int64)
    water = rng.random(len(row)) < 0.04
    fips = f"{state.number:02d}"
    ids = [f"{fips}00{t}{b}" for t, b in zip(tract, block, strict=True)]
    return gpd.GeoDataFrame(
        {
            "STATEFP20": fips, "COUNTYFP20": "000", "TRACTCE20": tract, "BLOCKCE20": block,
            "GEOID20": ids, "GEOIDFQ20": [f"1000000US{i}" for i in ids],
            "NAME20": [f"Block {b}" for b in block], "MTFCC20": "G5040",
            "UR20": np.where(rng.random(len(row)) < 0.6, "U", "R"), "FUNCSTAT20": "S",
            "ALAND20": np.where(water, 0, area), "AWATER20": np.where(water, area, 0),
            "INTPTLAT20": [f"{v:+011.7f}" for v in y[row]], "INTPTLON20": [f"{v:+012.7f}" for v in x[column]],
            "HOUSING20": rng.poisson(17, len(row)), "POP20": rng.poisson(40, len(row)),
        },
        geometry=shapes,
        crs="EPSG:4269",
    )  # fmt: skip


def _sides(
    start: npt.NDArray[np.float64],
    end: npt.NDArray[np.float64],
    room: Any,
    axis: int,
    rng: np.random.Generator,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Bent lines between corners, ends included: all vertices, and where each line begins."""
    room = np.broadcast_to(room, start.shape[:2]).ravel()
    start, end = start.reshape(-1, 2), end.reshape(-1, 2)
    sigma = 0.8
    inner = np.rint(rng.lognormal(np.log(POINTS) - sigma**2 / 2, sigma, len(start))).astype(np.int64)
    count = inner + 2
    at = np.concatenate([[0], np.cumsum(count)])
    line = np.repeat(np.arange(len(count)), count)
    share = ((np.arange(at[-1]) - at[line]) / (inner[line] + 1))[:, None]
    points = start[line] * (1 - share) + end[line] * share
    bend = np.minimum(share, 1 - share)[:, 0] * np.minimum(room, np.abs(end - start).max(axis=1))[line]
    points[:, axis] += bend * rng.uniform(-0.2, 0.2, len(points))
    return points, at


def index_under(land: list[State]) -> pd.DataFrame:
    """Index of the tiles of AEF's size under some states."""
    rows = []
    for strip in range(60):
        west = strip * 6 - 180
        mine = [s for s in land if s.box[0] < west + 6 and s.box[2] > west]
        for south in (False, True):
            here = [s for s in mine if (s.box[1] < 0) == south]
            if not here:
                continue
            boxes = np.array([s.box for s in here])
            strip_box = shapely.box(west, -90, west + 6, 90)
            ground = shapely.intersection(shapely.box(*boxes.T), strip_box)
            ground = (
                gpd.GeoSeries(ground, crs=4326)
                .segmentize(0.1)
                .to_crs(32701 + strip if south else 32601 + strip)
            )
            found = set()
            for shape in ground:
                shapely.prepare(shape)
                low_x, low_y, high_x, high_y = shape.bounds
                for kx in range(int((low_x - 5e5) // SIDE), int((high_x - 5e5) // SIDE) + 1):
                    for ky in range(int(low_y // SIDE), int(high_y // SIDE) + 1):
                        x, y = 5e5 + kx * SIDE, ky * SIDE
                        if shape.intersects(shapely.box(x, y, x + SIDE, y + SIDE)):
                            found.add((x, float(y)))
            for x, y in sorted(found):
                crs = f"EPSG:{(32701 if south else 32601) + strip}"
                grid = Grid(crs, x, y, 10.0, 10.0, SIDE // 10, SIDE // 10, 1024, 1024)
                key = tile_key(YEAR, grid, f"x{x:.0f}y{y:.0f}".replace("-", "m"))
                rows.append(index_row(len(rows), key, YEAR, grid))
    return pd.DataFrame([{k: v for k, v in row.items() if k != "geometry"} for row in rows])


def make_file(state: State, path: str) -> int:
    """Write a state's zones; returns the number of their vertices."""
    frame = zones_of(state)
    frame.to_parquet(path)
    return int(shapely.get_num_coordinates(frame.geometry.to_numpy()).sum())


@dataclass(frozen=True)
class MadeFile(ZoneFile):
    """A state's file that is made when it is wanted, and is gone when it was read."""

    state: State | None = None
    maker: Any = field(default=None, repr=False)
    made: list[tuple[float, int]] = field(default_factory=list, repr=False)

    def read(self) -> tuple[gpd.GeoDataFrame, FileStat]:
        started = time.perf_counter()
        vertices = self.maker.submit(make_file, self.state, self.url).result()
        self.made.append((time.perf_counter() - started, vertices))
        try:
            return super().read()
        finally:
            Path(self.url).unlink(missing_ok=True)


def measure(args: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """Make, stage and plan; returns the figures."""
    settings = Settings(year=YEAR)
    catalog = Catalog.load(settings.catalog)
    source = catalog.raster("aef_annual")
    # Fewer zones lie on less ground: the size of a zone stays.
    land = states(args.states, round(args.zones * args.scale), LAND * args.scale * args.tiles / TILES)
    index = index_under(land)
    reader = Reader(source.driver, source.rule, source.bands)
    raster = RasterInput(catalog, source, reader, index, "synthetic index", FileStat(0, ""))
    made: list[tuple[float, int]] = []
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as maker:
        files = tuple(
            MadeFile(s.code, s.code, str(scratch / f"{s.code}.parquet"), state=s, maker=maker, made=made)
            for s in land
        )
        zones = ZoneInput(files, ZoneColumns("GEOID20", "ALAND20", "STATEFP20", "COUNTYFP20"), None)
        columns = TableColumns("GEOID20", source.bands, settings.stats, True)
        folder = Folder(str(scratch / "stage"))
        clock, cpu = time.perf_counter(), time.process_time()
        staged = stage(
            folder, zones, raster, Filters(), [YEAR], columns,
            key="benchmark", part_zones=settings.part_zones,
            notify=lambda text: print(f"{time.perf_counter() - clock:6.0f} s  {text}", file=sys.stderr),
        )  # fmt: skip
        staging = time.perf_counter() - clock - sum(seconds for seconds, _ in made)
        staging_cpu = time.process_time() - cpu
    after_staging = _peak()
    clock = time.perf_counter()
    plan, _, _ = plan_year(settings, raster, staged, YEAR, headers=False)
    planning = time.perf_counter() - clock
    peak = _peak()
    clock = time.perf_counter()
    urls = tuple(raster.url(tile.path) for tile in plan.tiles)
    stats = tuple(FileStat(1, f"{n:032x}") for n in range(len(urls)))
    parts = Folder(str(scratch / "parts"))
    job = Job(staged, parts, reader, plan.tiles, urls, columns, "fractional", "native", YEAR, {}, stats)
    # As large as the headers of real tiles, which travel with the graph: where each band's chunks are.
    place_and_length = np.dtype([("offset", "<u8"), ("count", "<u4")])
    headers = [np.zeros((len(source.bands), tile.grid.chunk_count), place_and_length) for tile in plan.tiles]
    wiring = wire(plan, job, headers, (), "benchmark")
    graph = len(pickle.dumps(wiring.graph, protocol=5))
    read = staged.report["read"]
    return {
        "scale": args.scale,
        "states": args.states,
        "zones": read,
        "zones_kept": plan.zones,
        "vertices_a_zone": round(sum(vertices for _, vertices in made) / read, 1),
        "repaired": staged.report["repaired"],
        "tiles": len(plan.tiles),
        "chunks": plan.chunks,
        "units": len(plan.units),
        "parts": len(plan.parts),
        "making_seconds": round(sum(seconds for seconds, _ in made), 1),
        "staging_seconds": round(staging, 1),
        "staging_cpu_seconds": round(staging_cpu, 1),
        "zones_a_second": round(read / staging),
        "planning_seconds": round(planning, 1),
        "wiring_seconds": round(time.perf_counter() - clock, 1),
        "peak_gib_staging": round(after_staging, 2),
        "peak_gib": round(peak, 2),
        "graph_tasks": len(wiring.graph),
        "graph_bytes": graph,
        "of_headers_bytes": sum(header.nbytes for header in headers),
        "staged_bytes": sum(path.stat().st_size for path in (scratch / "stage").iterdir()),
    }


def _peak() -> float:
    """Most memory that this process has held, GiB; the one that makes zones is another."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--zones", type=int, default=8_100_000)
    parser.add_argument("--tiles", type=int, default=TILES, help="about so many, by the ground covered")
    parser.add_argument("--states", type=int, default=56)
    parser.add_argument(
        "--scale", type=float, default=1.0, help="part of the zones, the tiles and the ground"
    )
    parser.add_argument("--folder", help="where to work; some 10 GB are needed, and freed at the end")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the folder goes away
    need = ROOM * args.zones * args.scale + 1e9
    with tempfile.TemporaryDirectory(prefix="zonal-country-", dir=args.folder) as scratch:
        if (free := shutil.disk_usage(scratch).free) < need:
            parser.error(f"{scratch}: {free / 1e9:.0f} GB are free, {need / 1e9:.0f} GB are needed")
        figures = measure(args, Path(scratch))
    for name, value in figures.items():
        print(f"{name.replace('_', ' '):<22} {value:>16,}")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
