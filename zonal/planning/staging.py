"""Staging: zone files -> filtered, repaired, reprojected pieces on the run's own store.

Composes io, zones, pieces and tiles, once, on the driver; knows no Dask and no
pixels. What it writes is a function of files and settings alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
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
from zonal.geo.antimeridian import unwrap
from zonal.geo.crs import WGS84, crs_name, operation_name, reproject
from zonal.geo.pieces import Pieces, one_crs_pieces, utm_pieces
from zonal.io.store.folder import Folder
from zonal.io.store.ranges import FileStat
from zonal.io.table.table import TableColumns
from zonal.planning.inputs import RasterInput, ZoneFile, ZoneInput, census_columns
from zonal.planning.stage import EVERY_YEAR, ROW_GROUP, Batch, Stage, staged_column, write_batch, zone_table
from zonal.planning.tiles import foreign_pieces
from zonal.planning.zones import (
    Filters,
    ZoneColumns,
    check,
    hashes_of,
    in_space,
    repair,
    select,
    whole_numbers,
)

STAGE_VERSION = 3
"""Goes up when the same inputs are staged otherwise."""


def stage_key(
    zones: ZoneInput, raster: RasterInput, filters: Filters, years: Sequence[int], part_zones: int
) -> str:
    """Hash of all that the staged files depend on: versions, files with size and ETag, filters."""
    value = {
        "version": STAGE_VERSION,
        "libraries": [shapely.__version__, shapely.geos_version_string, pyproj.proj_version_str],
        "files": [[file.name, asdict(_stat(file, zones.columns))] for file in zones.files],
        "columns": asdict(zones.columns),
        "filters": asdict(filters),
        "years": list(years),
        "index": asdict(raster.index_stat) if raster.index_stat else None,
        "crs": raster.crs,
        "size": min(ROW_GROUP, part_zones),
    }
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _stat(file: ZoneFile, columns: ZoneColumns) -> FileStat:
    if file.frame is None:
        return file.blob.stat()
    frame = file.frame
    check(frame, columns, file.name)  # before pyarrow is asked to hold it
    attributes = pa.Table.from_pandas(
        pd.DataFrame(frame.drop(columns=frame.geometry.name)), preserve_index=False
    )
    digest = hashlib.sha256(str(frame.crs).encode())
    for value in (*attributes.to_pydict().items(), *shapely.to_wkb(frame.geometry.to_numpy())):
        digest.update(repr(value).encode())
    return FileStat(len(frame), digest.hexdigest())


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
    table : TableColumns
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
    earlier = Stage.load(folder)
    if earlier is not None and earlier.key == key:
        return earlier
    staging = _Staging(folder, zones, raster, filters, years, table, min(ROW_GROUP, part_zones))
    for number, file in enumerate(zones.files):
        notify(f"staging {file.name}")
        staging.add(file)
        if len(zones.files) > 1:
            notify(f"{number + 1} of {len(zones.files)} zone files staged, {staging.zones:,} zones kept")
    result = staging.finish(key)
    result.save()
    return result


class _Staging:
    """Files staged so far, and what is to be told of them all; of their zones only ids' hashes stay."""

    def __init__(
        self,
        folder: Folder,
        zones: ZoneInput,
        raster: RasterInput,
        filters: Filters,
        years: Sequence[int],
        table: TableColumns,
        size: int,
    ) -> None:
        self.folder = folder
        self.input = zones
        self.raster = raster
        self.filters = filters
        self.years = years
        self.table = table
        self.size = size
        self.batches: list[Batch] = []
        self.hashes: dict[int, list[str]] = {}
        self.ids = np.zeros(0, np.uint64)
        self.crs = ""
        self.zones = self.pieces = 0
        self.report: dict[str, Any] = {
            "files": [],
            "read": 0,
            "dropped": {},
            "repaired": 0,
            "empty": 0,
            "operations": [],
            "boxes": [],
        }

    def add(self, file: ZoneFile) -> None:
        """Stage one file."""
        kept, columns = self._read(file)
        if len(self.input.files) > 1:
            self._remember(kept[columns.zone_id], file)
        wkt = pyproj.CRS(kept.crs).to_wkt()
        if self.crs and wkt != self.crs:
            raise InputError(f"{file.name}: its CRS differs from that of {self.input.files[0].name}")
        self.crs = wkt
        with ThreadPoolExecutor(1) as beside:  # while the zones are projected, which needs no interpreter
            laid_out = beside.submit(zone_table, _tidy(kept, columns.zone_id))
            pieces = self._pieces(kept)
            zones = laid_out.result()
        if not len(kept):
            return
        every = pieces[EVERY_YEAR]
        count, digests = write_batch(
            self.folder,
            len(self.batches),
            zones,
            np.bincount(every.zone, shapely.area(every.geometry), len(kept)).astype(np.float64),
            pieces,
            crs=wkt,
            first_zone=self.zones,
            first_piece=self.pieces,
            size=self.size,
        )
        self.batches.append(Batch(file.label, len(kept), self.size))
        for year, digest in digests.items():
            self.hashes.setdefault(year, []).append(digest)
        self.zones += len(kept)
        self.pieces += count

    def _read(self, file: ZoneFile) -> tuple[gpd.GeoDataFrame, ZoneColumns]:
        """Zones to keep, valid and in final order, and the columns that matter; the rest is reported."""
        frame, stat = file.read()
        columns = census_columns(self.input.columns, frame.columns)
        check(frame, columns, file.name)
        self.table.check([c for c in frame.columns if c != frame.geometry.name], file.name)
        kept, dropped = select(frame, self.filters, columns, file.name)
        kept, mended = repair(kept, file.name)
        if self.input.source is not None:
            kept = whole_numbers(kept, self.input.source.columns)
        report = self.report
        report["files"].append({"url": file.name, "zones": len(frame), **asdict(stat)})
        report["read"] += len(frame)
        for reason, count in dropped.items():
            report["dropped"][reason] = report["dropped"].get(reason, 0) + count
        for what, count in mended.items():
            report[what] += count
        return in_space(kept, columns.zone_id), columns

    def _pieces(self, kept: gpd.GeoDataFrame) -> dict[int, Pieces]:
        """Pieces of every year, and of the years with some of their own."""
        source = crs_name(pyproj.CRS(kept.crs))
        lonlat = unwrap(reproject(kept.geometry.to_numpy(), source, WGS84))
        groups = _group_boxes(lonlat, self.size)
        self.report["boxes"] += groups.tolist()
        if self.raster.crs:
            west = min((tile.grid.bounds[0] for tile in self.raster.files), default=-180.0)
            pieces = {EVERY_YEAR: one_crs_pieces(kept.geometry.to_numpy(), source, self.raster.crs, west)}
            used = [(source, self.raster.crs)]
        else:
            pieces = {EVERY_YEAR: utm_pieces(lonlat)}
            used = [(source, WGS84)] + [(WGS84, f"EPSG:{e}") for e in np.unique(pieces[EVERY_YEAR].epsg)]
            for year in self.years:
                taken = foreign_pieces(pieces[EVERY_YEAR], self.raster.near(year, groups))
                if len(taken):
                    pieces[year] = taken
        named = [f"{a} to {b}: {operation_name(a, b)}" for a, b in used if a != b]
        self.report["operations"] += [name for name in named if name not in self.report["operations"]]
        return pieces

    def _remember(self, ids: pd.Series, file: ZoneFile) -> None:
        """Raise InputError if a zone is in a file before; ids are kept as hashes, a tenth of their room."""
        hashes = hashes_of(ids)
        seen = np.searchsorted(self.ids, hashes, "left") < np.searchsorted(self.ids, hashes, "right")
        if seen.any():  # an id, or by a rare chance another one of the same hash
            suspects = {*ids[seen]}
            for number in range(len(self.batches)):
                twice = suspects & {*staged_column(self.folder, number, str(ids.name)).to_pylist()}
                if twice:
                    raise InputError(f"{file.name}: zone {min(twice, key=str)!r} is in another file too")
        self.ids = np.sort(np.concatenate([self.ids, np.sort(hashes)]), kind="stable")  # a merge

    def finish(self, key: str) -> Stage:
        """Return what was staged; InputError if that is nothing."""
        report = self.report
        if not self.zones:
            reasons = ", ".join(f"{count:,} {reason}" for reason, count in report["dropped"].items() if count)
            raise InputError(f"no zone is left of {report['read']:,} ({reasons or 'the files are empty'})")
        return Stage(
            folder=self.folder,
            key=key,
            hash=_joined(self.hashes.pop(EVERY_YEAR)),
            crs=self.crs,
            zone_id=self.input.columns.zone_id,
            batches=tuple(self.batches),
            years={str(year): _joined(digests) for year, digests in sorted(self.hashes.items())},
            report=report,
        )


def _joined(hashes: Sequence[str]) -> str:
    return hashlib.sha256("".join(hashes).encode()).hexdigest()


def _group_boxes(lonlat: npt.NDArray[np.object_], size: int) -> npt.NDArray[np.float64]:
    """Box of each row group in degrees: (west, south, east, north); empty zones count for nothing."""
    bounds = shapely.bounds(lonlat)
    boxes = []
    for start in range(0, len(bounds), size):
        group = bounds[start : start + size]
        group = group[~np.isnan(group).any(axis=1)]
        if len(group):
            boxes.append([*group[:, :2].min(axis=0), *group[:, 2:].max(axis=0)])
    return np.array(boxes, float).reshape(-1, 4)


def _tidy(frame: gpd.GeoDataFrame, zone_id: str) -> gpd.GeoDataFrame:
    """Id first, then the attributes in their order."""
    rest = [c for c in frame.columns if c not in (zone_id, frame.geometry.name)]
    return frame[[zone_id, *rest, frame.geometry.name]]
