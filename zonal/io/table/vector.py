"""Vector files and tile indexes as frames, from any store.

Knows how to get a file here and which library opens it; knows nothing of what
the rows mean. A file that cannot be read is one clear error.
"""

from __future__ import annotations

import contextlib
import io
import re
import stat as modes
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import geopandas as gpd
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pyogrio
import shapely

from zonal.credentials import scrub_urls
from zonal.errors import InputError, first_line
from zonal.io.store.ranges import Blob, FileStat, ReadPolicy
from zonal.io.table.geoparquet import PARQUET, check_parquet, deep, too_deep

PLAIN = {"OFTString", "OFTInteger", "OFTInteger64", "OFTReal"}
"""GDAL's types of fields that have one type in a frame, however they are read."""

BLOCK = 8 * 2**20
"""Bytes of one request while a whole file is fetched."""

MEMBERS = 10_000
"""Files in a zip file, at most."""
LISTING = 16 * 2**20
"""Bytes of a zip file's list of members, at most."""
UNPACKED = 64 * 2**30
"""Bytes of all members of a zip file, at most: forty times the largest state's blocks."""
SPARE, RATIO = 2**28, 250
"""Also at most `SPARE` plus `RATIO` times the zip file: attribute tables reach 100, bombs 1,000."""

# What GDAL opens only to read other files or services, by how such a file begins (GDAL looks at as much).
_ELSEWHERE = re.compile(rb"<OGRVRTDataSource|<OGRWFSDataSource|<OGRCSWDataSource|\"gdal_streamed_alg\"")
_HEAD = 4096


def read_zones(
    url: str,
    options: Mapping[str, Any] | None = None,
    policy: ReadPolicy | None = None,
    *,
    parquet: bool = False,
) -> tuple[gpd.GeoDataFrame, FileStat]:
    """Read polygons from GeoParquet or any vector format that GDAL opens, zipped or not.

    Parameters
    ----------
    url : str
    options : mapping, optional
        For the fsspec filesystem.
    policy : ReadPolicy, optional
    parquet : bool
        Whether it is GeoParquet whatever its suffix.

    Returns
    -------
    (GeoDataFrame, FileStat)
        The rows with all their columns, and the file's size and version.

    Raises
    ------
    InputError
        If the file is missing or unreadable, or holds no geometry.
    StoreError
        If the store failed.
    """
    name = scrub_urls(url)
    with local_copy(url, options, policy) as (path, stat):
        try:
            if parquet or path.suffix.lower() in PARQUET:
                frame = _read_parquet(path, name)
            else:
                _check_vector(path, name)
                frame = _read_vector(path, name)
        except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError) as error:
            reason = str(error).replace(str(path), name).split("\n")[0].split(";")[0]
            raise InputError(f"{name} cannot be read as zones: {reason}") from None
        except IndexError:  # pyogrio's, of a file without any layer
            raise InputError(f"{name} holds no layer of zones") from None
        except (pa.ArrowException, shapely.errors.ShapelyError, ValueError) as error:
            raise InputError(f"{name} cannot be read as zones: {first_line(error)}") from None
    if not isinstance(frame, gpd.GeoDataFrame):
        raise InputError(f"{name} has no geometry column; expected polygons")
    if frame.geometry.name == "geometry":
        return frame, stat
    if "geometry" in frame.columns:
        raise InputError(
            f"{name}: its geometry is in {frame.geometry.name!r}, and another column is named 'geometry'; "
            "drop or rename that one"
        )
    return frame.rename_geometry("geometry"), stat


def _read_parquet(path: Path, name: str) -> gpd.GeoDataFrame:
    """Read GeoParquet; whatever its libraries make of a damaged file is told as one error."""
    try:
        check_parquet(path, name)
        return gpd.read_parquet(path)
    except (InputError, MemoryError):
        raise
    except Exception as error:  # AttributeError, CRSError, OSError, ...: as many kinds as ways to be wrong
        raise InputError(f"{name} cannot be read as GeoParquet: {first_line(error)}") from None


def _read_vector(path: Path, name: str) -> gpd.GeoDataFrame:
    """Read a layer through Arrow, much faster, where that gives the same: plain fields, flat polygons."""
    info = pyogrio.read_info(path)
    plain = (
        info["geometry_type"] in ("Polygon", "MultiPolygon")
        and {*info.get("ogr_types", [None])} <= PLAIN
        and {*info.get("ogr_subtypes", [None])} <= {"OFSTNone"}
    )
    if plain:
        with contextlib.suppress(pa.ArrowException, OSError):  # the other way says what is wrong
            if info["driver"] == "GPKG" and _any_deep(path):  # Arrow takes a GeoPackage's bytes as they are
                raise too_deep(name)
            frame = pyogrio.read_dataframe(path, use_arrow=True)
            if len(frame) == info["features"]:
                return frame
    return pyogrio.read_dataframe(path)


def _any_deep(path: Path) -> bool:
    """Whether a geometry of a GeoPackage is nested deeper than is safe to take apart."""
    with pyogrio.open_arrow(path, columns=[], use_pyarrow=True) as (meta, batches):
        return any(deep(batch[meta["geometry_name"] or "wkb_geometry"]) for batch in batches)


