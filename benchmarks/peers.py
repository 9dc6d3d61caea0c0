"""Every way to the same table, each run as a process of its own: `python -m benchmarks.peers NAME ...`.

Knows each peer's fastest honest use; knows no other peer and no reference. Up
to its first `yield` a peer starts up; its second gives the table, and between
them lies the job.

All peers but rasterio and GDAL read the whole raster at once into an int8 array
(with threads, turned north-up without a copy), and turn its codes into values
by a table of 256 numbers as they go. Zones are read and put into the raster's
CRS inside the job, as zonal does. No peer is asked to write a Parquet table.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

NODATA = -128
CODES = np.arange(256, dtype=np.uint8).view(np.int8).astype(np.float64)
VALUES = np.where(CODES == NODATA, np.nan, np.sign(CODES) * (CODES / 127.5) ** 2)
"""Value of a code, at the code's unsigned twin."""


@dataclass(frozen=True)
class Inputs:
    """What a peer is given.

    Parameters
    ----------
    mirror, raster, zones : str
        Folder of the mirror; its only tile; GeoParquet.
    scratch : str
        Empty folder to write to.
    sample : int
        Zones to do, for the peers that take too long for all; 0 for all.
    threads : int
        Of all processes together.
    workers : int
        Of zonal, with one thread each; 0 for as many as it takes by itself.
    """

    mirror: str
    raster: str
    zones: str
    scratch: str
    sample: int
    threads: int
    workers: int


@dataclass
class Table:
    """What a peer gives: mean and std by zone and band, and what else it knows.

    `fixed` are the seconds of a sampled job that do not grow with its zones.
    """

    ids: NDArray[Any] = field(default_factory=lambda: np.empty(0, str))
    mean: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 0)))
    std: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 0)))
    fixed: float | None = None
    about: dict[str, Any] = field(default_factory=dict)


Peer = Iterator[Table | None]


def decode(inputs: Inputs) -> Peer:
    """Fetch and decode all chunks as zonal does, and nothing more: the limit."""
    from concurrent.futures import ThreadPoolExecutor

    from zonal.io.raster.cog import Cog

    yield None
    raster = Cog.open(inputs.raster, {}, rule="aef")
    chunks = iter(range(raster.grid.chunk_count))  # the zones leave none out

    def some(_: int) -> None:
        pixels = None
        for chunk in chunks:
            pixels = raster.decode(raster.fetch(chunk), pixels)

    with ThreadPoolExecutor(inputs.threads) as threads:
        list(threads.map(some, range(inputs.threads)))
    yield Table()


def zonal(inputs: Inputs, coverage: str = "fractional") -> Peer:
    from zonal.cluster.connection import connect
    from zonal.engine import run as engine
    from zonal.engine.preload import PRELOAD

    settings = zonal_settings(inputs.mirror, inputs.zones, inputs.scratch, coverage=coverage)
    number = inputs.workers or None
    with connect("local", number, 1 if number else None, preload=PRELOAD) as runner:
        yield None
        (result,) = engine.run(settings, fresh=True, runner=runner)
        yield Table(about={"manifest": result.manifest, "table": result.table})


def zonal_center(inputs: Inputs) -> Peer:
    yield from zonal(inputs, "center")


def zonal_settings(mirror: str, zones: str, output: str, **more: Any) -> Any:
    from zonal.config.settings import Settings

    words = {"zones": zones, "zone_id": "GEOID20", "raster": "aef_annual", "year": 2020}
    return Settings.model_validate({**words, "mirror": mirror, "output": output, **more})


def exactextract(inputs: Inputs, strategy: str = "raster-sequential") -> Peer:
    import geopandas  # noqa: F401  # starting up, not the job
    from exactextract import exact_extract
    from exactextract.raster import NumPyRasterSource

    class Dequantised(NumPyRasterSource):
        """Codes in memory, values as they are asked for."""

        def read_window(self, x0: int, y0: int, nx: int, ny: int) -> NDArray[np.float32]:
            return _values(super().read_window(x0, y0, nx, ny), np.float32)

    yield None
    started = time.perf_counter()
    codes, (west, south, east, north), crs = _codes(inputs.raster)
    wkt = crs.to_wkt()
    sources = [
        Dequantised(band, west, south, east, north, name=f"b{at:02d}", srs_wkt=wkt)
        for at, band in enumerate(codes)
    ]
    zones = _zones(inputs, crs)
    fixed = time.perf_counter() - started
    found = exact_extract(
        sources, zones, ["mean", "stdev"], include_cols=["GEOID20"], strategy=strategy, output="pandas"
    )
    mean, std = (
        found[[f"b{at:02d}_{name}" for at in range(len(codes))]].to_numpy() for name in ("mean", "stdev")
    )
    yield Table(found["GEOID20"].to_numpy(str), mean, std, fixed)


