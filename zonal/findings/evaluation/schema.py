"""What an evaluation found: every figure with its interval, as one model that is JSON.

Knows the shape of `evaluation.json` and nothing of how its figures are computed.
`Evaluation.model_json_schema()` is the documented schema.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

SCHEMA_VERSION = 1
"""Of `evaluation.json`; goes up when a reader must know."""

FeatureSet = Literal["all", "pca", "pca_raw"]
"""All features; principal components of standardised features; of features as they are."""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Figure(_Model):
    """One number with its 95 % interval; null where it is not defined."""

    value: float | None
    low: float | None = None
    high: float | None = None


class Score(_Model):
    """One measure on held-out rows, over the folds of a cross-validation."""

    mean: float | None = Field(description="of the folds")
    sd: float | None = Field(description="of the folds, ddof 1")
    low: float | None = Field(description="95 % interval of the mean: Nadeau and Bengio's corrected t")
    high: float | None
    folds: tuple[float | None, ...] = Field(description="one value a fold")


class RowCounts(_Model):
    """Rows of the table, by what became of them."""

    table: int
    without_features: int = Field(description="left out of every model: a feature is null")
    used: int = Field(description="table less without_features")


class Attributes(_Model):
    """A table that was joined by key."""

    file: str
    on: tuple[str, str] = Field(description="key column of the table, and of the file")
    columns: tuple[str, ...]
    replaced: tuple[str, ...] = Field(description="columns that both had: the file's were taken")
    matched: int
    table_unmatched: int = Field(description="rows of the table whose key the file lacks")
    file_unmatched: int = Field(description="rows of the file whose key the table lacks")


class Explained(_Model):
    """Principal components of all features over all rows used."""

    features: Literal["pca", "pca_raw"]
    components: int = Field(description="how many the models take")
    together: float = Field(description="share of the variance that these hold")
    low: float | None = Field(
        default=None, description="95 % interval of together, by the jackknife over random folds"
    )
    high: float | None = None
    explained: tuple[float, ...] = Field(description="share of each component, all of them")


class Folds(_Model):
    """How rows were put into folds; `skipped` says why there are none."""

    kind: Literal["random", "spatial"]
    folds: int
    seed: int | None = None
    by: str | None = Field(default=None, description="county, tract, grid or a column")
    groups: int | None = Field(default=None, description="groups that are never cut")
    block_km: float | None = Field(default=None, description="size of a grid cell")
    rows: tuple[int, ...] = Field(default=(), description="rows of each fold")
    targets: tuple[str, ...] = Field(default=(), description="whose rows these are; empty: all rows used")
    stratified: bool = Field(default=False, description="each fold has the same share of class 1")
    skipped: str | None = None


class Regression(_Model):
    """How well one target is predicted from one set of features by one model (R2)."""

    target: str
    features: FeatureSet
    model: Literal["ols", "ridge", "boosting"]
    rows: int
    dropped: int = Field(description="rows with features whose target is null")
    skipped: str | None = Field(default=None, description="why there is no figure")
    in_sample: Figure | None = Field(
        default=None, description="R2 of the rows fitted; the interval is the population's, and may lie below"
    )
    random: Score | None = None
    spatial: Score | None = None
    gap: Figure | None = Field(default=None, description="random less spatial")
    alpha: tuple[float | None, ...] | None = Field(
        default=None, description="ridge: the penalty of each random fold"
    )
    alpha_spatial: tuple[float | None, ...] | None = Field(
        default=None, description="and of each spatial fold"
    )


class Held(_Model):
    """A classifier on held-out rows."""

    accuracy: Score
    balanced_accuracy: Score
    f1: Score
    auc: Score
    brier: Score
    confusion: tuple[tuple[int, int], tuple[int, int]] = Field(
        description="[true class][predicted class], of all folds together; class 0 first"
    )


class Classification(_Model):
    """How well a two-valued target is predicted: logistic regression, or boosting."""

    target: str
    features: FeatureSet
    model: Literal["logistic", "boosting"]
    rows: int
    dropped: int
    skipped: str | None = None
    positive: str | None = Field(default=None, description="what class 1 is")
    share: float | None = Field(default=None, description="share of class 1")
    baseline: Figure | None = Field(default=None, description="accuracy of always saying the commoner class")
    random: Held | None = None
    spatial: Held | None = None
    gap: Figure | None = Field(default=None, description="accuracy, random less spatial")


class Correlation(_Model):
    """Pearson's r of one target with one principal component."""

    target: str
    features: Literal["pca", "pca_raw"]
    component: int = Field(description="from 1")
    rows: int
    r: Figure
    skipped: str | None = None


class Evaluation(_Model):
    """Every figure of an evaluation."""

    schema_version: int = SCHEMA_VERSION
    zonal_version: str
    table: str = Field(description="name of the table, without credentials")
    year: int | None = None
    settings: dict[str, object] = Field(description="what was asked")
    rows: RowCounts
    feature_names: tuple[str, ...]
    attributes: Attributes | None = None
    pca: tuple[Explained, ...] = ()
    folds: tuple[Folds, ...] = ()
    regressions: tuple[Regression, ...] = ()
    classifications: tuple[Classification, ...] = ()
    correlations: tuple[Correlation, ...] = ()
    notes: tuple[str, ...] = Field(default=(), description="what a reader must know, one sentence each")