def read_index(
    url: str,
    columns: Sequence[str],
    options: Mapping[str, Any] | None = None,
    policy: ReadPolicy | None = None,
) -> tuple[pd.DataFrame, FileStat]:
    """Read those of the columns that a tile index has (Parquet, GeoPackage or CSV), without geometry."""
    name = scrub_urls(url)
    with local_copy(url, options, policy) as (path, stat):
        try:
            if path.suffix.lower() in PARQUET:
                have = pq.read_schema(path).names
                return pq.read_table(path, columns=[c for c in columns if c in have]).to_pandas(), stat
            if path.suffix.lower() == ".csv":
                return pd.read_csv(path, usecols=lambda column: column in columns), stat
            _check_vector(path, name)
            return pyogrio.read_dataframe(path, columns=list(columns), read_geometry=False), stat
        except (InputError, MemoryError):
            raise
        except Exception as error:  # as many kinds as readers and ways to be wrong
            raise InputError(f"tile index {name} cannot be read: {first_line(error)}") from None


def _check_vector(path: Path, name: str) -> None:
    """Raise InputError for a file that makes GDAL read another one, and for a harmful zip file."""
    if not path.is_file():  # a folder that GDAL knows, such as a .gdb
        return
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if path.suffix.lower() == ".zip" or head.startswith(b"PK\3\4"):
        _check_zip(path, name)
    elif _ELSEWHERE.search(head):
        raise _elsewhere(name)


def _elsewhere(name: str) -> InputError:
    return InputError(
        f"{name} only points at other data (a GDAL VRT, pipeline or service); "
        "name the file itself, or make one of it with ogr2ogr"
    )


def _check_zip(path: Path, name: str) -> None:
    """Raise InputError unless a zip file is small enough, stays inside itself, and every member is whole.

    All that it claims is looked at before a byte is unpacked. Then every member is read and compared
    with its checksum, for GDAL leaves out what it cannot read.
    """
    size = path.stat().st_size
    try:
        with _ZipBytes(path, name) as file, zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            if len(members) > MEMBERS:
                raise InputError(f"{name} holds {len(members):,} files, expected {MEMBERS:,} at most")
            for member in members:
                _check_member(member, name)
            total, most = sum(member.file_size for member in members), min(UNPACKED, SPARE + RATIO * size)
            if total > most:
                raise InputError(
                    f"{name} ({size:,} bytes) claims to hold {total:,} bytes, expected {most:,} at most; "
                    "unpack it yourself if you trust it"
                )
            damaged = archive.testzip()
            for member in members if damaged is None else ():
                with archive.open(member) as inside:
                    if _ELSEWHERE.search(inside.read(_HEAD)):
                        raise _elsewhere(f"{name}: {member.filename!r} inside")
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise InputError(
            f"{name} is not a readable zip file ({first_line(error)}); fetch it again?"
        ) from None
    if damaged is not None:
        raise InputError(f"{name}: {damaged} inside is damaged; fetch the file again")


class _ZipBytes(io.BufferedReader):
    """A zip file whose list of members is not too long: all that `ZipFile` reads in one large piece."""

    def __init__(self, path: Path, name: str) -> None:
        super().__init__(io.FileIO(path))
        self._shown = name

    def read(self, size: int | None = -1, /) -> bytes:
        # Here, for ZipFile goes on to make an object of each member before anybody can count them.
        if size is not None and size > LISTING:
            raise InputError(
                f"{self._shown}: its list of members takes {size:,} bytes, expected {LISTING:,} at most"
            )
        return super().read(size)


def _check_member(member: zipfile.ZipInfo, name: str) -> None:
    where = member.orig_filename.replace("\\", "/")  # GDAL takes both for a separator
    if where.startswith("/") or ".." in where.split("/") or re.match("[A-Za-z]:", where):
        raise InputError(f"{name}: {where!r} inside points outside; is it meant to do harm?")
    if modes.S_ISLNK(member.external_attr >> 16):
        raise InputError(f"{name}: {where!r} inside is a link; put the file itself there")
    if member.flag_bits & 1:
        raise InputError(f"{name}: {where!r} inside is encrypted; zip it again without a password")


@contextlib.contextmanager
def local_copy(
    url: str, options: Mapping[str, Any] | None, policy: ReadPolicy | None = None
) -> Iterator[tuple[Path, FileStat]]:
    """Give a local path to a file: itself where it is local, else a copy that goes away."""
    blob = Blob(url, options, policy)
    stat = blob.stat()
    if blob.local:
        yield Path(blob.path), stat
        return
    with tempfile.TemporaryDirectory(prefix="zonal-") as scratch:
        path = Path(scratch) / scrub_urls(url).rstrip("/").rsplit("/", 1)[-1]
        with path.open("wb") as file:
            for start in range(0, stat.size, BLOCK * 8):
                stop = min(start + BLOCK * 8, stat.size)
                ranges = [(at, min(BLOCK, stop - at)) for at in range(start, stop, BLOCK)]
                file.writelines(blob.read(ranges))
        if blob.stat() != stat:
            raise InputError(f"{blob.name} was replaced while it was read; run the same command again")
        yield path, stat
