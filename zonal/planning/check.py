"""Whether a source of the catalog can be read: reachable, its columns there, one header read.

Composes inputs and io; a state's zones are not downloaded where their columns
can be read without. Each check gives one sentence, or the error that a run would give.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pyogrio
import pyproj

from zonal.config.catalog import Catalog
from zonal.config.settings import Settings
from zonal.config.sources import RasterSource, ZoneSource
from zonal.credentials import scrub_urls
from zonal.errors import InputError, UsageError
from zonal.io.store.ranges import Blob
from zonal.io.store.seekable import Seekable
from zonal.io.table.geoparquet import PARQUET, expect_geometry
from zonal.io.table.vector import local_copy
from zonal.planning.inputs import raster_input
from zonal.text import did_you_mean, human

Head = tuple[Sequence[str], pyproj.CRS | None, int]
"""Columns, CRS and number of rows of a file of zones."""


def check_source(catalog: Catalog, name: str, state: str, year: int | None = None) -> str:
    """Read the least of a source that shows whether a run could read it.

    Parameters
    ----------
    catalog : Catalog
    name : str
        Of one of its sources.
    state : str
        State to try, for sources of one file a state.
    year : int, optional
        Year to try; None for the latest.

    Returns
    -------
    str
        What was found, as one sentence.

    Raises
    ------
    UsageError
        If there is no such source.
    InputError
        If it is not there, or not what the catalog says.
    StoreError
        If the store failed.
    """
    source = next((source for source in catalog if source.name == name), None)
    if source is None:
        names = catalog.names()
        raise UsageError(f"the catalog has no {name!r}, only {', '.join(names)}{did_you_mean(name, names)}")
    if isinstance(source, ZoneSource):
        return _check_zones(catalog, source, state, year)
    return _check_raster(catalog, source, year)


# ------------------------------------------------------------------ rasters


def _check_raster(catalog: Catalog, source: RasterSource, year: int | None) -> str:
    """Read the whole index, as every run does, and the header of one tile."""
    sampled = year or (source.years[-1] if source.years else None)
    tiles = raster_input(Settings(raster=(source.name,), year=(sampled,) if sampled else ()), catalog)
    tile = tiles.sample(year)
    ((_, stat, raster),) = tiles.open_all([tile])
    grid = raster.grid
    header = (
        f"{tile.path.rsplit('/', 1)[-1]}: {grid.width} x {grid.height} px, {len(raster.bands)} bands, "
        f"{grid.crs[:40]}, {human(stat.size)}"
    )
    if tiles.index is None:
        return header
    years = tiles.index["year"]
    span = " to ".join(map(str, sorted({int(years.min()), int(years.max())})))
    return f"index of {len(tiles.index):,} tiles, {span}; {header}"


# ------------------------------------------------------------------ zones


def _check_zones(catalog: Catalog, source: ZoneSource, state: str, year: int | None) -> str:
    url = source.url(state=state if source.per_state else None, year=year)
    where = catalog.resolve(url)
    options = catalog.storage_options(url, source)
    blob = Blob(where, options)
    stat = blob.stat()
    try:
        columns, crs, rows = _head(where, options, Seekable(blob, stat.size))
    except (zipfile.BadZipFile, zlib.error, EOFError, struct.error, NotImplementedError) as error:
        raise InputError(f"{blob.name} is not a readable zip file of a shapefile: {error}") from None
    except (
        pa.ArrowException,
        pyogrio.errors.DataSourceError,
        ValueError,
        TypeError,
        pyproj.exceptions.CRSError,
    ) as error:
        raise InputError(f"{blob.name} cannot be read as zones: {str(error).splitlines()[0]}") from None
    needed = (source.zone_id, *source.columns)
    missing = [column for column in dict.fromkeys(needed) if column not in columns]
    if missing:
        raise InputError(f"{blob.name}: no column {missing[0]!r}; it has {', '.join(columns[:12])}")
    if crs is None:
        raise InputError(f"{blob.name}: the zones have no CRS")
    if source.crs is not None and not crs.equals(pyproj.CRS(source.crs), ignore_axis_order=True):
        raise InputError(f"{blob.name}: its CRS is {crs.name}, the catalog says {source.crs}")
    return f"{blob.name}: {rows:,} zones, {len(columns)} columns, {crs.name}, {human(stat.size)}"


def _head(where: str, options: Mapping[str, Any], file: Seekable) -> Head:
    """Read the columns, CRS and number of rows of a file of zones."""
    name = scrub_urls(where).lower()
    if name.endswith(".zip"):
        return _zipped_head(file)
    if name.endswith(PARQUET):
        return _parquet_head(file, scrub_urls(where))
    with local_copy(where, options) as (path, _):  # GDAL alone opens other formats: fetched whole
        info = pyogrio.read_info(path)
    crs = pyproj.CRS(info["crs"]) if info["crs"] else None
    return [str(name) for name in info["fields"]], crs, int(info["features"])


def _parquet_head(file: Seekable, name: str) -> Head:
    parquet = pq.ParquetFile(file)
    schema = parquet.schema_arrow
    return schema.names, expect_geometry(schema, name).crs, parquet.metadata.num_rows


def _zipped_head(file: Seekable) -> Head:
    """Read the directory of the zip, the beginning of the .dbf and the .prj: a few kB of many MB."""
    with zipfile.ZipFile(file) as archive:
        members = {name.lower().rsplit(".", 1)[-1]: name for name in archive.namelist()}
        for needed in ("shp", "dbf"):
            if needed not in members:
                raise zipfile.BadZipFile(f"no .{needed} inside")
        with archive.open(members["dbf"]) as dbf:
            columns, rows = _dbf_head(dbf)
        crs = None
        if "prj" in members:
            crs = pyproj.CRS.from_wkt(archive.read(members["prj"]).decode("latin-1"))
    return columns, crs, rows


def _dbf_head(file: IO[bytes]) -> tuple[list[str], int]:
    """Column names and number of rows of a dBASE table: a header of 32 bytes, 32 a column, then 0x0D."""
    rows, length = struct.unpack_from("<IH", file.read(32), 4)
    names = []
    for _ in range((length - 33) // 32):
        column = file.read(32)
        if len(column) < 32 or column[:1] == b"\r":
            break
        names.append(column[:11].split(b"\0")[0].decode("latin-1"))
    return names, rows
