"""Settings and catalog made concrete: which zone files, which tiles, read how.

Knows catalog sources, the tile index and headers; computes no statistic and
writes nothing. Everything the user can have wrong about inputs fails here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pandas as pd

from zonal.config.catalog import Catalog
from zonal.config.settings import Settings
from zonal.config.sources import RasterSource, ZoneSource
from zonal.credentials import scrub_urls, without_credentials
from zonal.errors import InputError, MissingError, UsageError
from zonal.geo.grid import Grid
from zonal.io.raster.raster import Raster
from zonal.io.raster.reader import Reader
from zonal.io.store.cache import Cache
from zonal.io.store.ranges import Blob, FileStat, ReadPolicy
from zonal.io.table.vector import read_index, read_zones
from zonal.planning.tiles import INDEX_COLUMNS, Tile, TileSpec, from_index, near, own
from zonal.planning.zones import ZoneColumns

INDEX_SUFFIXES = (".parquet", ".gpkg", ".csv")
OPENING = 32
"""Headers read at once on the driver."""


@dataclass(frozen=True)
class ZoneFile:
    """One file of zones, or zones that are here already.

    Parameters
    ----------
    label : str
        Postal code of its state, or ``zones``.
    name : str
        For messages and metadata: the public address.
    url : str
        Where it is read; never printed.
    options : dict
        fsspec storage options; never printed.
    frame : GeoDataFrame or None
        Given in place of a file.
    parquet : bool
        Whether it is GeoParquet whatever its suffix.
    policy : ReadPolicy
        How often to try a remote store.
    """

    label: str
    name: str
    url: str = field(repr=False)
    options: dict[str, Any] = field(default_factory=dict, repr=False)
    frame: gpd.GeoDataFrame | None = field(default=None, repr=False)
    parquet: bool = False
    policy: ReadPolicy = field(default_factory=ReadPolicy)

    @property
    def blob(self) -> Blob:
        """The bytes of the file."""
        return Blob(self.url, self.options, self.policy)

    def read(self) -> tuple[gpd.GeoDataFrame, FileStat]:
        """Read the zones, with the size and version of the file."""
        if self.frame is not None:
            return self.frame, FileStat(size=len(self.frame), etag="")
        return read_zones(self.url, self.options, self.policy, parquet=self.parquet)


@dataclass(frozen=True)
class ZoneInput:
    """The zones of a run: their files and the columns that filters need."""

    files: tuple[ZoneFile, ...]
    columns: ZoneColumns
    source: ZoneSource | None


@dataclass(frozen=True)
class RasterInput:
    """The raster of a run, before any tile is chosen.

    Parameters
    ----------
    source : RasterSource or None
        None for files that the user named.
    reader : Reader
    index : DataFrame or None
        Rows of the tile index; None where `files` are the tiles.
    index_name : str
    index_stat : FileStat or None
    files : tuple of Tile
        Tiles that need no index, by (EPSG, path), with the ground they own.
    crs : str
        The raster's one CRS; empty where tiles are in UTM zones.
    addresses : mapping of str to str
        Where files are read whose path leaves credentials out.
    """

    catalog: Catalog
    source: RasterSource | None
    reader: Reader
    index: pd.DataFrame | None
    index_name: str
    index_stat: FileStat | None
    files: tuple[Tile, ...] = ()
    crs: str = ""
    addresses: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def name(self) -> str:
        """The index or the files, for messages."""
        return self.index_name or ", ".join(tile.path for tile in self.files)

    def near(self, year: int | None, boxes: npt.NDArray[np.float64]) -> list[Tile]:
        """Tiles of a year that may hold some of the boxes (degrees), with the ground they own."""
        if self.index is None:
            return list(self.files)
        assert self.source is not None and year is not None
        rows = near(self.index, year, boxes, self.index_name)
        return own(from_index(rows, _tile_spec(self.source), self.index_name))

    def sample(self, year: int | None = None) -> Tile:
        """Any one tile, of a year or of the latest: to see whether tiles can be read.

        Raises
        ------
        InputError
            If the index lacks a column, or has no tile of that year.
        """
        if self.index is None:
            return self.files[0]
        assert self.source is not None
        if year is None and "year" in self.index and len(self.index):
            latest = pd.to_numeric(self.index["year"], errors="coerce").max()
            year = 0 if pd.isna(latest) else int(latest)
        everywhere = np.array([[-180.0, -90.0, 180.0, 90.0]])
        rows = near(self.index, year or 0, everywhere, self.index_name)
        return from_index(rows.head(1), _tile_spec(self.source), self.index_name)[0]

    def url(self, path: str) -> str:
        """Where a tile is read: after any mirror, and from any worker's working directory."""
        return absolute(self.catalog.resolve(self.addresses.get(path, path)))

    def open_all(
        self, tiles: Sequence[Tile], *, allow_missing: bool = False
    ) -> list[tuple[Tile, FileStat, Raster]]:
        """Read all headers, check them against the index, and take the files' own grids.

        Parameters
        ----------
        tiles : sequence of Tile
        allow_missing : bool
            Leave out those that the store lacks.

        Raises
        ------
        MissingError
            If the store lacks a tile.
        InputError
            If a tile is not what the index and the catalog say.
        """

        def check(tile: Tile) -> tuple[Tile, FileStat, Raster] | None:
            try:
                raster = self.reader.open(self.url(tile.path))
            except MissingError as error:
                if allow_missing:
                    return None
                if self.index is None:
                    raise
                raise MissingError(
                    f"tile {error}, though {self.index_name} lists it; --allow-missing leaves such tiles out"
                ) from None
            return located(tile, raster), raster.stat, raster

        pool = ThreadPoolExecutor(OPENING)  # not as a context: it would wait for all of them
        try:
            return [opened for opened in pool.map(check, tiles) if opened is not None]
        finally:  # on an error or Ctrl-C, too: the others may wait for the network
            pool.shutdown(wait=False, cancel_futures=True)


