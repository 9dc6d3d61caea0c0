"""What is asked met with a table: its features, targets, places, and the co-moments of any rows by fold.

Knows what may be a feature and which rows a target has; knows no model and no
figure. The feature matrix is held once and never copied.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from zonal.config.analysis import EvaluationSettings, Model
from zonal.errors import InputError, UnfitError
from zonal.findings.evaluation.folds import Deal, Labels, Places, random_folds
from zonal.findings.evaluation.regression import Prepared, Training, grams, total, trainings
from zonal.findings.evaluation.schema import FeatureSet, Folds
from zonal.findings.evaluation.targets import CENSUS, CENSUS_COLUMNS, find, numbers
from zonal.findings.features import Features, feature_names, read_features
from zonal.findings.gram import Gram
from zonal.findings.join import Joined
from zonal.findings.places import COORDINATE_COLUMNS
from zonal.findings.table import Floats


@dataclass
class Sample:
    """Targets that have the same rows, and how these are dealt into folds.

    Parameters
    ----------
    rows : bool ndarray[row used]
    random, spatial : Deal
        Of those rows.
    targets : dict
        Values of each regression target, float64 ndarray[row used].
    classes : list of str
        Targets of classifications.
    """

    rows: npt.NDArray[np.bool_]
    random: Deal
    spatial: Deal
    targets: dict[str, Floats] = field(default_factory=dict)
    classes: list[str] = field(default_factory=list)

    @cached_property
    def count(self) -> int:
        """Rows."""
        return int(self.rows.sum())


@dataclass(frozen=True)
class Split:
    """The folds of one deal: their co-moments, and what is learned from all others.

    Parameters
    ----------
    labels : int64 ndarray[row used]
        Fold of each row; -1 for none.
    folds : list of Gram
        Of features, then targets.
    trained : list of Training or None
    """

    labels: Labels
    folds: list[Gram]
    trained: list[Training | None]

    @property
    def sizes(self) -> list[int]:
        """Rows of each fold."""
        return [fold.count for fold in self.folds]


class Study:
    """What all figures of an evaluation are computed from.

    Parameters
    ----------
    joined : Joined
    asked : EvaluationSettings

    Attributes
    ----------
    targets, classes : list of Target
        Of regressions and of classifications.
    features : Features
        Of the rows used.
    left_out : list of str
        Columns that fit a pattern of features and are no features, for targets are made of them.
    used, width, kept : int
        Rows, features, and principal components of the reduced sets.
    models : tuple of str
        Of regressions; least squares is always the first.
    samples : dict
        Rows that some target has, by a key of them.
    stratified : list of Folds
        How rows were dealt for classifications.

    Raises
    ------
    InputError
        If a name stands for nothing, a feature is what a target is made of, or no row has features.
    """

    def __init__(self, joined: Joined, asked: EvaluationSettings) -> None:
        self.joined, self.asked = joined, asked
        self.targets = [find(name, joined.names) for name in self._target_names()]
        self.classes = [find(name, joined.names) for name in dict.fromkeys(asked.classes)]
        names, self.left_out = self._feature_names()
        self.features: Features = read_features(joined.table, names)
        self.used, self.width = self.features.values.shape
        if not self.used:
            raise UnfitError(
                f"{joined.table.name}: none of its {joined.table.rows:,} rows has all {len(names)} features "
                f"({names[0]}, ...): there is nothing to evaluate"
            )
        self.kept = min(asked.components, self.width)
        self.places = Places.of(joined, self.features.kept, asked.spatial, asked.block_km)
        self.models: tuple[Model, ...] = tuple(dict.fromkeys(("ols", *asked.models)))
        self.samples: dict[bytes, Sample] = {}
        self.stratified: list[Folds] = []
        self._known: dict[str, Floats] = {}

    def _target_names(self) -> tuple[str, ...]:
        """Names asked for, or the census variables; with a file those that can be made, and its numbers."""
        if self.asked.targets is not None:
            return tuple(dict.fromkeys(self.asked.targets))
        if self.joined.file is None:
            return tuple(CENSUS)
        made = (name for name in CENSUS if not find(name, self.joined.names).missing)
        return tuple(dict.fromkeys((*made, *self.joined.numeric)))

    def _feature_names(self) -> tuple[tuple[str, ...], list[str]]:
        """Names of the features, and of those that are none, for they would tell a target."""
        joined, patterns = self.joined, self.asked.features
        made_of = {
            column: target.name for target in (*self.targets, *self.classes) for column in target.columns
        }
        telling = {*made_of, *joined.added}
        others = {*CENSUS_COLUMNS, *COORDINATE_COLUMNS}
        if joined.about is not None:
            others.add(joined.about.on[0])
        names = feature_names(joined.table, patterns, telling | others)
        left_out = [name for name in names if name in telling]
        for name in left_out:
            if name in (patterns or ()):
                what = (
                    f"the target {made_of[name]!r} is made of" if name in made_of else "the file brings too"
                )
                raise InputError(f"feature {name!r} is what {what}; leave it out of one of them")
        names = tuple(name for name in names if name not in telling)
        if not names:
            raise UnfitError(f"{joined.table.name}: every column that could be a feature is a target")
        return names, left_out

    def too_few(self, rows: int, features: FeatureSet) -> str | None:
        """Say why some rows are too few for a set of features; None where they are not."""
        terms = self.width if features == "all" else self.kept
        least = max(terms + 2, self.asked.folds)
        if rows >= least:
            return None
        return f"{rows:,} rows, and {terms} features with {self.asked.folds} folds take {least} or more"

    def read(self, name: str) -> Any:
        """Read a column of the rows used, pyarrow.ChunkedArray."""
        return self.joined.read(name).filter(self.features.kept)

    def numbers(self, name: str) -> Floats:
        """Read a column of the rows used as numbers, once."""
        if name not in self._known:
            self._known[name] = numbers(name, self.read(name))
        return self._known[name]

    def sample(self, rows: npt.NDArray[np.bool_]) -> Sample:
        """Find, or make, what targets with these rows have in common."""
        key = np.packbits(rows).tobytes()
        if key not in self.samples:
            dealt = random_folds(int(rows.sum()), self.asked.folds, self.asked.seed)
            self.samples[key] = Sample(rows, dealt, self.places.deal(rows, self.asked.folds))
        return self.samples[key]

    def splits(
        self, rows: npt.NDArray[np.bool_], deals: Sequence[Deal], targets: Sequence[Floats] = ()
    ) -> tuple[Gram, list[Split | None]]:
        """Add up co-moments of some rows in one pass: of all of them, and of the folds of each deal.

        Parameters
        ----------
        rows : bool ndarray[row used]
        deals : sequence of Deal
            Of those rows.
        targets : sequence of float64 ndarray[row used]
        """
        labels = [np.full(self.used, -1, np.int64) for _ in deals]
        for label, deal in zip(labels, deals, strict=True):
            label[rows] = deal.labels
        shape = [self.asked.folds + 1] * len(deals)
        cell = np.ravel_multi_index([label + 1 for label in labels], shape).astype(np.int64)
        cell[~rows] = -1
        by_cell = grams(self.features.values, targets, cell, int(np.prod(shape)))
        numbered = np.arange(len(by_cell)).reshape(shape)
        splits: list[Split | None] = []
        for axis, (deal, label) in enumerate(zip(deals, labels, strict=True)):
            if not deal.possible:
                splits.append(None)
                continue
            folds = [
                total([by_cell[cell] for cell in numbered.take(fold + 1, axis).flat])
                for fold in range(self.asked.folds)
            ]
            splits.append(Split(label, folds, trainings(folds, self.width, self.kept)))
        return total(by_cell), splits

    def prepared(self, training: Training | None, features: FeatureSet, *, scaled: bool) -> Prepared:
        """Return what turns rows into what a model takes, as a training set has it.

        Trees take all features as they are: `scaled` is of no use to them.
        """
        if training is None or (features == "all" and not scaled):
            return lambda rows: self.features.values[rows]
        return training.prepared(self.features.values, features)

    def preparing(self, split: Split, features: FeatureSet, *, scaled: bool) -> Callable[[int], Prepared]:
        """Return `prepared` for the training set of each fold."""
        return lambda fold: self.prepared(split.trained[fold], features, scaled=scaled)
