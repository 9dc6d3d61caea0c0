"""Finished tables wherever they are: an output folder, Parquet files or CSV, by columns or in batches.

Knows manifests' list of files, Parquet and CSV; knows nothing of what the
columns mean. Files are read by byte ranges, so a column of a remote table
costs that column.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from zonal.credentials import scrub_urls
from zonal.errors import InputError, first_line
from zonal.io.store.folder import Folder
from zonal.io.store.ranges import Blob
from zonal.io.store.seekable import Seekable
from zonal.io.table.geoparquet import PARQUET, GeometryColumn, geometry_column
from zonal.io.table.names import MANIFEST, WORK

CSV = (".csv", ".csv.gz", ".tsv")
BATCH = 10_000
"""Rows of a batch."""

_STATE = re.compile(r"/state=(\w+)/[^/]+$")


class _TableFile(Protocol):
    """One file of a table."""

    @property
    def state(self) -> str | None: ...

    @property
    def rows(self) -> int: ...

    @property
    def schema(self) -> pa.Schema: ...

    def read(self, columns: Sequence[str]) -> pa.Table: ...

    def batches(self, columns: Sequence[str]) -> Iterator[pa.Table]: ...


@dataclass(frozen=True)
class FinishedTable:
    """A table that is there to be read.

    Parameters
    ----------
    name : str
        As the user wrote it, without credentials: for messages.
    place : str
        Path or URL of the file, or of the folder of files.
    local : bool
        Whether it is on a disk of this machine.
    schema : pyarrow.Schema
        Of all its files together; where they differ, types are widened.
    zone_id : str or None
        Name of the id column, where the file's metadata or a manifest say it.
    geo : GeometryColumn or None
        What GeoParquet metadata say of the geometry: of the first file, with the geometry types of all.
    about : dict or None
        What zonal wrote of the table into its (first) file: year, sources, citations, ...
    """

    name: str
    place: str
    local: bool
    schema: pa.Schema
    zone_id: str | None
    geo: GeometryColumn | None
    about: dict[str, Any] | None = field(repr=False)
    _files: tuple[_TableFile, ...] = field(repr=False)

    def __post_init__(self) -> None:
        names = self.schema.names
        if len({*names}) < len(names):
            twice = next(name for at, name in enumerate(names) if name in names[:at])
            raise InputError(f"{self.name}: two columns are named {twice!r}; rename one")

    @property
    def rows(self) -> int:
        """Number of rows."""
        return sum(file.rows for file in self._files)

    def read(self, columns: Sequence[str]) -> pa.Table:
        """Read some columns of all rows, in the order of the files."""
        schema = pa.schema([self.schema.field(name) for name in columns])
        return pa.concat_tables([_fitted(file.read(columns), schema) for file in self._files])

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Read some columns a few thousand rows at a time, in the order of the files."""
        schema = pa.schema([self.schema.field(name) for name in columns])
        for file in self._files:
            for table in file.batches(columns):
                yield from _fitted(table, schema).combine_chunks().to_batches()

    def by_state(self) -> dict[str | None, FinishedTable]:
        """Take a dataset apart by the folders ``state=XX`` of its files; another table is one, under None."""
        files_of: dict[str | None, list[_TableFile]] = {}
        for file in self._files:
            files_of.setdefault(file.state, []).append(file)
        return {state: replace(self, _files=tuple(files)) for state, files in files_of.items()}


def load_table(place: str, options: Mapping[str, Any] | None = None) -> FinishedTable:
    """Find a table; of its files only the footers are read (a CSV file is read whole).

    Parameters
    ----------
    place : str
        An output folder of zonal, a Parquet or CSV file, or a folder of Parquet files; a path or any
        URL that fsspec opens.
    options : mapping, optional
        fsspec storage options; never shown.

    Raises
    ------
    InputError
        If there is no table, or it cannot be read.
    """
    name = scrub_urls(place)
    lower = name.lower().rstrip("/")
    local = "://" not in place
    if local and not Path(place).exists():
        raise InputError(f"{name}: no such file or folder")
    if lower.endswith(CSV) and not (local and Path(place).is_dir()):
        file = _CsvFile.open(place, options, "\t" if lower.endswith(".tsv") else ",")
        return FinishedTable(name, place, local, file.schema, None, None, None, (file,))
    if (local and Path(place).is_file()) or (not local and lower.endswith(PARQUET)):
        return _of_parquet(name, place, [Blob(place, options)], local)
    folder = Folder(place.rstrip("/"), options or {})
    manifest = folder.read_json(MANIFEST)
    if manifest is not None:
        files = manifest.get("files")
        if not isinstance(files, list) or not files or not all(isinstance(file, str) for file in files):
            raise InputError(f"{name}/{MANIFEST} names no table; is it an output of zonal?")
        table = folder.shown(str(manifest.get("table", files[0])))
    else:
        files = _parquet_files(folder)
        table = place.rstrip("/")
        if not files:
            what = "an unfinished run" if folder.exists(WORK) else f"no {MANIFEST} and no Parquet file"
            raise InputError(f"{name}: no table here ({what})")
    return _of_parquet(name, table, [folder.blob(file) for file in files], local)


