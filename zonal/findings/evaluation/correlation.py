"""Principal components of all rows: what they hold, and how targets go along with them.

Knows co-moments; knows nothing of tables or of how targets are predicted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np

from zonal.findings.evaluation import figures
from zonal.findings.evaluation.regression import RANK, Training
from zonal.findings.evaluation.schema import Correlation, Explained, Figure
from zonal.findings.gram import Gram
from zonal.findings.pca import Components, components_of

CORRELATED = 5
"""Principal components that targets are correlated with."""

Both = dict[Literal["pca", "pca_raw"], Components]
"""Components of standardised features, and of features as they are."""


def both(gram: Gram, names: Sequence[str]) -> Both:
    """Find the components of both scalings, from a Gram whose first columns are the named features."""
    inside = gram.select(range(len(names)))
    return {
        "pca": components_of(inside, names),
        "pca_raw": components_of(inside, names, standardize=False),
    }


def explain(components: Both, kept: int, trained: Sequence[Training | None]) -> Iterator[Explained]:
    """Tell the share of variance that each component holds, and the first ones together.

    Parameters
    ----------
    components : dict
    kept : int
        How many are summed.
    trained : sequence of Training or None
        The rows without one random fold each: they give the interval of the sum.
    """
    for features, whole in components.items():
        without = [(t.whole if features == "pca" else t.raw).explained[:kept].sum() for t in trained if t]
        together = float(whole.explained[:kept].sum())
        low, high = figures.jackknife(together, without)
        yield Explained(
            features=features,
            components=min(kept, len(whole.explained)),
            together=together,
            low=low,
            high=high,
            explained=tuple(whole.explained.tolist()),
        )


def correlate(name: str, at: int, gram: Gram, components: Both) -> Iterator[Correlation]:
    """Correlate a target with scores of the first components.

    Parameters
    ----------
    name : str
    at : int
        Where the target is among those of the Gram.
    gram : Gram
        Of features, then targets; scores' co-moments are linear in those of the features.
    components : dict
    """
    for features, whole in components.items():
        of = len(whole.mean)
        weights = whole.loadings[:CORRELATED] / whole.scale
        across = weights @ gram.scatter[:of, of + at]
        spread = ((weights @ gram.scatter[:of, :of]) * weights).sum(axis=1)
        length = np.sqrt(np.maximum(spread, 0.0) * gram.scatter[of + at, of + at])
        varies = (spread > RANK * spread.max()) & (length > 0)
        r = np.divide(across, length, out=np.full(len(weights), np.nan), where=varies)
        for component, value in enumerate(r.tolist(), 1):
            estimate = figures.correlation(value, gram.count)
            yield Correlation(
                target=name, features=features, component=component, rows=gram.count, r=estimate
            )


def no_correlations(name: str, reason: str, components: Both) -> Iterator[Correlation]:
    """Tell why a target has no correlations."""
    nothing = Figure(value=None)
    for features, whole in components.items():
        for component in range(1, len(whole.loadings[:CORRELATED]) + 1):
            yield Correlation(
                target=name, features=features, component=component, rows=0, r=nothing, skipped=reason
            )
