"""A whole evaluation: every target met with every model, set of features and kind of folds.

Knows what is measured, in which order and what is left out; leaves each figure to
the module that knows it. Takes anything that gives Arrow columns, and knows no file.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

import numpy as np
from threadpoolctl import threadpool_limits

from zonal.config.analysis import EvaluationSettings, Model
from zonal.credentials import without_credentials
from zonal.events import Event, Notify, quiet
from zonal.findings.evaluation import classification, figures, regression
from zonal.findings.evaluation.correlation import Both, both, correlate, explain, no_correlations
from zonal.findings.evaluation.folds import stratified_folds
from zonal.findings.evaluation.regression import SETS, Training, boost, boosted, learned
from zonal.findings.evaluation.remarks import remarks
from zonal.findings.evaluation.schema import (
    Classification,
    Correlation,
    Evaluation,
    Explained,
    FeatureSet,
    Figure,
    Folds,
    Regression,
    RowCounts,
    Score,
)
from zonal.findings.evaluation.study import Sample, Split, Study
from zonal.findings.evaluation.targets import Target, classes
from zonal.findings.gram import Gram
from zonal.findings.join import Joined, join
from zonal.findings.table import Floats, Table

Classifier = Literal["logistic", "boosting"]


def assess(
    table: Table,
    asked: EvaluationSettings,
    file: Table | None = None,
    *,
    version: str,
    year: int | None = None,
    notify: Notify = quiet,
) -> Evaluation:
    """Evaluate a table.

    Parameters
    ----------
    table : Table
    asked : EvaluationSettings
    file : Table, optional
        What `asked.attributes` names.
    version : str
        Of zonal.
    year : int, optional
        Of the table.
    notify : callable
        Told what is computed.

    Raises
    ------
    InputError
        As `Study` and `join`, and if there are no two rows with features, or none varies.
    """
    # Sums over several threads would differ in their last digits with the number of processors.
    with threadpool_limits(1, "blas"):
        return _assess(table, asked, file, version, year, notify)


def _assess(
    table: Table,
    asked: EvaluationSettings,
    file: Table | None,
    version: str,
    year: int | None,
    notify: Notify,
) -> Evaluation:
    study = Study(Joined(table) if file is None else join(table, file, asked.on), asked)
    whole = study.sample(np.ones(study.used, bool))
    reasons = _sort(study)
    regressions: list[Regression] = []
    correlations: list[Correlation] = []
    explained: tuple[Explained, ...] = ()
    components: Both = {}
    for sample in study.samples.values():
        if sample.targets:
            notify(Event("info", f"{sample.count:,} rows: predicting {', '.join(sample.targets)}"))
        gram, (random, spatial) = study.splits(
            sample.rows, (sample.random, sample.spatial), [*sample.targets.values()]
        )
        if sample is whole:
            components = both(gram, study.features.names)
            explained = tuple(explain(components, study.kept, random.trained if random else ()))
        for at, name in enumerate(sample.targets):
            correlations += correlate(name, at, gram, components)
        for model in study.models if sample.targets else ():
            regressions += _regress(study, sample, model, gram, random, spatial, notify)
    for name, reason in reasons.items():
        regressions += _no_regressions(study, name, reason)
        correlations += no_correlations(name, reason, components)
    classified = [row for target in study.classes for row in _classify(study, target, notify)]
    order = {target.name: at for at, target in enumerate(study.targets)}
    evaluation = Evaluation(
        zonal_version=version,
        table=table.name,
        year=year,
        settings=_public(asked),
        rows=RowCounts(table=table.rows, without_features=table.rows - study.used, used=study.used),
        feature_names=study.features.names,
        attributes=study.joined.about,
        pca=explained,
        folds=tuple(_folds(study, whole)),
        regressions=tuple(sorted(regressions, key=lambda row: order[row.target])),
        classifications=tuple(classified),
        correlations=tuple(sorted(correlations, key=lambda row: order[row.target])),
    )
    return evaluation.model_copy(update={"notes": tuple(remarks(evaluation, study))})


def _sort(study: Study) -> dict[str, str]:
    """Put targets with those of the same rows; return why the others have no figures."""
    reasons = {}
    for target in study.targets:
        if target.missing:
            reasons[target.name] = target.missing
            continue
        values, reason = target.made(study.numbers)
        if reason:
            reasons[target.name] = reason
        else:
            study.sample(np.isfinite(values)).targets[target.name] = values
    return reasons


def _public(asked: EvaluationSettings) -> dict[str, object]:
    """Return the settings as JSON has them, without credentials."""
    settings: dict[str, object] = asked.model_dump(mode="json")
    if asked.attributes is not None:
        settings["attributes"] = without_credentials(asked.attributes)
    return settings


def _folds(study: Study, whole: Sample) -> Iterator[Folds]:
    """Tell how rows were dealt: all rows used first."""
    for sample in study.samples.values():
        for deal, names in (
            (sample.random, [*sample.targets]),
            (sample.spatial, list(dict.fromkeys([*sample.targets, *sample.classes]))),
        ):
            if sample is whole or names:
                yield deal.about.model_copy(update={"targets": () if sample is whole else tuple(names)})
    yield from study.stratified


# ------------------------------------------------------------------ regressions


def _regress(
    study: Study,
    sample: Sample,
    model: Model,
    gram: Gram,
    random: Split | None,
    spatial: Split | None,
    notify: Notify,
) -> Iterator[Regression]:
    """Predict the targets of a sample with one model, from every set of features."""
    training = Training.of(gram, study.width, study.kept)
    reasons = {features: study.too_few(sample.count, features) for features in SETS}
    if training is None:
        reasons = dict.fromkeys(SETS, "no feature varies in its rows")
    elif model == "ridge" and study.asked.folds < 3:
        reasons = dict.fromkeys(
            SETS, "ridge finds its penalty in the folds that are left: it takes three folds"
        )
    sets = tuple(features for features in SETS if reasons[features] is None)
    for features in SETS:
        if features not in sets:
            for name in sample.targets:
                yield _regression(study, sample, name, features, model).model_copy(
                    update={"skipped": reasons[features]}
                )
    if not sets or training is None or random is None:
        return
    if model == "boosting":
        notify(Event("info", f"boosting {', '.join(sample.targets)}"))
    inside = _in_sample(study, sample, model, sets, training, random)
    held = {
        kind: _held_out(study, sample, model, sets, split)
        for kind, split in (("random", random), ("spatial", spatial))
        if split
    }
    sizes = random.sizes, spatial.sizes if spatial else []
    for features in sets:
        for at, name in enumerate(sample.targets):
            scores = {kind: by_features[features][at] for kind, (by_features, _) in held.items()}
            alphas = {kind: chosen[features][at] for kind, (_, chosen) in held.items() if chosen}
            yield _regression(study, sample, name, features, model).model_copy(
                update={
                    "in_sample": inside[features][at],
                    **scores,
                    "gap": figures.gap(scores.get("random"), scores.get("spatial"), sizes),
                    "alpha": alphas.get("random"),
                    "alpha_spatial": alphas.get("spatial"),
                }
            )


def _regression(study: Study, sample: Sample, name: str, features: FeatureSet, model: Model) -> Regression:
    dropped = study.used - sample.count
    return Regression(target=name, features=features, model=model, rows=sample.count, dropped=dropped)


def _no_regressions(study: Study, name: str, reason: str) -> Iterator[Regression]:
    for model in study.models:
        for features in SETS:
            yield Regression(
                target=name,
                features=features,
                model=model,
                rows=0,
                dropped=study.used,
                skipped=reason,
            )


PerTarget = dict[FeatureSet, list[tuple[float | None, ...]]]


def _held_out(
    study: Study, sample: Sample, model: Model, sets: Sequence[FeatureSet], split: Split
) -> tuple[dict[FeatureSet, list[Score]], PerTarget]:
    """Measure held-out R2 of each set and target; of ridge the penalties of the folds too."""
    alphas: dict[FeatureSet, Floats] = {}
    if model == "ols":
        r2 = regression.ols(split.trained, split.folds, study.width)
    elif model == "ridge":
        r2, alphas = regression.ridge(split.trained, split.folds, study.width, study.kept)
    else:
        r2 = {features: _boosted(study, sample, features, split) for features in sets}
    scores = {
        features: [figures.score(column, split.sizes) for column in r2[features].T] for features in sets
    }
    return scores, {
        features: [tuple(map(figures.finite, column)) for column in alphas[features].T] for features in alphas
    }


def _boosted(study: Study, sample: Sample, features: FeatureSet, split: Split) -> Floats:
    """Return held-out R2, float64 ndarray[fold, target]."""
    prepare = study.preparing(split, features, scaled=False)
    folds, seed = study.asked.folds, study.asked.seed
    scores = [boosted(prepare, values, split.labels, folds, seed) for values in sample.targets.values()]
    return np.array(scores).T


def _in_sample(
    study: Study,
    sample: Sample,
    model: Model,
    sets: Sequence[FeatureSet],
    training: Training,
    random: Split,
) -> dict[FeatureSet, list[Figure]]:
    """Measure R2 of each set and target on the rows that the model is fitted to."""
    if model == "boosting":
        rows = learned(np.flatnonzero(sample.rows), study.asked.seed)
        estimates = {}
        for features in sets:
            ready = study.prepared(training, features, scaled=False)
            estimates[features] = [
                figures.r2_of_rows(values[rows], boost(ready, values, rows, rows, study.asked.seed))
                for values in sample.targets.values()
            ]
        return estimates
    alphas: dict[FeatureSet, Floats] = {features: np.zeros(len(sample.targets)) for features in sets}
    if model == "ridge":
        alphas = regression.penalties(random.folds, set(), study.width, study.kept)
    return {
        features: [
            figures.in_sample_r2(
                float(training.fitted(features, alpha).r2(training.gram)[at]),
                sample.count,
                training.terms(features, alpha),
            )
            for at, alpha in enumerate(alphas[features].tolist())
        ]
        for features in sets
    }


# ------------------------------------------------------------------ classifications


def _classify(study: Study, target: Target, notify: Notify) -> Iterator[Classification]:
    """Tell the classes of a target apart with every model, from every set of features."""
    models: tuple[Classifier, ...] = ("logistic", "boosting") if "boosting" in study.models else ("logistic",)
    made = classes(target, study.numbers, study.read)
    rows = np.isfinite(made.values)
    if made.reason:
        nothing = Classification(
            target=target.name,
            features="all",
            model="logistic",
            rows=0,
            dropped=study.used,
            skipped=made.reason,
        )
        yield from _each(nothing, models)
        return
    sample = study.sample(rows)
    sample.classes.append(target.name)
    deal = stratified_folds(made.values[rows].astype(int), study.asked.folds, study.asked.seed)
    study.stratified.append(deal.about.model_copy(update={"targets": (target.name,)}))
    _, (random, spatial) = study.splits(rows, (deal, sample.spatial))
    ones = int(made.values[rows].sum())
    known = Classification(
        target=target.name,
        features="all",
        model="logistic",
        rows=sample.count,
        dropped=study.used - sample.count,
        skipped=deal.about.skipped,
        positive=made.positive,
        share=ones / sample.count,
        baseline=figures.share(max(ones, sample.count - ones), sample.count),
    )
    for row in _each(known, models):
        skipped = study.too_few(row.rows, row.features) or row.skipped
        if skipped:
            yield row.model_copy(update={"skipped": skipped})
            continue
        notify(
            Event(
                "info", f"{row.rows:,} rows: classifying {target.name}, {row.model}, features {row.features}"
            )
        )
        fit = classification.logistic(made.values)
        if row.model == "boosting":
            fit = classification.boosting(made.values, study.asked.seed)
        held = {
            kind: classification.held(
                fit,
                study.preparing(split, row.features, scaled=row.model == "logistic"),
                made.values,
                split.labels,
                study.asked.folds,
                # Trees take all threads for one.
                (os.cpu_count() or 1) if row.model == "logistic" else 1,
            )
            for kind, split in (("random", random), ("spatial", spatial))
            if split
        }
        accuracy = {kind: scores.accuracy for kind, scores in held.items() if scores}
        sizes = random.sizes if random else [], spatial.sizes if spatial else []
        gap = figures.gap(accuracy.get("random"), accuracy.get("spatial"), sizes)
        yield row.model_copy(update={**held, "gap": gap})


def _each(row: Classification, models: Iterable[Classifier]) -> Iterator[Classification]:
    """Repeat a row for every model and set of features."""
    for model in models:
        for features in SETS:
            yield row.model_copy(update={"features": features, "model": model})
