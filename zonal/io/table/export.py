"""A finished table in another format: GeoPackage, FlatGeobuf or CSV, row batch by row batch.

Knows the formats and their limits; knows nothing of what the columns mean. The
file appears whole or not at all.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyogrio
import shapely

from zonal.errors import InputError, UsageError
from zonal.geo.crs import crs_name
from zonal.io.table.finished import FinishedTable

DRIVERS = {"gpkg": "GPKG", "fgb": "FlatGeobuf"}
MULTI = {"Polygon": "MultiPolygon", "LineString": "MultiLineString", "Point": "MultiPoint"}


@dataclass(frozen=True)
class Exported:
    """A file that was written.

    Parameters
    ----------
    file : Path
    rows : int
    left_out : tuple of str
        Columns that the format cannot hold; `bbox`, which only repeats the geometry, is not named.
    """

    file: Path
    rows: int
    left_out: tuple[str, ...]

    def __str__(self) -> str:
        without = f"; without {', '.join(self.left_out)}" if self.left_out else ""
        return f"{self.file}  {self.rows:,} rows{without}"


def export_table(
    table: FinishedTable, to: str, output: Path | None = None, *, overwrite: bool = False
) -> Exported:
    """Write a table in another format.

    Parameters
    ----------
    table : FinishedTable
    to : {"gpkg", "fgb", "csv"}
        csv leaves out the geometry.
    output : Path, optional
        File to write; None for beside the table, or in the working directory if the table is remote.
    overwrite : bool
        Replace a file that is there.

    Raises
    ------
    UsageError
        If the file is there, or its name does not end in the format's own.
    InputError
        If the file cannot be written, or the format cannot hold the table.
    """
    file = beside(table, f".{to}") if output is None else output
    if file.suffix.lower() != f".{to}":
        raise UsageError(f"--output {file}: a file of this format ends in .{to}")
    with replacing(table, file, overwrite=overwrite) as draft:
        geometry, bbox = shape_columns(table)
        names = [name for name in table.schema.names if name not in {geometry, *bbox}]
        left_out = tuple(name for name in names if not _flat(table.schema.field(name).type))
        names = [name for name in names if name not in left_out]
        write = _write_csv if to == "csv" else _write_vector
        write(table, names, draft, to)
    left_out += (geometry,) if to == "csv" and geometry else ()
    return Exported(file, table.rows, left_out)


def beside(table: FinishedTable, end: str) -> Path:
    """Name a file after a table: beside it, or in the working directory if the table is remote.

    Parameters
    ----------
    table : FinishedTable
    end : str
        What follows the table's name, which loses its own end.
    """
    last = table.place.rstrip("/").rsplit("/", 1)[-1].split("?")[0]
    stem = last.rsplit(".", 1)[0] if "." in last else last
    return (Path(table.place).parent if table.local else Path()) / f"{stem}{end}"


@contextmanager
def replacing(table: FinishedTable, file: Path, *, overwrite: bool) -> Iterator[Path]:
    """Give a place to write a file made of a table; it gets its name when the block ends well.

    Raises
    ------
    UsageError
        If the file is there and not to be replaced, or is the table itself.
    InputError
        If it cannot be written.
    """
    if table.local and file.exists() and file.samefile(table.place):
        raise UsageError(f"{file} is the table itself; choose another --output")
    if file.exists() and not overwrite:
        raise UsageError(f"{file} exists; choose another --output, or --overwrite to replace it")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        # A folder of its own beside the target: databases leave journals, and a rename is whole.
        with tempfile.TemporaryDirectory(prefix=".zonal-", dir=file.parent) as scratch:
            draft = Path(scratch) / file.name
            yield draft
            draft.replace(file)
    except OSError as error:
        raise InputError(f"cannot write {file}: {error.strerror or error}") from None


def shape_columns(table: FinishedTable) -> tuple[str | None, set[str]]:
    """Name of the geometry column, and of the columns that only cover it."""
    return (None, set()) if table.geo is None else (table.geo.name, {*table.geo.covering})


def _flat(kind: Any) -> bool:
    return not (pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _write_csv(table: FinishedTable, names: Sequence[str], draft: Path, to: str) -> None:
    schema = pa.schema([table.schema.field(name) for name in names])
    with pa.csv.CSVWriter(draft, schema) as out:
        for batch in table.batches(names):
            out.write_batch(batch)


def _write_vector(table: FinishedTable, names: Sequence[str], draft: Path, to: str) -> None:
    geo = table.geo
    if geo is None:
        raise InputError(f"{table.name} has no geometry (it is no GeoParquet): export it --to csv")
    if geo.encoding != "WKB":
        raise InputError(f"{table.name}: geometry is encoded as {geo.encoding}; only WKB can be exported")
    # A layer has one type, and a table of zones mostly both polygons and multipolygons.
    kinds = {kind.removesuffix(" Z") for kind in geo.kinds}
    kind = next(iter(kinds)) if len(kinds) == 1 else "Unknown"
    promote = len(kinds) == 2 and {MULTI.get(kind) for kind in kinds} - {None} <= kinds
    if promote:
        (kind,) = (MULTI[kind] for kind in kinds if kind in MULTI)
    taken = {name.lower() for name in names}
    shape = _free("geometry", taken)
    fields = [pa.field(name, _type(table.schema.field(name).type)) for name in names]
    schema = pa.schema([*fields, pa.field(shape, pa.binary())])

    unfit: list[InputError] = []

    def batches() -> Iterator[pa.RecordBatch]:
        for batch in table.batches([*names, geo.name]):
            try:
                columns = [
                    _converted(batch.column(i), schema.field(i), table.name, to)
                    for i in range(batch.num_columns - 1)
                ]
            except InputError as error:
                unfit.append(error)  # what passes through GDAL loses its words
                raise
            wkb = batch.column(batch.num_columns - 1).cast(pa.binary())
            columns.append(_promoted(wkb) if promote else wkb)
            yield pa.RecordBatch.from_arrays(columns, schema=schema)

    if to == "gpkg":  # it names two columns by itself, which must not meet one of the table's
        own = {"FID": _free("fid", taken), "GEOMETRY_NAME": _free("geom", taken)}
    else:  # FlatGeobuf's index has no place for a zone without geometry
        own = {"SPATIAL_INDEX": "NO" if _any_empty(table, geo.name) else "YES"}
    try:
        pyogrio.write_arrow(
            pa.RecordBatchReader.from_batches(schema, batches()),
            draft,
            layer=draft.stem,
            driver=DRIVERS[to],
            geometry_name=shape,
            geometry_type=kind,
            crs=None if geo.crs is None else crs_name(geo.crs),
            layer_options=own,
        )
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError, RuntimeError) as error:
        if unfit:
            raise unfit[0] from None
        reason = str(error).replace(str(draft), draft.name).split("\n")[0].rstrip(".")
        raise InputError(f"{table.name} cannot be written as {to}: {reason}") from None


def _converted(values: Any, field: Any, name: str, to: str) -> Any:
    """Return values in the type of a field, or say which of them the format cannot hold."""
    # GDAL itself would end a text at NUL, and make -1 of 2**64 - 1.
    try:
        converted = values.cast(field.type, safe=pa.types.is_unsigned_integer(values.type))
    except pa.ArrowInvalid as error:
        raise InputError(f"{name}: column {field.name!r} does not fit into {to}: {error}") from None
    if pa.types.is_string(converted.type) and pc.any(pc.match_substring(converted, "\0")).as_py():
        raise InputError(f"{name}: column {field.name!r} has NUL in a text, where {to} would end it; use csv")
    return converted


def _any_empty(table: FinishedTable, geometry: str) -> bool:
    return any(
        batch.column(0).null_count or shapely.is_empty(shapely.from_wkb(np.asarray(batch.column(0)))).any()
        for batch in table.batches([geometry])
    )


def _free(name: str, taken: set[str]) -> str:
    """Return a name that no column has, upper or lower case."""
    return name if name not in taken else _free(f"{name}_", taken)


def _type(kind: Any) -> Any:
    """Return the nearest type that GDAL's formats know."""
    if pa.types.is_dictionary(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind):
        return pa.string()
    if pa.types.is_unsigned_integer(kind):
        return pa.int64()
    if pa.types.is_decimal(kind) or pa.types.is_float16(kind):
        return pa.float64()
    return kind


def _promoted(wkb: Any) -> Any:
    """Make single geometries multi ones of one part: a layer has one type."""
    shapes = shapely.from_wkb(np.asarray(wkb))
    single = np.isin(shapely.get_type_id(shapes), [0, 1, 3])
    several = {0: shapely.multipoints, 1: shapely.multilinestrings, 3: shapely.multipolygons}
    for kind in np.unique(shapely.get_type_id(shapes[single])):
        of_kind = shapely.get_type_id(shapes) == kind
        parts, index = shapely.get_parts(shapes[of_kind]), np.arange(int(of_kind.sum()))
        shapes[of_kind] = several[int(kind)](parts, indices=index)
    return pa.array(shapely.to_wkb(shapes), pa.binary())