def policy_of(settings: Settings) -> ReadPolicy:
    """How remote files are read."""
    cache = None
    if settings.cache is not None:
        folder = Path(settings.cache).expanduser().absolute()
        cache = Cache(str(folder), int(settings.cache_gb * 1e9))
    return ReadPolicy(
        attempts=settings.attempts,
        total=settings.patience,
        stall=settings.stall,
        twice=settings.verify == "twice",
        cache=cache,
    )


def zone_input(settings: Settings, catalog: Catalog, frame: gpd.GeoDataFrame | None = None) -> ZoneInput:
    """Find the zones that the settings ask for; nothing is read yet."""
    if frame is not None:
        zone_id = settings.zone_id or "zone"
        return ZoneInput((ZoneFile("zones", "the zones given", "", frame=frame),), ZoneColumns(zone_id), None)
    if settings.zones in catalog:
        source = catalog.zones(settings.zones)
        columns = ZoneColumns(
            settings.zone_id or source.zone_id, source.land_area, source.state_column, source.county
        )
        if source.per_state and not settings.state:
            raise UsageError(f"{source.name} has one file a state: say which, for example --state WA")
        if not source.per_state and settings.state:
            raise UsageError(f"{source.name} is one file for all states; --state does nothing with it")
        year = settings.year[0] if settings.year else None
        addresses = (
            [(code, source.url(state=code, year=year)) for code in settings.state]
            if source.per_state
            else [("zones", source.url(year=year))]
        )
        files = [
            ZoneFile(
                label,
                scrub_urls(url),
                catalog.resolve(url),
                catalog.storage_options(url, source),
                parquet=source.driver == "geoparquet",
                policy=policy_of(settings),
            )
            for label, url in addresses
        ]
        return ZoneInput(tuple(files), columns, source)
    name = scrub_urls(settings.zones)
    if settings.state:
        raise UsageError(f"--state does nothing with zones from a file ({name}); leave one of them out")
    _exists(settings.zones, "zones", catalog)
    if settings.zone_id is None:
        raise UsageError(f"zones from a file need their id column: --zone-id COLUMN (for {name})")
    url = catalog.resolve(settings.zones)
    file = ZoneFile("zones", name, url, catalog.storage_options(settings.zones), policy=policy_of(settings))
    return ZoneInput((file,), ZoneColumns(settings.zone_id), None)


def census_columns(columns: ZoneColumns, have: Iterable[str]) -> ZoneColumns:
    """Complete the columns of a user's file with the census's names where it has them."""
    names = {*have}

    def known(given: str | None, *candidates: str) -> str | None:
        return given or next((name for name in candidates if name in names), None)

    return replace(
        columns,
        land_area=known(columns.land_area, "ALAND20", "ALAND"),
        state=known(columns.state, "STATEFP20", "STATEFP"),
        county=known(columns.county, "COUNTYFP20", "COUNTYFP"),
    )