def exactextract_features(inputs: Inputs) -> Peer:
    yield from exactextract(inputs, "feature-sequential")


def rasterio(inputs: Inputs) -> Peer:
    """One window and one mask for each zone, from the file as it is: the post's way."""
    import geopandas  # noqa: F401  # starting up, not the job
    import rasterio
    from rasterio.features import geometry_mask, geometry_window

    yield None
    # A block cache (in bytes) that holds the whole raster, so that nothing is decoded twice.
    with rasterio.Env(GDAL_CACHEMAX=8 << 30), rasterio.open(inputs.raster) as file:
        zones = _zones(inputs, file.crs)
        mean, std = np.full((2, len(zones), file.count), np.nan)
        for at, zone in enumerate(zones.geometry):
            window = geometry_window(file, [zone])
            pixels = file.read(window=window)
            inside = geometry_mask([zone], pixels.shape[1:], file.window_transform(window), invert=True)
            values = _values(pixels[:, inside & (pixels[0] != NODATA)], np.float64)
            if values.size:
                mean[at], std[at] = values.mean(axis=1), values.std(axis=1)
    yield Table(zones["GEOID20"].to_numpy(str), mean, std)


def rasterstats(inputs: Inputs) -> Peer:
    import geopandas  # noqa: F401  # starting up, not the job
    from affine import Affine
    from rasterstats import zonal_stats

    yield None
    started = time.perf_counter()
    codes, (west, south, east, north), crs = _codes(inputs.raster)
    height, width = codes.shape[1:]
    transform = Affine((east - west) / width, 0, west, 0, (south - north) / height, north)
    zones = _zones(inputs, crs)
    fixed = time.perf_counter() - started
    mean, std = np.full((2, len(zones), len(codes)), np.nan)
    for band, pixels in enumerate(codes):
        started = time.perf_counter()
        values = _values(pixels, np.float32)
        fixed += time.perf_counter() - started
        found = zonal_stats(zones.geometry, values, affine=transform, nodata=np.nan, stats=["mean", "std"])
        mean[:, band], std[:, band] = np.array([(one["mean"], one["std"]) for one in found], np.float64).T
    yield Table(zones["GEOID20"].to_numpy(str), mean, std, fixed)


def extractrs(inputs: Inputs) -> Peer:
    import geopandas  # noqa: F401  # starting up, not the job
    from extractrs import apply_stat, build_cache

    yield None
    codes, (west, south, east, north), crs = _codes(inputs.raster)
    pixel_x, pixel_y = (east - west) / codes.shape[2], (north - south) / codes.shape[1]
    zones = _zones(inputs, crs)
    numbers = list(range(len(zones)))
    cache = build_cache(
        list(zones.geometry.to_wkb()), numbers, west, south, east, north, pixel_x, pixel_y, "exact"
    )
    mean, std = np.full((2, len(zones), len(codes)), np.nan)
    for band, pixels in enumerate(codes):
        values = np.nan_to_num(_values(pixels, np.float64), copy=False, nan=-9999.0)
        mean[:, band] = apply_stat(cache, values, -9999.0, "mean")
        std[:, band] = apply_stat(cache, values, -9999.0, "stdev")
    yield Table(zones["GEOID20"].to_numpy(str), mean, std)


