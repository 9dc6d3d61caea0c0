from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zonal.findings import gram as module
from zonal.findings.gram import Gram
from zonal.findings.table import Floats

shapes = st.tuples(st.integers(0, 30), st.integers(0, 30), st.integers(1, 6))
centres = st.sampled_from([0.0, 1.0, -1e3, 1e6])
seeds = st.integers(0, 2**32 - 1)


def drawn(rows: int, columns: int, centre: float, seed: int) -> Floats:
    return np.random.default_rng(seed).normal(centre, 1, (rows, columns))


def same(found: Gram, values: Floats) -> None:
    """Compare with NumPy's means and covariances; rounding grows with the distance from zero."""
    assert found.count == len(values)
    if len(values):
        assert found.mean == pytest.approx(values.mean(axis=0), rel=1e-12, abs=1e-12)
        expected = np.cov(values, rowvar=False, ddof=0).reshape(found.scatter.shape) * len(values)
        near = 1e-9 * max(1.0, np.abs(values).max()) * len(values)
        assert np.abs(found.scatter - expected).max() < near
        assert np.array_equal(found.scatter, found.scatter.T)
        assert found.variance == pytest.approx(values.var(axis=0), abs=near)


@given(shapes, centres, seeds)
def test_the_sum_of_two_is_that_of_all_their_rows(
    shape: tuple[int, int, int], centre: float, seed: int
) -> None:
    first, second, columns = shape
    values = drawn(first + second, columns, centre, seed)
    same(Gram.of(values[:first]) + Gram.of(values[first:]), values)


@given(shapes, seeds, st.data())
def test_selected_columns_are_those_of_the_matrix(
    shape: tuple[int, int, int], seed: int, data: st.DataObject
) -> None:
    rows, _, columns = shape
    values = drawn(rows, columns, 1.0, seed)
    chosen = data.draw(st.lists(st.integers(0, columns - 1), min_size=1))
    same(Gram.of(values).select(chosen), values[:, chosen])


@pytest.mark.parametrize("centre", [0.0, 1e6])
@pytest.mark.parametrize("batch", [7, 64])
def test_batches_do_not_show_nor_does_a_large_mean(
    monkeypatch: pytest.MonkeyPatch, batch: int, centre: float
) -> None:
    values = drawn(1000, 5, centre, 0).astype(np.float32)
    whole = Gram.of(values)
    monkeypatch.setattr(module, "BATCH", batch)
    cut = Gram.of(values)
    assert cut.scatter == pytest.approx(whole.scatter, rel=1e-9, abs=1e-6)
    assert cut.variance == pytest.approx(values.astype(float).var(axis=0), rel=1e-9)
    same(cut, values.astype(float))
