"""What fuzzing tries: bytes as a TIFF, as a workflow, as a catalog; only zonal's own errors may come out.

hypothesis (tests/test_fuzz.py, in CI) and atheris (run.py, `make fuzz`) share it.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from pathlib import Path
from typing import Any, Literal

import numpy as np
import rasterio
from rasterio.transform import from_origin

from zonal.config.catalog import Catalog
from zonal.config.workflows import bundled, load
from zonal.errors import InputError, UsageError, ZonalError
from zonal.io.raster.cog import Cog

SECONDS = 10
"""That one case may take: far more than it needs, and far less than a hang."""

FEW = 2**18
"""Values in all chunks of a file that are still worth decoding each time."""

RULES: tuple[Literal["aef", "linear"], ...] = ("aef", "linear")


def read_tiff(raw: bytes, folder: Path) -> int:
    """Open a file in both rules and decode all its chunks; return how many were right."""
    path = folder / "x.tif"
    path.write_bytes(raw)
    decoded, start = 0, time.process_time()
    for rule in RULES:
        with contextlib.suppress(ZonalError):
            cog = Cog.open(str(path), rule=rule)
            grid = cog.grid
            if grid.chunk_count * grid.chunk_width * grid.chunk_height * len(cog.bands) > FEW:
                continue
            for chunk in range(grid.chunk_count):
                with contextlib.suppress(ZonalError):
                    cog.decode(cog.fetch(chunk))
                    decoded += 1
    assert time.process_time() - start < SECONDS
    return decoded


def read_yaml(raw: bytes, folder: Path) -> int:
    """Load a file as a workflow and as a catalog; return how often that went well."""
    path = folder / "x.yaml"
    path.write_bytes(raw)
    loaded, start = 0, time.process_time()
    with contextlib.suppress(UsageError, InputError):
        assert repr(load(str(path)))
        loaded += 1
    with contextlib.suppress(InputError):
        assert repr(Catalog.load(str(path)))
        loaded += 1
    assert time.process_time() - start < SECONDS
    return loaded


TARGETS = {"tiff": read_tiff, "workflow": read_yaml}


def tiff_seeds(folder: Path) -> list[bytes]:
    """Small files of every kind: classic or BigTIFF, both byte orders, planes or pixels, tiles or strips."""
    data = np.random.default_rng(0).integers(-127, 128, (2, 48, 40)).astype(np.int8)
    size: dict[str, Any] = {"driver": "GTiff", "count": 2, "height": 48, "width": 40, "dtype": "int8"}
    place = {"crs": "EPSG:32616", "transform": from_origin(500_000, 5_000_000, 10, 10), "nodata": -128}
    kinds = itertools.product(("NO", "YES"), ("LITTLE", "BIG"), ("band", "pixel"), (True, False))
    found = []
    for number, (big, order, interleave, tiled) in enumerate(kinds):
        path = folder / f"{number}.tif"
        blocks: dict[str, Any] = (
            {"tiled": True, "blockxsize": 32, "blockysize": 16} if tiled else {"blockysize": 16}
        )
        codec = ({}, {"compress": "deflate", "predictor": 2}, {"compress": "zstd"})[number % 3]
        with rasterio.open(
            path,
            "w",
            **size,
            **place,
            **blocks,
            **codec,
            bigtiff=big,
            endianness=order,
            interleave=interleave,
        ) as file:
            file.write(data)
            file.set_band_description(1, "red & blue")
            if number % 4 == 3:
                file.scales, file.offsets = (0.5, 2.0), (1.0, -1.0)
        found.append(path.read_bytes())
    return found


ANCHORS = b"""
state: &s WA
year: 2018,2020-2024
base: &b {key: k, secret: s}
storage_options:
  s3: {<<: *b, anon: false}
  gs: &g [*s, *s]
"""


def yaml_seeds() -> list[bytes]:
    """The bundled workflows and catalog, and a file with anchors."""
    files = [*sorted(bundled("workflows").glob("*.yaml")), bundled("data_catalog.yaml")]
    return [*(file.read_bytes() for file in files), ANCHORS]
