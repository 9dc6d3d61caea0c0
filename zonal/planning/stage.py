"""Staged zones: two Parquet files a batch, zones and their pieces, in equal row groups.

Knows how staged rows are laid out, written and read back by row group; knows
neither filters nor coordinate operations (they have been applied).
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from itertools import pairwise
from typing import Any

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pyproj
import shapely

from zonal.errors import InputError
from zonal.geo.antimeridian import Geometries
from zonal.geo.grid import Bounds
from zonal.geo.pieces import Pieces
from zonal.io.store.folder import Folder
from zonal.io.store.ranges import Blob, FileStat
from zonal.io.store.seekable import Seekable
from zonal.io.table import geoparquet
from zonal.io.table.table import AREA
from zonal.planning.units import Outlines, RowGroups

ROW_GROUP = 1_000
"""Zones of a row group, at most: a unit reads those whose pieces lie on its chunks, and no more."""

EVERY_YEAR = 0
"""Year of the pieces that hold in every year; others stand in for ground that a year's files leave out."""

STAGE = "stage.json"
"""Written last: a stage without it is not complete."""

PIECES = pa.schema(
    [
        ("piece", pa.int64()),
        ("zone", pa.int64()),
        ("epsg", pa.int32()),
        ("year", pa.int16()),
        *((side, pa.float64()) for side in geoparquet.SIDES),
        ("geometry", pa.binary()),
    ]
)


