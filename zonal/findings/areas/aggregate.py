"""A table of larger areas, written: a finished table's rows merged, their polygons united on request.

Composes `membership`, `moments`, `dissolve` and the table's files; computes no statistic itself. The
file appears whole or not at all.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyproj

from zonal.errors import InputError, UsageError
from zonal.findings.areas.dissolve import measure, unite
from zonal.findings.areas.membership import Areas, constants, find_areas
from zonal.findings.areas.moments import BOOKKEEPING, ColumnRoles, Merged, merge
from zonal.findings.places import Geometry
from zonal.findings.table import base_name
from zonal.io.table import geoparquet
from zonal.io.table.export import beside, replacing, shape_columns
from zonal.io.table.finished import FinishedTable
from zonal.io.table.table import SCHEMA_VERSION, TABLE_ROW_GROUP


@dataclass(frozen=True)
class Aggregated:
    """A table of larger areas that was written; prints itself.

    Parameters
    ----------
    file : Path
    areas, rows : int
        Rows of the new table, and rows of the old one that they were made of.
    left_out : tuple of str
        Columns that differ inside an area, and `tile_count`.
    warnings : tuple of str
        What did not go into it, or is not known.
    """

    file: Path
    areas: int
    rows: int
    left_out: tuple[str, ...]
    warnings: tuple[str, ...]

    def __str__(self) -> str:
        without = f"; without {', '.join(self.left_out)}" if self.left_out else ""
        first = f"{self.file}  {self.areas:,} areas from {self.rows:,} rows{without}"
        return "\n".join([first, *(f"  {warning}" for warning in self.warnings)])


def aggregate(
    table: FinishedTable,
    by: str,
    output: Path | None = None,
    *,
    dissolve: bool = False,
    sums: Sequence[str] = (),
    overwrite: bool = False,
) -> Aggregated:
    """Make a table of larger areas from a finished one.

    Parameters
    ----------
    table : FinishedTable
        With `pixel_count` (or ``{band}_count``) and statistics ``{band}_{mean,std,min,max,sum,count}``.
    by : str
        ``block-group``, ``tract``, ``county``, ``state``, or a column: see `membership.find_areas`.
    output : Path, optional
        Parquet file to write; None for ``{table}-by-{by}.parquet`` beside the table, or in the working
        directory if the table is remote.
    dissolve : bool
        Unite the polygons too: the file is then GeoParquet 1.1 in the table's CRS, with a covering `bbox`.
    sums : sequence of str
        Columns to add up, beside the census' own counts and areas.
    overwrite : bool
        Replace a file that is there.

    Returns
    -------
    Aggregated
        The file has one row an area, by id. Statistics have the types that they had.

    Raises
    ------
    UsageError
        If the file is there or has another kind of name, or a column to go by or to add up is not fit.
    InputError
        If the table does not tell areas, weights or polygons, or the file cannot be written.
    """
    name = re.sub(r"[^\w.-]+", "-", by)
    file = beside(table, f"-by-{name}.parquet") if output is None else output
    if file.suffix.lower() not in geoparquet.PARQUET:
        raise UsageError(f"--output {file}: expected a name that ends in .parquet")
    if table.local and file.resolve().parent.is_relative_to(Path(table.place).resolve()):
        raise UsageError(
            f"{file} would be taken for a part of the table {table.name}; choose another --output"
        )
    if by in BOOKKEEPING:
        raise UsageError(f"--by {by}: this column is no name of areas; expected another")
    geometry = Geometry.find(table) if dissolve else None
    if dissolve and geometry is None:
        raise InputError(f"{table.name} has no geometry (it is no GeoParquet): there is nothing to dissolve")
    with replacing(table, file, overwrite=overwrite) as draft:
        areas = find_areas(table, by)
        shape, covering = shape_columns(table)
        without = {areas.column, *covering, *([shape] if shape else [])}
        columns = ColumnRoles.of(table, without, sums, ours=table.about is not None)
        if table.rows and not len(areas.ids):
            raise InputError(f"{table.name}: no row has a value in {areas.column}; there is nothing to go by")
        merged = merge(table, areas, columns)
        kept = constants(table, areas, columns.others)
        data = _data(table, areas, columns, merged, kept)
        warnings = _warnings(areas, merged, data)
        meta = _about(table, areas, by)
        if geometry is not None:
            united = unite(table, geometry, areas)
            data["bbox"], data["geometry"] = geoparquet.geometry_columns(united.geometry)
            kinds, bounds = geoparquet.extent([pa.table(data)])
            meta |= geoparquet.metadata(pyproj.CRS(geometry.crs), kinds, bounds)
            if united.misfits:
                warnings.append(
                    f"{united.misfits:,} areas have zones that overlap, or borders that do not agree; "
                    "they were united all the same"
                )
        made = pa.table(data)
        with geoparquet.writer(draft, made.schema, meta) as out:
            out.write_table(made, row_group_size=TABLE_ROW_GROUP)
    left_out = tuple(name for name in table.schema.names if name not in {*data, *without})
    return Aggregated(file, len(areas.ids), table.rows - areas.left_out, left_out, tuple(warnings))


def _data(
    table: FinishedTable, areas: Areas, columns: ColumnRoles, merged: Merged, kept: pa.Table
) -> dict[str, Any]:
    """Lay out the columns: id, attributes in the table's order, what zonal counts, statistics."""
    data: dict[str, Any] = {areas.column: areas.ids}
    for name in table.schema.names:
        if name in kept.column_names:
            data[name] = kept[name]
        elif name in merged.sums:
            total = merged.sums[name]
            data[name] = pa.array(total.value, mask=total.numbers == 0)
    if "pixel_count" in columns.own:
        data["pixel_count"] = pa.array(merged.pixel_count.value)
    if {"pixel_count", "valid_fraction"} <= {*columns.own}:
        data["valid_fraction"] = pa.array(_valid_fraction(table, areas, merged), from_pandas=True)
    data["zone_count"] = pa.array(merged.zone_count)
    for name in columns.statistics:
        kind = table.schema.field(name).type
        kind = kind if pa.types.is_floating(kind) else pa.float64()
        values = merged.statistics[name].astype(kind.to_pandas_dtype())
        data[name] = pa.array(values, kind, from_pandas=True)
    return data


