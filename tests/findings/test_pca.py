"""Principal components and colours, against scikit-learn and NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from zonal.errors import InputError
from zonal.findings.gram import Gram
from zonal.findings.pca import Components, Stretch, components_of


def correlated(rows: int, columns: int, seed: int = 0) -> np.ndarray:
    """Columns of very different sizes that share a few causes: float32 ndarray[row, column]."""
    rng = np.random.default_rng(seed)
    causes = rng.standard_normal((rows, 4)) @ rng.standard_normal((4, columns))
    noise = rng.standard_normal((rows, columns))
    return ((causes + noise) * rng.lognormal(0, 1, columns) + rng.normal(0, 3, columns)).astype(np.float32)


def found(values: np.ndarray, *, standardize: bool = True, components: int | None = None) -> Components:
    names = [f"f{number}" for number in range(values.shape[1])]
    return components_of(Gram.of(values), names, standardize=standardize, components=components)


def by_sklearn(values: np.ndarray, *, standardize: bool) -> tuple[PCA, np.ndarray]:
    """What scikit-learn finds, each sign such that the largest loading is positive; and the scores."""
    exact = values.astype(float)
    scaled = StandardScaler().fit_transform(exact) if standardize else exact
    pca = PCA(svd_solver="full").fit(scaled)
    largest = np.take_along_axis(pca.components_, np.abs(pca.components_).argmax(axis=1)[:, None], axis=1)
    pca.components_ *= np.sign(largest)
    return pca, pca.transform(scaled)


@pytest.mark.parametrize("standardize", [True, False])
@pytest.mark.parametrize(("rows", "columns"), [(400, 12), (200_000, 5), (3, 3)])
def test_components_are_those_of_sklearn(standardize: bool, rows: int, columns: int) -> None:
    values = correlated(rows, columns)
    components = found(values, standardize=standardize)
    pca, scores = by_sklearn(values, standardize=standardize)
    kept = len(components.loadings)
    assert kept == min(columns, rows - 1)
    np.testing.assert_allclose(components.loadings, pca.components_[:kept], atol=1e-7)
    np.testing.assert_allclose(components.variance, pca.explained_variance_[:kept], rtol=1e-8)
    np.testing.assert_allclose(components.explained, pca.explained_variance_ratio_[:kept], rtol=1e-8)
    np.testing.assert_allclose(components.scores(values), scores[:, :kept], atol=1e-5)


def test_the_largest_loading_of_each_component_is_positive() -> None:
    for seed in range(20):
        loadings = found(correlated(50, 7, seed)).loadings
        assert (loadings[np.arange(len(loadings)), np.abs(loadings).argmax(axis=1)] > 0).all()


def test_all_features_with_the_other_sign_give_the_same_loadings_and_scores_with_the_other_sign() -> None:
    values = correlated(80, 5)
    one, other = found(values), found(-values)
    np.testing.assert_allclose(one.loadings, other.loadings, atol=1e-12)
    np.testing.assert_allclose(one.scores(values), -other.scores(-values), atol=1e-9)


def test_asking_for_some_components_gives_the_first_of_all() -> None:
    values = correlated(60, 6)
    some, whole = found(values, components=3), found(values)
    assert len(some.loadings) == 3
    np.testing.assert_array_equal(some.loadings, whole.loadings[:3])
    np.testing.assert_array_equal(some.explained, whole.explained[:3])


def test_a_feature_that_does_not_vary_counts_for_nothing() -> None:
    values = correlated(100, 4)
    with_constant = np.insert(values, 2, np.float32(0.1), axis=1)
    components = found(with_constant)
    pca, _ = by_sklearn(values, standardize=True)
    np.testing.assert_allclose(components.loadings[:4, 2], 0, atol=1e-12)
    np.testing.assert_allclose(components.loadings[:4, [0, 1, 3, 4]], pca.components_, atol=1e-9)
    np.testing.assert_allclose(components.explained, [*pca.explained_variance_ratio_, 0], atol=1e-12)


def test_one_feature_gives_one_component() -> None:
    values = correlated(30, 1)
    components = found(values)
    assert components.loadings.tolist() == [[1.0]] and components.explained.tolist() == [1.0]
    np.testing.assert_allclose(components.scores(values), StandardScaler().fit_transform(values), atol=1e-5)


def test_two_rows_give_one_component() -> None:
    assert len(found(correlated(2, 6)).loadings) == 1


@pytest.mark.parametrize("rows", [0, 1])
def test_fewer_than_two_rows_are_an_error(rows: int) -> None:
    with pytest.raises(InputError, match=f"need two zones with statistics; there are {rows}"):
        found(correlated(5, 3)[:rows])


def test_features_that_are_all_constant_are_an_error() -> None:
    with pytest.raises(InputError, match="none of the 3 features varies"):
        found(np.full((10, 3), 0.3, np.float32))


# ------------------------------------------------------------------ colours


def test_percentiles_become_black_and_white() -> None:
    scores = np.random.default_rng(0).standard_normal((1000, 4))
    stretch = Stretch.of(scores, (2, 98))
    low, high = np.percentile(scores[:, :3], [2, 98], axis=0)
    expected = np.rint(255 * ((scores[:, :3] - low) / (high - low)).clip(0, 1)).astype(np.uint8)
    np.testing.assert_array_equal(stretch.colours(scores), expected)
    assert ((expected == 0).sum(axis=0) >= 20).all() and ((expected == 255).sum(axis=0) >= 20).all()


def test_one_component_is_grey_and_of_two_there_is_no_blue() -> None:
    scores = np.array([[0.0, 4.0], [1.0, 2.0], [2.0, 0.0]])
    assert Stretch.of(scores[:, :1], (0, 100)).colours(scores[:, :1]).tolist() == [
        [0, 0, 0], [128, 128, 128], [255, 255, 255],
    ]  # fmt: skip
    assert Stretch.of(scores, (0, 100)).colours(scores).tolist() == [[0, 255, 0], [128, 128, 0], [255, 0, 0]]


def test_scores_that_are_all_one_number_are_black() -> None:
    scores = np.full((5, 3), 0.25)
    assert (Stretch.of(scores, (2, 98)).colours(scores) == 0).all()
