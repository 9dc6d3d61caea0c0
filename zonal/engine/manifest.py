"""What a finished run says of itself: in the table's own metadata, and in the manifest's figures.

Knows settings, sources, plans and reports as values; reads and writes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from zonal.config.settings import Settings
from zonal.config.sources import RasterSource, ZoneSource
from zonal.engine.work import PartReport, UnitReport
from zonal.planning.costs import Costs
from zonal.planning.stage import Stage
from zonal.planning.units import Plan

VERSIONS = ("numpy", "pyarrow", "shapely", "pyproj", "numba", "dask", "imagecodecs", "rasterio", "geopandas")
"""Libraries whose versions the manifest records."""


def about(
    settings: Settings,
    year: int | None,
    zone_id: str,
    zones: ZoneSource | None,
    raster: RasterSource | None,
) -> dict[str, Any]:
    """Describe a table in its own metadata: the same wherever the inputs were read from."""
    sources = [source for source in (zones, raster) if source is not None]
    return {
        "zonal_version": version("zonal"),
        "year": year,
        "vintage": zones.vintage if zones else None,
        "coverage": settings.coverage,
        "engine": settings.engine,
        "statistics": list(settings.stats),
        "zone_id": zone_id,
        "sources": [source.source_url or source.name for source in sources],
        "citations": [source.citation for source in sources if source.citation],
        "licences": [source.license for source in sources if source.license],
    }


def figures(
    staged: Stage,
    plan: Plan,
    zones: Mapping[str, int],
    costs: Costs,
    headers: int,
    reports: Sequence[UnitReport | PartReport],
    seconds: Mapping[str, float],
) -> dict[str, Any]:
    """Count zones, work, bytes and seconds: the second half of the manifest.

    Parameters
    ----------
    staged : Stage
    plan : Plan
    zones : mapping of str to int
        Zones by fate, of the finished table.
    costs : Costs
    headers : int
        Bytes read to open the tiles.
    reports : sequence of UnitReport or PartReport
        Of the units and parts that ran; those of a resumed run's finished parts did not.
    seconds : mapping of str to float
        By stage.
    """
    report = staged.report
    units = [report for report in reports if isinstance(report, UnitReport)]
    parts = [report for report in reports if isinstance(report, PartReport)]
    return {
        "zones": {
            "read": report["read"],
            "kept": plan.zones,
            "dropped": report["dropped"],
            "repaired": report["repaired"],
            "empty": report["empty"],
            **zones,
        },
        "plan": {
            "tiles": len(plan.tiles),
            "chunks": plan.chunks,
            "units": len(plan.units),
            "parts": len(plan.parts),
        },
        "bytes": {
            "to_fetch": costs.bytes_to_fetch,
            "headers": headers,
            "fetched": sum(unit.fetched - unit.cached for unit in units),
            "staged_read": sum(unit.staged for unit in units),
            "cached": sum(unit.cached for unit in units),
        },
        "retries": sum(unit.retries for unit in units),
        "seconds": {name: round(value, 3) for name, value in seconds.items()}
        | {
            "in_units": round(sum(unit.seconds for unit in units), 3),
            "in_parts": round(sum(part.seconds for part in parts), 3),
        },
        "versions": {name: version(name) for name in VERSIONS},
    }