def _parquet_files(folder: Folder) -> list[str]:
    """Files below a folder by path, but nothing hidden."""
    return sorted(
        path
        for path in folder.below()
        if path.lower().endswith(PARQUET) and not any(name.startswith((".", "_")) for name in path.split("/"))
    )


def _of_parquet(name: str, place: str, blobs: Sequence[Blob], local: bool) -> FinishedTable:
    files = tuple(_ParquetFile.open(blob) for blob in blobs)
    schemas = [file.schema for file in files]
    try:
        schema = pa.unify_schemas(
            [schema.remove_metadata() for schema in schemas], promote_options="permissive"
        )
    except pa.ArrowException as error:
        raise InputError(f"{name}: its files do not have the same columns: {first_line(error)}") from None
    about = _about(schemas[0])
    columns = [geometry_column(file.metadata) for file in schemas]
    geo = columns[0]
    if geo is not None:
        geo = replace(geo, kinds=frozenset().union(*(c.kinds for c in columns if c and c.name == geo.name)))
    zone_id = (about or {}).get("zone_id")
    known = zone_id if isinstance(zone_id, str) and zone_id in schema.names else None
    plain = pa.schema([pa.field(f.name, _plain(f.type), f.nullable) for f in schema])
    return FinishedTable(name, place, local, plain, known, geo, about, files)


def _plain(kind: pa.DataType) -> pa.DataType:
    """Of types that differ in layout alone, the one that Arrow can do everything with."""
    if pa.types.is_string_view(kind):
        return pa.large_string()
    return pa.large_binary() if pa.types.is_binary_view(kind) else kind


def _about(schema: pa.Schema) -> dict[str, Any] | None:
    """Read what zonal wrote of the table; what is not a JSON object counts as absent."""
    try:
        value = json.loads((schema.metadata or {})[b"zonal"])
    except (KeyError, ValueError):
        return None
    return value if isinstance(value, dict) else None


@dataclass(frozen=True)
class _ParquetFile:
    blob: Blob
    size: int
    metadata: Any

    @classmethod
    def open(cls, blob: Blob) -> _ParquetFile:
        size = blob.stat().size
        try:
            return cls(blob, size, pq.ParquetFile(Seekable(blob, size)).metadata)
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{blob.name} is not a readable Parquet file: {first_line(error)}") from None

    @property
    def state(self) -> str | None:
        match = _STATE.search(self.blob.name)
        return match[1] if match else None

    @property
    def rows(self) -> int:
        return int(self.metadata.num_rows)

    @property
    def schema(self) -> pa.Schema:
        return self.metadata.schema.to_arrow_schema()

    def read(self, columns: Sequence[str]) -> pa.Table:
        with self._file() as file:
            return file.read(columns=self._have(columns))

    def batches(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        have = self._have(columns)
        with self._file() as file:
            # One after the other: Arrow keeps the bytes of all row groups that one call is to read.
            for group in range(file.num_row_groups):
                for batch in file.iter_batches(BATCH, row_groups=[group], columns=have):
                    yield pa.Table.from_batches([batch])

    def _have(self, columns: Sequence[str]) -> list[str]:
        names = {*self.schema.names}
        return [name for name in columns if name in names]

    def _file(self) -> Any:
        return pq.ParquetFile(Seekable(self.blob, self.size), metadata=self.metadata)


@dataclass(frozen=True)
class _CsvFile:
    table: pa.Table

    @classmethod
    def open(cls, place: str, options: Mapping[str, Any] | None, delimiter: str) -> _CsvFile:
        blob = Blob(place, options)
        (data,) = blob.read([(0, blob.stat().size)])
        source: Any = pa.BufferReader(data)
        if place.lower().endswith(".gz"):
            source = pa.CompressedInputStream(source, "gzip")
        try:
            # Types are guessed from the first block: a large one, for columns that begin with whole numbers.
            reading = pa.csv.ReadOptions(block_size=max(1, min(len(data), 64 * 2**20)))
            return cls(pa.csv.read_csv(source, reading, pa.csv.ParseOptions(delimiter=delimiter)))
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{blob.name} cannot be read as CSV: {first_line(error)}") from None

    @property
    def state(self) -> str | None:
        return None

    @property
    def rows(self) -> int:
        return len(self.table)

    @property
    def schema(self) -> pa.Schema:
        return self.table.schema

    def read(self, columns: Sequence[str]) -> pa.Table:
        return self.table.select(list(columns))

    def batches(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        for start in range(0, len(self.table), BATCH):
            yield self.read(columns).slice(start, BATCH)


def _fitted(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Give a file's columns the types of the whole; what it lacks is null."""
    columns = [
        table[f.name].cast(f.type) if f.name in table.column_names else pa.nulls(len(table), f.type)
        for f in schema
    ]
    return pa.table(columns, schema=schema)