@dataclass(frozen=True, slots=True)
class Batch:
    """One staged file pair: a state's zones, or all zones of a file."""

    label: str
    zones: int
    size: int

    @property
    def groups(self) -> int:
        """Row groups."""
        return -(-self.zones // self.size)


@dataclass(frozen=True)
class Stage:
    """Zones as they were staged.

    Parameters
    ----------
    folder : Folder
        Where the files lie.
    key : str
        Says what was asked to be staged: sources, filters, versions.
    hash : str
        SHA-256 of the zones and of the pieces that hold in every year.
    crs : str
        WKT of the zones' CRS.
    zone_id : str
        Column of the zone id.
    batches : tuple of Batch
    years : dict of str to str
        Years that have pieces of their own (ground taken over from a neighbour), with their SHA-256.
    report : dict
        Counts by reason, sources, coordinate operations: for the manifest.
    """

    folder: Folder
    key: str
    hash: str
    crs: str
    zone_id: str
    batches: tuple[Batch, ...]
    years: dict[str, str]
    report: dict[str, Any]

    def hash_of(self, year: int | None) -> str:
        """Hash of what a year's table is made from: part of its run's fingerprint."""
        return f"{self.hash}{self.years.get(str(year), '')}"

    @property
    def row_groups(self) -> RowGroups:
        """Row groups of all batches, in one count."""
        sizes, batch = [0], []
        for number, b in enumerate(self.batches):
            for group in range(b.groups):
                sizes.append(min(b.size, b.zones - group * b.size))
                batch.append(number)
        return RowGroups(np.cumsum(sizes).astype(np.int64), np.array(batch, np.int64))

    @property
    def partitioned(self) -> bool:
        """Whether the table is a dataset of one folder a state, rather than one file."""
        return len(self.report["files"]) > 1

    def save(self) -> None:
        """Write the stage's description, last: a stage without it is not complete."""
        value = {k: v for k, v in asdict(self).items() if k != "folder"}
        self.folder.write_json(STAGE, value)

    @classmethod
    def load(cls, folder: Folder) -> Stage | None:
        """Read a stage's description; None where there is no complete stage."""
        value = folder.read_json(STAGE)
        if value is None:
            return None
        try:
            value["batches"] = tuple(Batch(**b) for b in value["batches"])
            return cls(folder=folder, **value)
        except (TypeError, KeyError):
            return None  # of another version: stage anew

    def _locate(self, row_group: int) -> tuple[int, int]:
        """Batch and row group inside it."""
        for number, batch in enumerate(self.batches):
            if row_group < batch.groups:
                return number, row_group
            row_group -= batch.groups
        raise IndexError(row_group)

    def zones(self, first: int, last: int) -> pa.Table:
        """Read the zones of row groups first..last (of one batch) with attributes and geometry."""
        batch, group = self._locate(first)
        file, _ = _open(self.folder, _zones_name(batch))
        with file:
            return file.read_row_groups(list(range(group, group + last - first)))

    def pieces(
        self, row_groups: Sequence[int], *, epsg: int, year: int, bounds: Bounds
    ) -> tuple[Pieces, npt.NDArray[np.int64], int]:
        """Read pieces of a UTM zone and a year that meet a box.

        Parameters
        ----------
        row_groups : sequence of int
        epsg : int
            UTM zone of the pieces.
        year : int
            Pieces of every year and of this one.
        bounds : (west, south, east, north)
            In the pieces' CRS.

        Returns
        -------
        (Pieces, int64 ndarray[p], int)
            The pieces, their numbers, and the bytes read for them (footers apart: they are
            read once a process).
        """
        wanted: dict[int, list[int]] = {}
        for row_group in row_groups:
            batch, group = self._locate(row_group)
            wanted.setdefault(batch, []).append(group)
        tables, read = [PIECES.empty_table()], 0
        west, south, east, north = bounds
        for batch, groups in wanted.items():
            file, blob = _open(self.folder, _pieces_name(batch))
            with file:
                table = file.read_row_groups(groups)
            read += blob.counters.bytes
            column = {name: table[name].to_numpy() for name in PIECES.names[:-1]}
            keep = (column["epsg"] == epsg) & np.isin(column["year"], [EVERY_YEAR, year])
            keep &= (column["xmin"] < east) & (column["xmax"] > west)
            keep &= (column["ymin"] < north) & (column["ymax"] > south)
            tables.append(table.filter(pa.array(keep)))
        return *_unpack(pa.concat_tables(tables)), read

    def outlines(self, batch: int, year: int) -> Outlines:
        """All pieces of a batch that hold in a year: what planning needs of them."""
        file, _ = _open(self.folder, _pieces_name(batch))
        with file:
            table = file.read([name for name in PIECES.names if name not in ("piece", "geometry")])
            lengths = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
        start = np.cumsum([0, *lengths])
        valid = np.flatnonzero(np.isin(table["year"].to_numpy(), [EVERY_YEAR, year]))
        table = table.take(pa.array(valid))

        def polygons(rows: npt.NDArray[np.int64]) -> Geometries:
            """Read the row groups of a few pieces."""
            group = np.searchsorted(start, valid[rows], side="right") - 1
            groups, at = np.unique(group, return_inverse=True)
            file, _ = _open(self.folder, _pieces_name(batch))
            with file:
                wkb = file.read_row_groups(groups.tolist(), ["geometry"])["geometry"]
            before = np.cumsum([0, *np.take(lengths, groups)])
            within = pa.array(valid[rows] - start[group] + before[at])
            return np.asarray(shapely.from_wkb(wkb.take(within).to_numpy()), object)

        return Outlines(
            epsg=table["epsg"].to_numpy(),
            bounds=np.stack([table[side].to_numpy() for side in geoparquet.SIDES], axis=1),
            row_group=np.searchsorted(self.row_groups.bounds, table["zone"].to_numpy(), side="right") - 1,
            polygons=polygons,
        )


def zone_table(frame: gpd.GeoDataFrame) -> pa.Table:
    """Lay zones out as they are staged, but for their area: id, attributes, `bbox`, `geometry` (WKB)."""
    attributes = frame.drop(columns=frame.geometry.name)
    table = pa.Table.from_pandas(attributes, preserve_index=False).replace_schema_metadata(None)
    table = table.cast(pa.schema([(f.name, _plain(f.type)) for f in table.schema]))
    bbox, wkb = geoparquet.geometry_columns(frame.geometry.to_numpy())
    return table.append_column("bbox", bbox).append_column("geometry", wkb)


def write_batch(
    folder: Folder,
    number: int,
    zones: pa.Table,
    area: npt.NDArray[np.float64],
    pieces: Mapping[int, Pieces],
    *,
    crs: str,
    first_zone: int,
    first_piece: int,
    size: int,
) -> tuple[int, dict[int, str]]:
    """Write one batch of zones with their pieces.

    Parameters
    ----------
    zones : pyarrow.Table
        In final order, from `zone_table`.
    area : float64 ndarray[zone]
        In the CRS of their pieces: the column `AREA`.
    pieces : mapping of year to Pieces
        `EVERY_YEAR` and the years with pieces of their own; `zone` counts in `zones`.
    crs : str
        WKT of the zones' CRS.
    first_zone, first_piece : int
        Numbers of the first ones in the whole stage.
    size : int
        Zones of a row group.

    Returns
    -------
    (int, dict of int to str)
        Number of pieces written, and a hash of the content by year: of the zones and the pieces of
        every year, and of each other year's pieces. How rows are grouped does not change it.
    """
    zones = zones.add_column(zones.num_columns - 2, AREA, pa.array(area))
    with ThreadPoolExecutor(1) as beside:  # the two files at once: both are compressing for the most part
        zones_hash = beside.submit(_write_zones, folder, number, zones, crs, size)
        count, hashes = _write_pieces(folder, number, len(zones), pieces, first_zone, first_piece, size)
        hashes[EVERY_YEAR] = hashlib.sha256((zones_hash.result() + hashes[EVERY_YEAR]).encode()).hexdigest()
    return count, hashes


def _write_zones(folder: Folder, number: int, zones: pa.Table, crs: str, size: int) -> str:
    """Write zones with their attributes; returns a hash of the content."""
    meta = geoparquet.metadata(pyproj.CRS(crs), *geoparquet.extent([zones]))
    with (
        folder.create(_zones_name(number)) as path,
        geoparquet.writer(path, zones.schema, meta, geoparquet.QUICK) as out,
    ):
        for start in range(0, len(zones), size):
            out.write_table(zones.slice(start, size), row_group_size=size)
    return _content_hash(zones)


def _write_pieces(
    folder: Folder,
    number: int,
    zones: int,
    pieces: Mapping[int, Pieces],
    first_zone: int,
    first_piece: int,
    size: int,
) -> tuple[int, dict[int, str]]:
    """Write pieces in as many row groups as there are of zones; returns their number and a hash by year."""
    year = np.concatenate([np.full(len(p), y, np.int16) for y, p in pieces.items()])
    joined = Pieces(
        *(np.concatenate([getattr(p, name) for p in pieces.values()]) for name in Pieces.__slots__)
    )
    order = np.lexsort((joined.epsg, year, joined.zone))
    joined, year = joined.take(order), year[order]
    table = pa.table(
        [
            pa.array(np.arange(len(joined)) + first_piece),
            pa.array(joined.zone + first_zone),
            pa.array(joined.epsg),
            pa.array(year),
            *(pa.array(side) for side in shapely.bounds(joined.geometry).T),
            geoparquet.wkb(joined.geometry),
        ],
        schema=PIECES,
    )
    starts = np.searchsorted(joined.zone, np.arange(0, zones + size, size))
    with (
        folder.create(_pieces_name(number)) as path,
        geoparquet.writer(path, PIECES, {}, geoparquet.QUICK) as out,
    ):
        for start, stop in pairwise(starts):
            # One row group for each of the zones', also where no piece is left of them.
            out.write_table(table.slice(start, stop - start), row_group_size=max(1, int(stop - start)))
    content = table.drop_columns(["piece"])  # numbered across years
    if len(pieces) == 1:
        return len(joined), dict.fromkeys(pieces, _content_hash(content))
    return len(joined), {y: _content_hash(content.filter(pa.array(year == y))) for y in pieces}


def _content_hash(table: pa.Table) -> str:
    """SHA-256 of a table's content as Arrow's stream has it: the same however rows are grouped and packed."""
    sink = _Sha256()
    with pa.ipc.new_stream(pa.PythonFile(sink, "w"), table.schema) as out:
        out.write_table(table.combine_chunks())
    return sink.sha.hexdigest()


class _Sha256(io.RawIOBase):
    """A file that keeps nothing of what is written but its hash."""

    def __init__(self) -> None:
        self.sha = hashlib.sha256()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.sha.update(data)
        return len(data)


def staged_column(folder: Folder, number: int, name: str) -> pa.ChunkedArray:
    """Read one column of the zones of a batch."""
    file, _ = _open(folder, _zones_name(number))
    with file:
        return file.read([name])[name]


def _unpack(table: pa.Table) -> tuple[Pieces, npt.NDArray[np.int64]]:
    geometry = shapely.from_wkb(table["geometry"].to_numpy())
    zone, epsg = table["zone"].to_numpy(), table["epsg"].to_numpy()
    return Pieces(zone, epsg, np.asarray(geometry, dtype=object)), table["piece"].to_numpy()


def _plain(kind: pa.DataType) -> pa.DataType:
    """Types that every Parquet reader knows; a column of nothing but nulls becomes text."""
    if pa.types.is_null(kind) or pa.types.is_large_string(kind):
        return pa.string()
    return pa.binary() if pa.types.is_large_binary(kind) else kind


def _zones_name(batch: int) -> str:
    return f"zones-{batch:03d}.parquet"


def _pieces_name(batch: int) -> str:
    return f"pieces-{batch:03d}.parquet"


@dataclass(frozen=True)
class _Version:
    """A file as it is now: another one under its name is another version."""

    url: str
    stat: FileStat
    blob: Blob = field(compare=False)


@lru_cache(maxsize=128)
def _footer(version: _Version) -> pq.FileMetaData:
    """Footers are read once a process: every unit needs some row groups of the same few files."""
    return pq.read_metadata(Seekable(version.blob, version.stat.size))


def _open(folder: Folder, name: str) -> tuple[pq.ParquetFile, Blob]:
    """Open a staged file; the blob counts what is read from now on."""
    blob = folder.blob(name)
    try:
        stat = blob.stat()
    except InputError as error:
        raise InputError(f"{error}; does every worker see the output folder?") from None
    footer = _footer(_Version(folder.shown(name), stat, blob))
    blob = folder.blob(name)  # whose counters know neither the question nor the footer
    # Arrow asks for row groups as wholes: one request for those that lie side by side.
    file = pq.ParquetFile(Seekable(blob, stat.size, window=0), metadata=footer, pre_buffer=True)
    return file, blob
