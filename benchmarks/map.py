"""A synthetic state drawn by `zonal pca`: seconds, pixels, bytes and memory.

Knows how to make a table of block-like zones with random features; leaves the drawing to the command itself.

    python -m benchmarks.map [--zones 158000] [--box W S E N] [--workers N] [--folder FOLDER]

Making the table happens before anything is timed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import tempfile
from pathlib import Path

import geopandas as gpd
import numpy as np
import psutil

from benchmarks.country import State, zones_of
from benchmarks.process import python, run

WASHINGTON = (-124.5, 45.6, -117.0, 49.0)
"""About the state's box: 58,513 x 39,246 pixels of 10 m."""

FEATURES = [f"A{band:02d}_{stat}" for stat in ("mean", "std") for band in range(64)]


def write_table(path: Path, zones: int, box: tuple[float, float, float, float]) -> None:
    """Write zones that fill a box in degrees, their features smooth in space and noisy."""
    polygons = zones_of(State(0, box, zones)).geometry
    middles = polygons.representative_point()
    rng = np.random.default_rng(0)
    waves = rng.normal(0, 3, (2, 8)), rng.normal(0, 1, (8, len(FEATURES)))
    values = np.sin(np.column_stack([middles.x, middles.y]) @ waves[0]) @ waves[1]
    values += rng.normal(0, 0.5, values.shape)
    columns = dict(zip(FEATURES, values.T.astype(np.float32), strict=True))
    ids = [f"{number:015d}" for number in range(len(polygons))]
    gpd.GeoDataFrame({"GEOID20": ids, **columns}, geometry=polygons.values).to_parquet(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--zones", type=int, default=158_000)
    parser.add_argument("--box", type=float, nargs=4, default=WASHINGTON)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="where table and map stay; default: a temporary one")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = asked.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        table = folder / "state.parquet"
        write_table(table, asked.zones, tuple(asked.box))
        driver = 0.0

        def watch(pid: int) -> None:
            nonlocal driver
            with contextlib.suppress(psutil.NoSuchProcess):
                driver = max(driver, psutil.Process(pid).memory_info().rss / 2**20)

        words = ("pca", table, "--quiet", "--workers", asked.workers, "--threads", 1)
        ended = run(python("zonal", *words, "--output", folder / "map.tif"), 3600, watch)
        if ended.error:
            raise SystemExit(ended.error)
        (drawn,) = json.loads((folder / "map.json").read_text())["maps"]
        size = (folder / "map.tif").stat().st_size / 1e6
        print(
            f"{drawn['zones']:,} of {asked.zones:,} zones, {len(FEATURES)} features, {asked.workers} workers"
        )
        print(f"{drawn['width']:,} x {drawn['height']:,} pixels, {size:.0f} MB, {ended.seconds:.0f} s")
        print(f"MiB at most: {driver:.0f} in the driver, {ended.peak:.0f} in all processes together")


if __name__ == "__main__":
    main()
