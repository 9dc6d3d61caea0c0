"""A small output folder with all that a run makes, for tests of what reads one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pyarrow.parquet as pq
import shapely

from zonal.cluster.runner import Threads
from zonal.config.analysis import EvaluationSettings, MapSettings
from zonal.events import quiet
from zonal.findings.evaluation.evaluate import evaluate_table
from zonal.findings.map.draw import draw
from zonal.io.store.folder import Folder
from zonal.io.table.finished import load_table

ABOUT = {
    "zonal_version": "0.1.0",
    "schema_version": 1,
    "zone_id": "GEOID20",
    "year": 2020,
    "sources": ["https://example.org/geographies/mapping-files/time-series/geo/embeddings"],
    "citations": ["Cite <this> & that."],
    "licences": ["CC-BY-4.0"],
}


def blocks(side: int = 12, seed: int = 0, features: int = 8) -> gpd.GeoDataFrame:
    """Squares of about 300 m whose attributes follow their features; one has no statistics."""
    rng = np.random.default_rng(seed)
    x, y = (axis.ravel() for axis in np.meshgrid(np.arange(side), np.arange(side)))
    count = len(x)
    signal = np.sin(x / 2) + np.cos(y / 3) + 0.3 * rng.standard_normal(count)
    frame = gpd.GeoDataFrame(
        {
            "GEOID20": [f"53{1 + 2 * (at % side > side // 2):03d}{at:010d}" for at in range(count)],
            "ALAND20": (90_000 + 5_000 * x).astype("int64"),
            "AWATER20": np.where(x == 3, 10_000, 0).astype("int64"),
            "POP20": np.maximum(0, 50 + 30 * signal + 5 * rng.standard_normal(count)).astype("int64"),
            "HOUSING20": np.maximum(0, 20 + 12 * signal + 2 * rng.standard_normal(count)).astype("int64"),
            "UR20": np.where(signal > 0, "U", "R"),
            "pixel_count": 900.0 + x,
            "valid_fraction": np.where(y == 0, 0.5, 1.0),
        },
        geometry=shapely.box(
            -120.5 + 0.004 * x, 47.5 + 0.0027 * y, -120.496 + 0.004 * x, 47.5027 + 0.0027 * y
        ),
        crs=4269,
    )
    weights = rng.standard_normal(features)
    values = 0.1 * (np.outer(signal, weights) + rng.standard_normal((count, features)))
    for at in range(features):
        column = values[:, at].astype(np.float32)
        column[5] = np.nan
        frame[f"A{at // 2:02d}_{('mean', 'std')[at % 2]}"] = column
    frame.loc[5, ["pixel_count", "valid_fraction"]] = 0.0
    return frame


def manifest_of(frame: gpd.GeoDataFrame, **settings: Any) -> dict[str, Any]:
    """A manifest as a run of these zones would write it."""
    asked = {"state": ["OR"], "year": 2020, "zones": "census_blocks_2020", "raster": ["aef_annual"]}
    asked |= {"stats": ["mean", "std"], "coverage": "fractional", "county": [], "bbox": None} | settings
    kept = len(frame)
    return {
        "zonal_version": "0.1.0",
        "settings": asked,
        "fingerprint": "ab" * 32,
        "inputs": {
            "zones": [
                {"url": "https://example.org/blocks.zip", "zones": kept + 6, "size": 1234, "etag": "x"}
            ],
            "index": {"url": "s3://bucket/index.parquet", "size": 99, "etag": "y"},
            "tiles": [{"path": "s3://bucket/a.tiff", "size": 10**9, "etag": "z"}],
            "missing_tiles": ["s3://bucket/b.tiff"],
            "coordinate_operations": ["EPSG:4269 to EPSG:4326 [proj=noop]"],
        },
        "table": "stats.parquet",
        "files": ["stats.parquet"],
        "zones": {
            "read": kept + 6,
            "kept": kept,
            "dropped": {"all water": 4, "over 25 km2": 2},
            "repaired": 1,
            "empty": 0,
            "covered": kept - 1,
            "without_pixels": 1,
            "outside_tiles": 0,
        },
        "plan": {"tiles": 1, "chunks": 3, "units": 2, "parts": 1},
        "bytes": {
            "to_fetch": 5 * 10**6,
            "headers": 65536,
            "fetched": 5 * 10**6,
            "staged_read": 7,
            "cached": 0,
        },
        "retries": 2,
        "seconds": {
            "staging": 1.0,
            "planning": 0.5,
            "computing": 30.0,
            "publishing": 0.5,
            "in_units": 55.0,
            "in_parts": 1.5,
        },
        "versions": {"numpy": "2.4.6"},
    }


def write_table(path: Path, frame: gpd.GeoDataFrame, about: dict[str, Any] | None = None) -> None:
    """Write a GeoParquet file that says of itself what zonal's say."""
    frame.to_parquet(path, index=False)
    table = pq.read_table(path)
    meta = {**table.schema.metadata, b"zonal": json.dumps(about or ABOUT).encode()}
    pq.write_table(table.replace_schema_metadata(meta), path)


def make_output(
    path: Path,
    frame: gpd.GeoDataFrame | None = None,
    *,
    steps: tuple[str, ...] = ("pca", "evaluate"),
    components: int = 4,
    **settings: Any,
) -> Folder:
    """Write a table, a manifest and what the steps make of them."""
    frame = blocks() if frame is None else frame
    path.mkdir(parents=True)
    write_table(path / "stats.parquet", frame)
    folder = Folder(str(path))
    folder.write_json("manifest.json", manifest_of(frame, **settings))
    table, made = load_table(str(path)), {}
    if "pca" in steps:
        maps = draw(table, MapSettings(), folder, "pca", "stats.qml", Threads(2), quiet)
        made["pca"] = {
            "key": "p",
            "files": [file for one in maps for file in one.files],
            "skipped": None,
            "seconds": 1.25,
        }
    if "evaluate" in steps:
        evaluate_table(
            table, EvaluationSettings(components=components), folder, "evaluation", lambda place: {}, quiet
        )
        made["evaluate"] = {
            "key": "e",
            "files": ["evaluation.json", "evaluation.md"],
            "skipped": None,
            "seconds": 2.5,
        }
    folder.write_json("steps.json", made)
    return folder
