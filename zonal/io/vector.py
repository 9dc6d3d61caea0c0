"""Vector files and tile indexes as frames, from any store.

Knows how to get a file here and which library opens it; knows nothing of what
the rows mean. A file that cannot be read is one clear error.
"""

from __future__ import annotations

import contextlib
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

from zonal.credentials import scrub_urls
from zonal.errors import InputError, first_line
from zonal.io.geoparquet import PARQUET
from zonal.io.ranges import Blob, ReadPolicy, Stat

PLAIN = {"OFTString", "OFTInteger", "OFTInteger64", "OFTReal"}
"""GDAL's types of fields that have one type in a frame, however they are read."""

BLOCK = 8 * 2**20
"""Bytes of one request while a whole file is fetched."""


def read_zones(
    url: str,
    options: Mapping[str, Any] | None = None,
    policy: ReadPolicy | None = None,
    *,
    parquet: bool = False,
) -> tuple[gpd.GeoDataFrame, Stat]:
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
    (GeoDataFrame, Stat)
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
                frame = gpd.read_parquet(path)
            else:
                if path.suffix.lower() == ".zip":
                    _check_zip(path, name)
                frame = _read_vector(path)
        except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError) as error:
            reason = str(error).replace(str(path), name).split("\n")[0].split(";")[0]
            raise InputError(f"{name} cannot be read as zones: {reason}") from None
        except IndexError:  # pyogrio's, of a file without any layer
            raise InputError(f"{name} holds no layer of zones") from None
        except (pa.ArrowException, ValueError, KeyError) as error:
            raise InputError(f"{name} cannot be read as GeoParquet: {first_line(error)}") from None
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


def _read_vector(path: Path) -> gpd.GeoDataFrame:
    """Read a layer through Arrow, much faster, where that gives the same: plain fields, flat polygons."""
    info = pyogrio.read_info(path)
    plain = (
        info["geometry_type"] in ("Polygon", "MultiPolygon")
        and {*info.get("ogr_types", [None])} <= PLAIN
        and {*info.get("ogr_subtypes", [None])} <= {"OFSTNone"}
    )
    if plain:
        with contextlib.suppress(pa.ArrowException, OSError):  # the other way says what is wrong
            frame = pyogrio.read_dataframe(path, use_arrow=True)
            if len(frame) == info["features"]:
                return frame
    return pyogrio.read_dataframe(path)


def read_index(
    url: str,
    columns: Sequence[str],
    options: Mapping[str, Any] | None = None,
    policy: ReadPolicy | None = None,
) -> tuple[pd.DataFrame, Stat]:
    """Read those of the columns that a tile index has (Parquet, GeoPackage or CSV), without geometry."""
    name = scrub_urls(url)
    with local_copy(url, options, policy) as (path, stat):
        try:
            if path.suffix.lower() in PARQUET:
                have = pq.read_schema(path).names
                return pq.read_table(path, columns=[c for c in columns if c in have]).to_pandas(), stat
            if path.suffix.lower() == ".csv":
                return pd.read_csv(path, usecols=lambda column: column in columns), stat
            return pyogrio.read_dataframe(path, columns=list(columns), read_geometry=False), stat
        except (pyogrio.errors.DataSourceError, pa.ArrowException, ValueError, OSError) as error:
            raise InputError(f"tile index {name} cannot be read: {first_line(error)}") from None


def _check_zip(path: Path, name: str) -> None:
    """Raise InputError unless every member unpacks to its checksum: GDAL leaves out what it cannot read."""
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise InputError(
            f"{name} is not a readable zip file ({first_line(error)}); fetch it again?"
        ) from None
    if damaged is not None:
        raise InputError(f"{name}: {damaged} inside is damaged; fetch the file again")


@contextlib.contextmanager
def local_copy(
    url: str, options: Mapping[str, Any] | None, policy: ReadPolicy | None = None
) -> Iterator[tuple[Path, Stat]]:
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
