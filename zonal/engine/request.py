"""One request: settings, and the catalog, zones, raster and columns that they name.

Knows what depends on all of them together: the stage, its key, and whether an
output holds this very run already. Computes no number.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import geopandas as gpd

from zonal.config.catalog import Catalog
from zonal.config.settings import Settings
from zonal.engine.fingerprint import fingerprint
from zonal.engine.output import Output
from zonal.errors import MissingError, UsageError
from zonal.io.store.folder import Folder
from zonal.io.table.table import TableColumns
from zonal.planning.inputs import RasterInput, ZoneInput, raster_input, zone_input
from zonal.planning.stage import Stage
from zonal.planning.staging import stage, stage_key
from zonal.planning.zones import Filters


@dataclass(frozen=True)
class Request:
    """Settings with the inputs they name, once for all years of a run.

    Parameters
    ----------
    settings : Settings
    zones : ZoneInput
    raster : RasterInput
    filters : Filters
    columns : TableColumns
        Of the table.
    """

    settings: Settings
    zones: ZoneInput
    raster: RasterInput
    filters: Filters
    columns: TableColumns

    @classmethod
    def of(cls, settings: Settings, catalog: Catalog, frame: gpd.GeoDataFrame | None = None) -> Request:
        """Find what the settings name: the index or the headers of files are read, zones are not."""
        zones = zone_input(settings, catalog, frame)
        raster = raster_input(settings, catalog)
        filters = Filters(settings.bbox, settings.county, settings.max_land_km2, settings.keep_water)
        narrow = raster.reader.rule == "aef"
        columns = TableColumns(zones.columns.zone_id, raster.reader.bands, settings.stats, narrow)
        return cls(settings, zones, raster, filters, columns)

    @property
    def years(self) -> tuple[int | None, ...]:
        """Years to run; a raster of one time is one run, under the year given as a label or none."""
        if self.raster.index is None and len(self.settings.year) > 1:
            raise UsageError("--year: these raster files are of one time; give one year as a label, or none")
        return self.settings.year or (None,)

    @property
    def index_years(self) -> tuple[int, ...]:
        """Years whose index rows matter to staging."""
        return self.settings.year if self.raster.index is not None else ()

    @property
    def reading(self) -> dict[str, Any]:
        """How tiles are read, as far as it can change a number."""
        reader = self.raster.reader
        return {"driver": reader.driver, "rule": reader.rule, "bands": list(reader.bands)}

    def stage_key(self) -> str:
        """Hash of all that the staged files depend on."""
        return stage_key(self.zones, self.raster, self.filters, self.index_years, self.settings.part_zones)

    def stage(self, folder: Folder, key: str, notify: Callable[[str], None]) -> Stage:
        """Stage the zones into a folder, or take what it holds of the same key."""
        return stage(
            folder,
            self.zones,
            self.raster,
            self.filters,
            self.index_years,
            self.columns,
            key=key,
            part_zones=self.settings.part_zones,
            notify=notify,
        )

    def complete(self, year: int | None, output: Output, key: str) -> dict[str, Any] | None:
        """Return the manifest of an output that holds this run already, with no input changed since.

        A manifest tells what was staged and read, so nothing need be staged to see that it is the same.
        """
        manifest = output.manifest()
        if manifest is None or manifest.get("stage_key") != key or manifest["inputs"].get("missing_tiles"):
            return None
        old = manifest["fingerprint_of"]
        reader = self.raster.reader
        try:
            tiles = {
                path: {**tile, **asdict(reader.blob(self.raster.url(path)).stat())}
                for path, tile in old["tiles"].items()
            }
        except MissingError:
            return None
        if fingerprint(self.settings, year, self.reading, old["zones"], tiles) != old:
            return None
        return manifest
