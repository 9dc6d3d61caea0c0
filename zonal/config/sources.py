"""The kinds of sources that a catalog can name, typed: rasters and zones.

Knows the fields of an entry and how a uri is filled in; opens nothing and
knows no mirror.
"""

from __future__ import annotations

import re
from string import Formatter
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    Field,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from zonal.config import states
from zonal.config.fields import STRICT
from zonal.config.parse import parse_years
from zonal.errors import UsageError
from zonal.text import did_you_mean

_PLACEHOLDERS = ("year", "fips", "state")


def _expand_bands(value: object) -> object:
    """Read ``"A00..A63"`` as 64 names."""
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"(\D*)(\d+)\.\.\1(\d+)", value)
    if not match:
        return (value,)
    first, last = int(match[2]), int(match[3])
    if not first <= last < first + 10_000:
        raise ValueError(f"bands {value!r}: expected a range such as A00..A63")
    return tuple(f"{match[1]}{number:0{len(match[2])}d}" for number in range(first, last + 1))


class _Source(BaseModel):
    """What every source has; see the two kinds below."""

    model_config = STRICT

    name: str = Field(min_length=1)
    uri: str = Field(min_length=1)
    storage_options: dict[str, Any] = Field(default_factory=dict, repr=False)
    description: str | None = None
    crs: str | None = None
    license: str | None = None
    citation: str | None = None
    source_url: str | None = None

    @field_validator("uri")
    @classmethod
    def _check_uri(cls, uri: str) -> str:
        try:
            names = {name for _, name, spec, conversion in Formatter().parse(uri) if name is not None}
        except ValueError as exc:
            raise ValueError(f"uri {uri!r}: {exc}") from None
        for name in sorted(names.difference(_PLACEHOLDERS)):
            known = ", ".join(f"{{{word}}}" for word in _PLACEHOLDERS)
            raise ValueError(f"uri {uri!r}: {{{name}}} is unknown; expected {known}")
        return uri

    @property
    def placeholders(self) -> frozenset[str]:
        """What the uri leaves open: some of ``year``, ``fips``, ``state``."""
        return frozenset(name for _, name, _, _ in Formatter().parse(self.uri) if name)

    @property
    def per_state(self) -> bool:
        """Whether there is one file a state."""
        return bool(self.placeholders & {"fips", "state"})

    def url(self, *, state: str | None = None, year: int | None = None) -> str:
        """Fill in the uri; the mirror is not applied yet.

        Parameters
        ----------
        state : str, optional
            Postal code.
        year : int, optional
            Year of the data.

        Raises
        ------
        UsageError
            The uri needs what was not given.
        """
        if self.per_state and state is None:
            raise UsageError(f"{self.name} has one file a state: say which, for example --state WA")
        if "year" in self.placeholders and year is None:
            raise UsageError(f"{self.name} has one file a year: say which, for example --year 2020")
        place = states.find(state) if state is not None else None
        if state is not None and place is None:
            raise UsageError(f"state {state!r}: no such state")
        return self.uri.format(year=year, fips=place and place.fips, state=place and place.code)


class RasterSource(_Source):
    """Rasters that belong together: an index of tiles, or GeoTIFFs.

    Parameters
    ----------
    name : str
        Key in the catalog.
    uri : str
        The tile index (driver ``cog``), or the raster.
    driver : {"cog", "rasterio"}
        Which reader opens a tile.
    storage_options : dict
        fsspec's options for `uri` and the tiles beside it; never shown.
    bands : tuple of str
        Names in the order of the file; empty where the file says.
    dtype : str, optional
        Of the stored values, ``"int8"``.
    nodata : float, optional
        Stored value that means nothing; a tile that states another, or none, is an error.
    rule : {"aef", "linear"}
        From stored to real values: ``sign(q) (q / 127.5)^2``, or the file's own scale and offset.
    resolution : float, optional
        Pixel size in CRS units.
    chunk : int, optional
        Pixels a side of an internal chunk.
    south_up : bool
        Row 0 is the southern edge.
    chunk_bytes : int, optional
        Bytes of one chunk of all bands as fetched, an estimate for plans.
    years : tuple of int
        Published years, ascending; empty where there is no such thing.
    description, crs, license, citation, source_url : str, optional
        For people; `crs` is None where each tile has its own.
    """

    data_type: Literal["RasterTiles"] = "RasterTiles"
    driver: Literal["cog", "rasterio"] = "cog"
    bands: Annotated[tuple[str, ...], BeforeValidator(_expand_bands)] = ()
    dtype: Literal["int8", "uint8", "int16", "uint16", "int32", "uint32", "float32", "float64"] | None = None
    nodata: float | None = None
    rule: Literal["aef", "linear"] = "linear"
    resolution: PositiveFloat | None = None
    chunk: PositiveInt | None = None
    south_up: bool = False
    chunk_bytes: PositiveInt | None = None
    years: Annotated[tuple[int, ...], BeforeValidator(parse_years)] = ()

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if self.rule == "aef" and self.dtype != "int8":
            raise ValueError(f"rule 'aef' reads int8 codes; dtype is {self.dtype}")
        if len(set(self.bands)) < len(self.bands):
            raise ValueError("bands: a name comes twice")
        return self


class ZoneSource(_Source):
    """Polygons to summarise.

    Parameters
    ----------
    name : str
        Key in the catalog.
    uri : str
        A vector file, zipped or not, or GeoParquet; ``{fips}`` or ``{state}`` for one file a state.
    driver : {"pyogrio", "geoparquet"}
        ``geoparquet`` reads the file as GeoParquet whatever its name ends in; ``pyogrio`` anything
        else that GDAL opens, and GeoParquet by its suffix.
    storage_options : dict
        fsspec's options for `uri`; never shown.
    zone_id : str
        Column of unique ids.
    land_area : str, optional
        Column of land areas, m2.
    state_column : str, optional
        Column of 2-digit state FIPS codes.
    county : str, optional
        Column of 3-digit county codes.
    columns : tuple of str
        Columns that the file should have.
    vintage : str, optional
        Edition of the boundaries, ``"TIGER2025"``.
    description, crs, license, citation, source_url : str, optional
        For people; the file's own CRS counts.
    """

    data_type: Literal["GeoDataFrame"] = "GeoDataFrame"
    driver: Literal["pyogrio", "geoparquet"] = "pyogrio"
    zone_id: str = Field(min_length=1)
    land_area: str | None = None
    state_column: str | None = None
    county: str | None = None
    columns: tuple[str, ...] = ()
    vintage: str | None = None

    @model_validator(mode="after")
    def _check_columns(self) -> Self:
        for key in ("zone_id", "land_area", "state_column", "county"):
            column = getattr(self, key)
            if self.columns and column is not None and column not in self.columns:
                raise ValueError(f"{key} {column!r} is not among columns{did_you_mean(column, self.columns)}")
        return self


Source = RasterSource | ZoneSource
