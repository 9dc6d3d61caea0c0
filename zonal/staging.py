"""Staging: zone files -> filtered, repaired, reprojected pieces on the run's own store.

Composes io, zones, pieces and tiles, once, on the driver; knows no Dask and no
pixels. What it writes is a function of files and settings alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyproj
import shapely

from zonal.errors import InputError
from zonal.inputs import RasterInput, ZoneFile, ZoneInput, census_columns
from zonal.io.folder import Folder
from zonal.io.ranges import Blob, Stat
from zonal.io.stage import AREA, EVERY_YEAR, ROW_GROUP, Batch, Stage, write_batch
from zonal.io.table import Columns as TableColumns
from zonal.pieces import WGS84, one_crs_pieces, operation_name, reproject, unwrap, utm_pieces
from zonal.tiles import foreign_pieces
from zonal.zones import Filters, check, in_space, repair, select, whole_numbers

STAGE_VERSION = 1
"""Goes up when the same inputs are staged otherwise."""


def stage_key(
    zones: ZoneInput, raster: RasterInput, filters: Filters, years: Sequence[int], part_zones: int
) -> str:
    """Hash of all that the staged files depend on: versions, files with size and ETag, filters."""
    value = {
        "version": STAGE_VERSION,
        "libraries": [shapely.__version__, shapely.geos_version_string, pyproj.proj_version_str],
        "files": [[file.name, asdict(_stat(file))] for file in zones.files],
        "columns": asdict(zones.columns),
        "filters": asdict(filters),
        "years": list(years),
        "index": asdict(raster.index_stat) if raster.index_stat else None,
        "crs": raster.crs,
        "size": min(ROW_GROUP, part_zones),
    }
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _stat(file: ZoneFile) -> Stat:
    if file.frame is None:
        return Blob(file.url, file.options).stat()
    frame = file.frame
    attributes = pa.Table.from_pandas(
        pd.DataFrame(frame.drop(columns=frame.geometry.name)), preserve_index=False
    )
    digest = hashlib.sha256(str(frame.crs).encode())
    for value in (*attributes.to_pydict().items(), *shapely.to_wkb(frame.geometry.to_numpy())):
        digest.update(repr(value).encode())
    return Stat(len(frame), digest.hexdigest())


def stage(
    folder: Folder,
    zones: ZoneInput,
    raster: RasterInput,
    filters: Filters,
    years: Sequence[int],
    table: TableColumns,
    *,
    key: str,
    part_zones: int,
    notify: Callable[[str], None] = lambda _: None,
) -> Stage:
    """Stage all zone files, one batch each.

    Parameters
    ----------
    folder : Folder
        For the staged files; a complete stage of the same key in it is taken as it is.
    zones, raster : ZoneInput, RasterInput
    filters : Filters
    years : sequence of int
        Years of the run, whose index rows decide which ground goes to a neighbour; empty without an index.
    table : zonal.io.table.Columns
        Whose names no attribute may take.
    key : str
        From `stage_key`.
    part_zones : int
        Row groups are no larger than a part.
    notify : callable
        Told what is being done.

    Raises
    ------
    InputError
        If the zones are unusable, or no zone is left.
    """
    found = Stage.load(folder)
    if found is not None and found.key == key:
        return found
    size = min(ROW_GROUP, part_zones)
    batches: list[Batch] = []
    hashes: dict[int, list[str]] = {}
    seen: set[Any] = set()
    report: dict[str, Any] = {
        "files": [],
        "read": 0,
        "dropped": {},
        "repaired": 0,
        "empty": 0,
        "operations": [],
    }
    boxes: list[list[float]] = []
    first_zone = first_piece = 0
    crs = ""
    for number, file in enumerate(zones.files):
        notify(f"staging {file.name}")
        frame, stat = file.read()
        columns = census_columns(zones.columns, frame.columns)
        check(frame, columns, file.name)
        table.check([c for c in frame.columns if c != frame.geometry.name], file.name)
        kept, dropped = select(frame, filters, columns, file.name)
        kept, mended = repair(kept, file.name)
        if zones.source is not None:
            kept = whole_numbers(kept, zones.source.columns)
        kept = in_space(kept, columns.zone_id)
        ids = kept[columns.zone_id]
        if seen & {*ids}:
            raise InputError(f"{file.name}: zone {next(iter(seen & {*ids}))!r} is in another file too")
        if len(zones.files) > 1:
            seen |= {*ids}
        wkt = pyproj.CRS(kept.crs).to_wkt()
        if crs and wkt != crs:
            raise InputError(f"{file.name}: its CRS differs from that of {zones.files[0].name}")
        crs = wkt
        source = _short(kept.crs)
        lonlat = _lonlat(kept, source)
        groups = _group_boxes(lonlat, size)
        boxes += groups.tolist()
        if raster.crs:
            pieces = {EVERY_YEAR: one_crs_pieces(kept.geometry.to_numpy(), source, raster.crs)}
            used = [(source, raster.crs)]
        else:
            pieces = {EVERY_YEAR: utm_pieces(lonlat)}
            used = [(source, WGS84)] + [(WGS84, f"EPSG:{e}") for e in np.unique(pieces[EVERY_YEAR].epsg)]
            for year in years:
                taken = foreign_pieces(pieces[EVERY_YEAR], raster.near(year, groups))
                if len(taken):
                    pieces[year] = taken
        named = [f"{a} to {b}: {operation_name(a, b)}" for a, b in used if a != b]
        report["operations"] += [name for name in named if name not in report["operations"]]
        area = np.zeros(len(kept))
        np.add.at(area, pieces[EVERY_YEAR].zone, shapely.area(pieces[EVERY_YEAR].geometry))
        kept[AREA] = area
        if len(kept):
            count, digests = write_batch(
                folder,
                len(batches),
                _tidy(kept, columns.zone_id),
                pieces,
                first_zone=first_zone,
                first_piece=first_piece,
                size=size,
            )
            batches.append(Batch(file.label, len(kept), size))
            for year, digest in digests.items():
                hashes.setdefault(year, []).append(digest)
            first_zone += len(kept)
            first_piece += count
        report["files"].append({"url": file.name, "zones": len(frame), **asdict(stat)})
        report["read"] += len(frame)
        for reason, dropped_zones in dropped.items():
            report["dropped"][reason] = report["dropped"].get(reason, 0) + dropped_zones
        report["repaired"] += mended["repaired"]
        report["empty"] += mended["empty"]
        if len(zones.files) > 1:
            notify(f"{number + 1} of {len(zones.files)} zone files staged, {first_zone:,} zones kept")
    if not first_zone:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in report["dropped"].items() if count)
        raise InputError(f"no zone is left of {report['read']:,} ({reasons or 'the files are empty'})")
    report["boxes"] = boxes
    result = Stage(
        folder=folder,
        key=key,
        hash=_joined(hashes.pop(EVERY_YEAR)),
        crs=crs,
        zone_id=zones.columns.zone_id,
        batches=tuple(batches),
        years={str(year): _joined(digests) for year, digests in sorted(hashes.items())},
        report=report,
    )
    result.save()
    return result


def _joined(hashes: Sequence[str]) -> str:
    return hashlib.sha256("".join(hashes).encode()).hexdigest()


def _short(crs: pyproj.CRS) -> str:
    """``EPSG:4269`` where there is a code, else WKT: names read better in the manifest."""
    authority = pyproj.CRS(crs).to_authority(min_confidence=100)
    return ":".join(authority) if authority else pyproj.CRS(crs).to_wkt()


def _lonlat(frame: gpd.GeoDataFrame, source: str) -> npt.NDArray[np.object_]:
    """Zones in degrees, whole across the antimeridian."""
    return unwrap(reproject(frame.geometry.to_numpy(), source, WGS84))


def _group_boxes(lonlat: npt.NDArray[np.object_], size: int) -> npt.NDArray[np.float64]:
    """Box of each row group in degrees: (west, south, east, north); empty zones count for nothing."""
    bounds = shapely.bounds(lonlat)
    found = []
    for start in range(0, len(bounds), size):
        group = bounds[start : start + size]
        group = group[~np.isnan(group).any(axis=1)]
        if len(group):
            found.append([*group[:, :2].min(axis=0), *group[:, 2:].max(axis=0)])
    return np.array(found, float).reshape(-1, 4)


def _tidy(frame: gpd.GeoDataFrame, zone_id: str) -> gpd.GeoDataFrame:
    """Id first, then the attributes in their order."""
    rest = [c for c in frame.columns if c not in (zone_id, frame.geometry.name)]
    return frame[[zone_id, *rest, frame.geometry.name]]
