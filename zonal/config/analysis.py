"""What is asked of a finished table: steps, a map and an evaluation, as immutable models.

Knows how people write these choices and what is wrong with them; knows no table,
no statistic and no file.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Step = Literal["stats", "pca", "evaluate", "report"]
"""A step of a run, in this order."""

Model = Literal["ols", "ridge", "boosting"]
"""How a target is predicted: least squares, ridge, or gradient boosting of trees."""

SPATIAL = ("county", "tract", "grid")
"""What the folds of spatially blocked cross-validation are made of; a column's name works as well."""

_STRICT = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)
_Text = Annotated[str, Field(min_length=1)]


def _listed(value: object) -> object:
    """Cut a comma list into words; a comma inside brackets is part of a word."""
    if not isinstance(value, str):
        return value
    return tuple(word.strip() for word in re.split(r",(?![^()\[\]]*[)\]])", value) if word.strip())


class MapSettings(BaseModel):
    """How a table becomes a picture.

    Parameters
    ----------
    standardize : bool
        Give every feature variance 1 before the principal components are found.
    percentiles : tuple of float
        Of each component's scores: what becomes the darkest and the brightest, 0 to 100.
    resolution : float
        Size of a pixel, in units of the map's CRS (metres for UTM).
    crs : str, optional
        Of the map, as pyproj reads it; None for the table's best UTM zone.
    """

    model_config = _STRICT

    standardize: bool = True
    percentiles: tuple[float, float] = (2.0, 98.0)
    resolution: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 10.0
    crs: _Text | None = None

    @field_validator("percentiles", mode="before")
    @classmethod
    def _read_percentiles(cls, value: object) -> object:
        return _listed(value)

    @model_validator(mode="after")
    def _check(self) -> Self:
        low, high = self.percentiles
        if not 0 <= low < high <= 100:
            raise ValueError(f"percentiles {low:g} {high:g}: expected 0 <= low < high <= 100")
        return self


class EvaluationSettings(BaseModel):
    """What is predicted from which features, and how that is validated.

    Parameters
    ----------
    targets : tuple of str, optional
        What regressions predict: names of `findings.evaluation.targets` or columns, also ``log(column)`` and
        ``log1p(column)``; None for the census variables and the numeric columns of `attributes`.
    classes : tuple of str
        What logistic regressions predict: the same, with two values.
    features : tuple of str, optional
        Columns, or patterns such as ``A*_mean``; None for all statistics of the table.
    models : tuple of str
        For regressions; ``ols`` is always among them.
    components : int
        Principal components of the reduced feature sets.
    folds : int
        Of each cross-validation.
    spatial : str
        Groups that spatial folds are made of: ``county``, ``tract``, ``grid``, a column's name, or ``auto``:
        counties where there are enough, else a grid.
    block_km : float, optional
        Size of a grid cell, km; None for 10 km, halved until there are enough cells.
    seed : int
        Of everything that is drawn.
    attributes : str, optional
        A table to join by key: Parquet or CSV, a path or a URL.
    on : str, optional
        Its key column, or ``COLUMN_OF_TABLE=COLUMN_OF_FILE``; None for the name of the zone id.
    """

    model_config = _STRICT

    targets: tuple[_Text, ...] | None = None
    classes: tuple[_Text, ...] = ("urban",)
    features: tuple[_Text, ...] | None = None
    models: tuple[Model, ...] = ("ols",)
    components: Annotated[int, Field(ge=1)] = 10
    folds: Annotated[int, Field(ge=2, le=50)] = 5
    spatial: _Text = "auto"
    block_km: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    attributes: _Text | None = None
    on: _Text | None = None

    @field_validator("targets", "classes", "features", "models", mode="before")
    @classmethod
    def _read_list(cls, value: object) -> object:
        return _listed(value)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.on is not None and self.attributes is None:
            raise ValueError("on is the key column of attributes; give both, or neither")
        if self.block_km is not None and self.spatial not in ("auto", "grid"):
            raise ValueError(f"block_km is the size of a grid cell; the folds are by {self.spatial}")
        return self
