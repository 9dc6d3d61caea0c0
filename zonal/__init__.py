"""zonal: census blocks x satellite embeddings -> one plain feature table.

Knows only where the public names live; each is imported when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zonal.api import zonal_stats
    from zonal.config.settings import Settings
    from zonal.engine.run import Result, plan
    from zonal.errors import ZonalError
    from zonal.planning.costs import Costs
    from zonal.steps import run

__all__ = ["Costs", "Result", "Settings", "ZonalError", "plan", "run", "zonal_stats"]

_HOMES = {
    "Costs": "zonal.planning.costs",
    "Result": "zonal.engine.run",
    "Settings": "zonal.config.settings",
    "ZonalError": "zonal.errors",
    "plan": "zonal.engine.run",
    "run": "zonal.steps",
    "zonal_stats": "zonal.api",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'zonal' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