def raster_input(settings: Settings, catalog: Catalog) -> RasterInput:
    """Find the raster that the settings ask for: read the index, or the headers of files."""
    policy = policy_of(settings)
    first = settings.raster[0]
    if len(settings.raster) > 1 or first not in catalog:
        for path in settings.raster:
            if path in catalog:
                raise UsageError(f"--raster takes one catalog source or files, not both ({path})")
            _exists(path, "raster", catalog)
        reader = Reader("rasterio", "linear", options=catalog.storage_options(first), policy=policy)
        return _from_files(settings.raster, reader, catalog, None)
    source = catalog.raster(first)
    if "year" in source.placeholders and len(settings.year) > 1:
        raise UsageError(f"{source.name} has one file a year; run its years one by one")
    url = source.url(year=settings.year[0] if settings.year else None)
    options = catalog.storage_options(url, source)
    reader = Reader(source.driver, source.rule, source.bands, options, source.nodata, policy)
    if not url.lower().endswith(INDEX_SUFFIXES):
        return _from_files((url,), reader, catalog, source)
    if not settings.year:
        raise UsageError(f"{source.name} has tiles of several years: say which, for example --year 2020")
    index, stat = read_index(catalog.resolve(url), INDEX_COLUMNS, options, policy)
    if len(index):
        # The tiles may lie on another service than the index: their options are those of their address.
        tile_options = catalog.storage_options(str(index["path"].iloc[0]), source) if "path" in index else {}
        reader = replace(reader, options=tile_options)
    return RasterInput(catalog, source, reader, index, scrub_urls(url), stat)


def _from_files(
    paths: Sequence[str], reader: Reader, catalog: Catalog, source: RasterSource | None
) -> RasterInput:
    """Tiles are the files themselves: one CRS, or UTM zones."""
    addresses = {without_credentials(path): path for path in paths}
    with ThreadPoolExecutor(OPENING) as pool:
        rasters = list(pool.map(lambda path: reader.open(absolute(catalog.resolve(path))), paths))
    reader = replace(reader, bands=reader.bands or rasters[0].bands)
    size = (rasters[0].grid.dx, abs(rasters[0].grid.dy))
    for path, raster in zip(addresses, rasters, strict=True):
        reader.check(raster)  # now that the bands are known: are they these?
        if not np.allclose((raster.grid.dx, abs(raster.grid.dy)), size, rtol=1e-9):
            raise InputError(
                f"{path}: pixels of {raster.grid.dx:g}, but {next(iter(addresses))} has {size[0]:g}"
            )
    crss = {raster.grid.crs for raster in rasters}
    codes = {crs: _utm_code(crs) for crs in crss}
    if len(crss) > 1 and 0 in codes.values():
        raise InputError(
            f"the rasters have {len(crss)} CRSs that are not all WGS 84 UTM zones: reproject them"
        )
    one_crs = len(crss) == 1
    tiles = own(
        Tile(path, 0 if one_crs else codes[raster.grid.crs], raster.grid)
        for path, raster in zip(addresses, rasters, strict=True)
    )
    crs = rasters[0].grid.crs if one_crs else ""
    return RasterInput(catalog, source, reader, None, "", None, tuple(tiles), crs, addresses)


def absolute(url: str) -> str:
    """Make a path of this machine absolute: workers have other working directories. URLs stay."""
    return url if "://" in url or "::" in url else str(Path(url).absolute())


def _utm_code(crs: str) -> int:
    code = crs.removeprefix("EPSG:")
    return int(code) if code[:3] in ("326", "327") and code.isdigit() and len(code) == 5 else 0


def _tile_spec(source: RasterSource) -> TileSpec:
    if source.resolution is None or source.chunk is None:
        raise InputError(f"catalog source {source.name}: a tile index needs `resolution` and `chunk`")
    return TileSpec(source.resolution, source.chunk, source.south_up)


def _exists(path: str, what: str, catalog: Catalog) -> None:
    """Tell a mistyped catalog name from a missing file."""
    if "://" in path or Path(path).exists():
        return
    if "/" in path or "." in path:
        raise InputError(f"{what} {path}: no such file")
    (catalog.raster if what == "raster" else catalog.zones)(path)  # says which names there are


def located(tile: Tile, raster: Raster) -> Tile:
    """Return the tile with the grid that its file states.

    Raises
    ------
    InputError
        If the file lies elsewhere than the index says, or has other pixels.
    """
    expected, actual = tile.grid, raster.grid
    hair = 1e-6 * expected.dx
    same = (
        actual.crs == expected.crs
        and (actual.width, actual.height) == (expected.width, expected.height)
        and np.allclose(
            (actual.dx, abs(actual.dy)), (expected.dx, abs(expected.dy)), rtol=0, atol=1e-9 * expected.dx
        )
        and np.allclose(actual.bounds, expected.bounds, rtol=0, atol=hair)
    )
    if not same:
        raise InputError(
            f"tile {raster.name}: the file has {_placed(actual)}, the index says {_placed(expected)}; "
            "the index and the file do not belong together"
        )
    return replace(tile, grid=actual)


def _placed(grid: Grid) -> str:
    box = ", ".join(f"{value:.10g}" for value in grid.bounds)
    return f"{grid.width} x {grid.height} px of {grid.dx:g} at {box} in {grid.crs[:40]}"
