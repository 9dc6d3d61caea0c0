"""What is asked of a finished table: steps, a map and an evaluation, as immutable models.

Knows how these choices are written and what is wrong with them; knows no table,
no statistic and no file.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, Field, model_validator

from zonal.config.fields import STRICT, CommaList, Positive, Text, option

StepName = Literal["stats", "pca", "evaluate", "report"]
"""A step of a run, in this order."""

Model = Literal["ols", "ridge", "boosting"]
"""How a target is predicted: least squares, ridge, or gradient boosting of trees."""

SPATIAL = ("county", "tract", "grid")
"""What the folds of spatially blocked cross-validation are made of; a column's name works as well."""


class MapSettings(BaseModel):
    """How a table becomes a picture; each field says what it is."""

    model_config = STRICT

    standardize: bool = option(
        True,
        "",
        "Give every feature variance 1 first; the default.",
        "Before principal components are found.",
    )
    percentiles: Annotated[tuple[float, float], CommaList] = option(
        (2.0, 98.0),
        "LOW HIGH",
        "Scores that become darkest and brightest; default 2 98.",
        "Percentiles of each component's scores, 0 to 100.",
    )
    resolution: Positive = option(
        10.0, "SIZE", "Of a pixel, in units of the CRS; default 10.", "Metres for UTM."
    )
    crs: Text | None = option(
        None, "CRS", "Of the map; default: the table's best UTM zone.", "As pyproj reads it."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        low, high = self.percentiles
        if not 0 <= low < high <= 100:
            raise ValueError(f"percentiles {low:g} {high:g}: expected 0 <= low < high <= 100")
        return self


class EvaluationSettings(BaseModel):
    """What is predicted from which features, and how that is validated; each field says what it is."""

    model_config = STRICT

    targets: Annotated[tuple[Text, ...] | None, CommaList] = option(
        None,
        "LIST",
        "What to predict: census variables, columns, log(COLUMN), log1p(COLUMN).",
        "By regressions. Names of `findings.evaluation.targets`, or columns; None for the census variables "
        "and the numeric columns of `attributes`.",
    )
    classes: Annotated[tuple[Text, ...], CommaList] = option(
        ("urban",),
        "LIST",
        "Two-valued targets to classify; default urban.",
        "By logistic regressions; named as `targets` are.",
    )
    features: Annotated[tuple[Text, ...] | None, CommaList] = option(
        None, "LIST", "Columns, or patterns such as A*_mean.", "None for all statistics of the table."
    )
    models: Annotated[tuple[Model, ...], CommaList] = option(
        ("ols",),
        "LIST",
        "Some of ols,ridge,boosting; default ols.",
        "For regressions; ols is always among them.",
    )
    components: Annotated[int, Field(ge=1)] = option(
        10, "N", "Principal components of the reduced features; default 10."
    )
    folds: Annotated[int, Field(ge=2, le=50)] = option(5, "N", "Of each cross-validation; default 5.")
    spatial: Text = option(
        "auto",
        "GROUPS",
        "Spatial folds by county, tract, grid or a column; default auto.",
        "auto: counties where there are enough, else a grid.",
    )
    block_km: Positive | None = option(
        None, "KM", "Size of a cell of the grid.", "km; None for 10, halved until there are enough cells."
    )
    seed: Annotated[int, Field(ge=0, lt=2**32)] = option(0, "N", "Of everything drawn; default 0.")
    attributes: Text | None = option(
        None, "FILE", "A table to join by key: Parquet or CSV.", "A path or a URL."
    )
    on: Text | None = option(
        None, "COLUMN", "Its key, or COLUMN_OF_TABLE=COLUMN_OF_FILE; default: the id.", "Of `attributes`."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.on is not None and self.attributes is None:
            raise ValueError("on is the key column of attributes; give both, or neither")
        if self.block_km is not None and self.spatial not in ("auto", "grid"):
            raise ValueError(f"block_km is the size of a grid cell; the folds are by {self.spatial}")
        return self