def gdal(inputs: Inputs, pixels: str = "default") -> Peer:
    """`gdal raster zonal-stats`; its north-up float32 file and its zones in that CRS are made before."""
    from benchmarks.algorithm import Gdal

    library = Gdal()
    import geopandas  # noqa: F401  # starting up, not the job
    import pandas as pd
    import rasterio
    from rasterio.transform import from_bounds

    scratch = Path(inputs.scratch)
    scratch.mkdir()
    raster, zones, output = (str(scratch / name) for name in ("values.tif", "zones.gpkg", "found.csv"))
    codes, bounds, crs = _codes(inputs.raster)
    bands, height, width = codes.shape
    shape = {"count": bands, "height": height, "width": width, "dtype": "float32", "nodata": np.nan}
    place = {"crs": crs, "transform": from_bounds(*bounds, width, height)}
    blocks = {"tiled": True, "blockxsize": 256, "blockysize": 256, "interleave": "band", "bigtiff": "yes"}
    with rasterio.open(raster, "w", driver="GTiff", **shape, **place, **blocks) as file:
        for band, pixels_of in enumerate(codes, start=1):
            file.write(_values(pixels_of, np.float32), band)
    del codes
    _zones(inputs, crs).to_file(zones)
    yield None
    words = ["--input", raster, "--zones", zones, "--output", output, "--output-format", "CSV"]
    words += [
        "--include-field",
        "GEOID20",
        "--stat",
        "mean,stdev",
        "--pixels",
        pixels,
        "--strategy",
        "raster",
    ]
    library.run(["raster", "zonal-stats"], words)
    found = pd.read_csv(output, dtype={"GEOID20": str})
    mean, std = (
        found[[f"{name}_band_{at + 1}" for at in range(bands)]].to_numpy() for name in ("mean", "stdev")
    )
    yield Table(found["GEOID20"].to_numpy(str), mean, std, about={"version": library.version})


def gdal_fractional(inputs: Inputs) -> Peer:
    yield from gdal(inputs, "fractional")


PEERS: dict[str, Callable[[Inputs], Peer]] = {
    "decode": decode,
    "zonal": zonal,
    "zonal-center": zonal_center,
    "exactextract": exactextract,
    "exactextract-features": exactextract_features,
    "rasterio": rasterio,
    "rasterstats": rasterstats,
    "extractrs": extractrs,
    "gdal": gdal,
    "gdal-fractional": gdal_fractional,
}


def _codes(path: str) -> tuple[NDArray[np.int8], tuple[float, float, float, float], Any]:
    """Read codes[band, y, x] with row 0 in the north, their bounds (west, south, east, north) and CRS."""
    import rasterio
    from rasterio.transform import array_bounds

    with rasterio.open(path, num_threads="all_cpus") as file:
        codes = file.read()
        west, bottom, east, top = array_bounds(file.height, file.width, file.transform)
        if file.transform.e > 0:
            codes = codes[:, ::-1]
        return codes, (west, min(bottom, top), east, max(bottom, top)), file.crs


def _values(codes: NDArray[np.int8], dtype: Any) -> NDArray[Any]:
    return VALUES.astype(dtype)[codes.view(np.uint8)]


def _zones(inputs: Inputs, crs: Any) -> Any:
    """Read the zones into a CRS; of a sample every n-th, so that they come from everywhere."""
    import geopandas as gpd

    zones = gpd.read_parquet(inputs.zones, columns=["GEOID20", "geometry"])
    if inputs.sample:
        zones = zones.iloc[:: max(1, len(zones) // inputs.sample)].iloc[: inputs.sample]
    return zones.to_crs(crs)


def main() -> None:
    """Run one peer; write its table, and print its seconds as JSON."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("peer", choices=PEERS)
    parser.add_argument(
        "--launched", type=float, required=True, help="time.time() when the process was started"
    )
    parser.add_argument("--save", type=Path, required=True, help="where the table goes (.npz)")
    for name, kind in Inputs.__annotations__.items():
        parser.add_argument(f"--{name}", type=int if kind == "int" else str, required=True)
    words = vars(parser.parse_args())
    name, launched, save = (words.pop(key) for key in ("peer", "launched", "save"))
    try:
        run = PEERS[name](Inputs(**words))
        next(run)
    except ImportError as error:
        print(json.dumps({"missing": str(error)}))
        sys.exit()
    ready, from_ = time.time(), time.perf_counter()
    table = next(run)
    job = time.perf_counter() - from_
    assert table is not None
    report = {
        "startup": ready - launched,
        "job": job,
        "ready": ready,
        "fixed": table.fixed,
        "zones": len(table.ids),
    }
    np.savez(save, ids=table.ids, mean=table.mean, std=table.std)
    run.close()
    print(json.dumps(report | table.about))


if __name__ == "__main__":
    main()
