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
from zonal.findings.evaluation.model import (
    Classification,
    Correlation,
    Evaluation,
    Explained,
    FeatureSet,
    Figure,
    Folds,
    Regression,
    Rows,
    Score,
)
from zonal.findings.evaluation.regression import SETS, Training, boost, boosted, learned
from zonal.findings.evaluation.remarks import remarks
from zonal.findings.evaluation.study import Parts, Share, Study
from zonal.findings.evaluation.targets import Target, classes
from zonal.findings.gram import Floats, Gram
from zonal.findings.join import Joined, join
from zonal.findings.rows import Rows as Table

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
    table : Rows
    asked : EvaluationSettings
    file : Rows, optional
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
    whole = study.share(np.ones(study.used, bool))
    reasons = _sort(study)
    regressions: list[Regression] = []
    correlations: list[Correlation] = []
    explained: tuple[Explained, ...] = ()
    components: Both = {}
    for share in study.shares.values():
        if share.targets:
            notify(Event("info", f"{share.count:,} rows: predicting {', '.join(share.targets)}"))
        gram, (random, spatial) = study.parts(
            share.rows, (share.random, share.spatial), [*share.targets.values()]
        )
        if share is whole:
            components = both(gram, study.features.names)
            explained = tuple(explain(components, study.kept, random.trained if random else ()))
        for at, name in enumerate(share.targets):
            correlations += correlate(name, at, gram, components)
        for model in study.models if share.targets else ():
            regressions += _regress(study, share, model, gram, random, spatial, notify)
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
        rows=Rows(table=table.rows, without_features=table.rows - study.used, used=study.used),
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
            study.share(np.isfinite(values)).targets[target.name] = values
    return reasons


def _public(asked: EvaluationSettings) -> dict[str, object]:
    """Return the settings as JSON has them, without credentials."""
    said: dict[str, object] = asked.model_dump(mode="json")
    if asked.attributes is not None:
        said["attributes"] = without_credentials(asked.attributes)
    return said


def _folds(study: Study, whole: Share) -> Iterator[Folds]:
    """Tell how rows were dealt: all rows used first."""
    for share in study.shares.values():
        for deal, names in (
            (share.random, [*share.targets]),
            (share.spatial, list(dict.fromkeys([*share.targets, *share.classes]))),
        ):
            if share is whole or names:
                yield deal.about.model_copy(update={"targets": () if share is whole else tuple(names)})
    yield from study.stratified


# ------------------------------------------------------------------ regressions


def _regress(
    study: Study,
    share: Share,
    model: Model,
    gram: Gram,
    random: Parts | None,
    spatial: Parts | None,
    notify: Notify,
) -> Iterator[Regression]:
    """Predict the targets of a share with one model, from every set of features."""
    training = Training.of(gram, study.width, study.kept)
    reasons = {one: study.too_few(share.count, one) for one in SETS}
    if training is None:
        reasons = dict.fromkeys(SETS, "no feature varies in its rows")
    elif model == "ridge" and study.asked.folds < 3:
        reasons = dict.fromkeys(
            SETS, "ridge finds its penalty in the folds that are left: it takes three folds"
        )
    sets = tuple(one for one in SETS if reasons[one] is None)
    for one in SETS:
        if one not in sets:
            for name in share.targets:
                yield _regression(study, share, name, one, model).model_copy(update={"skipped": reasons[one]})
    if not sets or training is None or random is None:
        return
    if model == "boosting":
        notify(Event("info", f"boosting {', '.join(share.targets)}"))
    inside = _in_sample(study, share, model, sets, training, random)
    held = {
        kind: _held_out(study, share, model, sets, parts)
        for kind, parts in (("random", random), ("spatial", spatial))
        if parts
    }
    sizes = random.sizes, spatial.sizes if spatial else []
    for one in sets:
        for at, name in enumerate(share.targets):
            scores = {kind: found[one][at] for kind, (found, _) in held.items()}
            alphas = {kind: found[one][at] for kind, (_, found) in held.items() if found}
            yield _regression(study, share, name, one, model).model_copy(
                update={
                    "in_sample": inside[one][at],
                    **scores,
                    "gap": figures.gap(scores.get("random"), scores.get("spatial"), sizes),
                    "alpha": alphas.get("random"),
                    "alpha_spatial": alphas.get("spatial"),
                }
            )