def _valid_fraction(table: FinishedTable, areas: Areas, merged: Merged) -> npt.NDArray[np.float64]:
    silent = (merged.pixel_count.value > 0) & (merged.ground.numbers < areas.sizes)
    whole = np.full(len(silent), np.nan)
    if silent.any():
        # A geometry that cannot be read leaves a share unknown; it is no reason to have no table.
        with contextlib.suppress(InputError):
            geometry = Geometry.find(table)
            whole = whole if geometry is None else measure(table, geometry, areas, silent)
    return merged.valid_fraction(silent, whole)


def _warnings(areas: Areas, merged: Merged, data: Mapping[str, Any]) -> list[str]:
    warnings = []
    if areas.left_out:
        warnings.append(f"{areas.left_out:,} rows are left out: they have no {areas.column}")
    for name, total in merged.sums.items():
        nulls = int((areas.sizes - total.numbers)[total.numbers > 0].sum())
        if nulls:
            warnings.append(f"{name}: {nulls:,} nulls among numbers count as nothing")
    unknown = data["valid_fraction"].null_count if "valid_fraction" in data else 0
    if unknown:
        warnings.append(
            f"valid_fraction is null in {unknown:,} areas: some of their zones have no pixels, "
            "and no geometry tells how large these are"
        )
    return warnings


def _about(table: FinishedTable, areas: Areas, by: str) -> dict[bytes, bytes]:
    """Say in the file's own metadata what the table said, and what was done since."""
    source = {"table": base_name(table.place), "rows": table.rows}
    about = {
        **(table.about or {}),
        "schema_version": SCHEMA_VERSION,
        "zone_id": areas.column,
        "aggregated_by": by,
        "aggregated_from": source,
    }
    return {b"zonal": json.dumps(about, sort_keys=True).encode()}