def _regression(study: Study, share: Share, name: str, features: FeatureSet, model: Model) -> Regression:
    dropped = study.used - share.count
    return Regression(target=name, features=features, model=model, rows=share.count, dropped=dropped)


def _no_regressions(study: Study, name: str, reason: str) -> Iterator[Regression]:
    for model in study.models:
        for one in SETS:
            yield Regression(
                target=name, features=one, model=model, rows=0, dropped=study.used, skipped=reason
            )


PerTarget = dict[FeatureSet, list[tuple[float | None, ...]]]


def _held_out(
    study: Study, share: Share, model: Model, sets: Sequence[FeatureSet], parts: Parts
) -> tuple[dict[FeatureSet, list[Score]], PerTarget]:
    """Measure held-out R2 of each set and target; of ridge the penalties of the folds too."""
    alphas: dict[FeatureSet, Floats] = {}
    if model == "ols":
        found = regression.ols(parts.trained, parts.folds, study.width)
    elif model == "ridge":
        found, alphas = regression.ridge(parts.trained, parts.folds, study.width, study.kept)
    else:
        found = {one: _boosted(study, share, one, parts) for one in sets}
    scores = {one: [figures.score(column, parts.sizes) for column in found[one].T] for one in sets}
    return scores, {one: [tuple(map(figures.finite, column)) for column in alphas[one].T] for one in alphas}


def _boosted(study: Study, share: Share, features: FeatureSet, parts: Parts) -> Floats:
    """Return held-out R2, float64 ndarray[fold, target]."""
    prepare = study.preparing(parts, features, scaled=False)
    folds, seed = study.asked.folds, study.asked.seed
    found = [boosted(prepare, values, parts.labels, folds, seed) for values in share.targets.values()]
    return np.array(found).T


def _in_sample(
    study: Study,
    share: Share,
    model: Model,
    sets: Sequence[FeatureSet],
    training: Training,
    random: Parts,
) -> dict[FeatureSet, list[Figure]]:
    """Measure R2 of each set and target on the rows that the model is fitted to."""
    if model == "boosting":
        rows = learned(np.flatnonzero(share.rows), study.asked.seed)
        found = {}
        for one in sets:
            ready = study.prepared(training, one, scaled=False)
            found[one] = [
                figures.r2_of_rows(values[rows], boost(ready, values, rows, rows, study.asked.seed))
                for values in share.targets.values()
            ]
        return found
    alphas: dict[FeatureSet, Floats] = {one: np.zeros(len(share.targets)) for one in sets}
    if model == "ridge":
        alphas = regression.penalties(random.folds, set(), study.width, study.kept)
    return {
        one: [
            figures.in_sample_r2(
                float(training.fitted(one, alpha).r2(training.gram)[at]),
                share.count,
                training.terms(one, alpha),
            )
            for at, alpha in enumerate(alphas[one].tolist())
        ]
        for one in sets
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
    share = study.share(rows)
    share.classes.append(target.name)
    deal = stratified_folds(made.values[rows].astype(int), study.asked.folds, study.asked.seed)
    study.stratified.append(deal.about.model_copy(update={"targets": (target.name,)}))
    _, (random, spatial) = study.parts(rows, (deal, share.spatial))
    ones = int(made.values[rows].sum())
    known = Classification(
        target=target.name,
        features="all",
        model="logistic",
        rows=share.count,
        dropped=study.used - share.count,
        skipped=deal.about.skipped,
        positive=made.positive,
        share=ones / share.count,
        baseline=figures.share(max(ones, share.count - ones), share.count),
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
                study.preparing(parts, row.features, scaled=row.model == "logistic"),
                made.values,
                parts.labels,
                study.asked.folds,
                (os.cpu_count() or 1) if row.model == "logistic" else 1,  # trees take all threads for one
            )
            for kind, parts in (("random", random), ("spatial", spatial))
            if parts
        }
        first, second = (one.accuracy if (one := held.get(kind)) else None for kind in ("random", "spatial"))
        sizes = random.sizes if random else [], spatial.sizes if spatial else []
        yield row.model_copy(update={**held, "gap": figures.gap(first, second, sizes)})


def _each(row: Classification, models: Iterable[Classifier]) -> Iterator[Classification]:
    """Repeat a row for every model and set of features."""
    for model in models:
        for one in SETS:
            yield row.model_copy(update={"features": one, "model": model})
