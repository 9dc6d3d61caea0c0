from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import oracles
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.model_selection import GroupKFold

from zonal.errors import InputError
from zonal.findings.evaluation.folds import (
    Places,
    cells,
    group_folds,
    random_folds,
    stratified_folds,
    to_metres,
)
from zonal.findings.join import Joined
from zonal.io.table.finished import load_table


def places(
    folder: Path, by: str = "auto", block_km: float | None = None, **columns: Any
) -> tuple[Places, int]:
    pq.write_table(pa.table(columns), folder / "t.parquet")
    table = load_table(str(folder / "t.parquet"))
    return Places.of(Joined(table), np.ones(table.rows, bool), by, block_km), table.rows


def ids(sizes: list[int], digits: int = 15) -> list[str]:
    """Census ids of counties with so many rows."""
    return [f"53{county:03d}".ljust(digits, "0") for county, size in enumerate(sizes, 1) for _ in range(size)]


def test_random_folds_are_scikit_learns() -> None:
    for labels, cv in (
        (random_folds(53, 5, 7).labels, oracles.shuffled(53, 5, 7)),
        (
            stratified_folds(np.arange(53) % 3 // 2, 4, 1).labels,
            oracles.stratified((np.arange(53) % 3 // 2).astype(float), 4, 1),
        ),
    ):
        for fold, (_, test) in enumerate(cv):
            assert np.array_equal(np.flatnonzero(labels == fold), test)


def test_fewer_rows_than_folds_make_no_folds() -> None:
    deal = random_folds(3, 5, 0)
    assert not deal.possible and deal.about.skipped == "3 rows for 5 folds"
    assert (
        stratified_folds(np.array([0] * 9 + [1] * 2), 3, 0).about.skipped == "2 rows of one class for 3 folds"
    )


@given(st.lists(st.integers(-1, 12), min_size=1, max_size=80), st.integers(2, 6))
def test_groups_are_whole_and_folds_as_equal_as_scikit_learns(groups: list[int], folds: int) -> None:
    codes = np.array(groups)
    labels = group_folds(codes, folds)
    assert all(len(set(labels[codes == group])) == 1 for group in set(groups))
    assert np.array_equal(labels < 0, codes < 0)
    known = codes[codes >= 0]
    if len(set(known)) >= folds:
        loads = [len(test) for _, test in GroupKFold(folds).split(known, groups=known)]
        assert sorted(np.bincount(labels[labels >= 0], minlength=folds)) == sorted(loads)


@pytest.mark.parametrize("digits", [15, 12, 11, 5])
def test_counties_come_from_columns_or_from_census_ids(tmp_path: Path, digits: int) -> None:
    sizes = [4, 3, 5, 4, 4, 6]
    found, rows = places(tmp_path, "county", GEOID=ids(sizes, digits))
    expected = oracles.dealt(np.repeat(np.arange(6), sizes).tolist(), 3)
    assert np.array_equal(found.deal(np.ones(rows, bool), 3).labels, expected)


def test_auto_takes_counties_where_they_are_many_and_alike_and_else_a_grid(tmp_path: Path) -> None:
    def chosen(sizes: list[int], folds: int) -> tuple[str | None, int | None]:
        rows = sum(sizes)
        where = {"longitude": np.linspace(-122, -120, rows), "latitude": np.linspace(46, 48, rows)}
        found, _ = places(tmp_path, GEOID20=ids(sizes), **where)
        about = found.deal(np.ones(rows, bool), folds).about
        return about.by, about.groups

    assert chosen([20] * 8, 5) == ("county", 8)
    assert chosen([20] * 4, 5)[0] == "grid"
    assert chosen([100] + [5] * 12, 5)[0] == "grid"


def test_the_grid_is_halved_until_there_are_enough_cells(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for degrees, size in ((2.0, 10.0), (0.2, 5.0), (0.05, 1.25)):
        where = {"longitude": 10 + degrees * rng.random(400), "latitude": degrees * rng.random(400)}
        found, rows = places(tmp_path, **where)
        about = found.deal(np.ones(rows, bool), 5).about
        assert about.block_km == size and about.groups is not None and about.groups >= 20
    found, rows = places(tmp_path, longitude=[10.0] * 50, latitude=[1.0] * 50)
    deal = found.deal(np.ones(rows, bool), 5)
    assert not deal.possible and deal.about.skipped == "rows lie in fewer than 20 cells of 0.31 km"


def test_cells_of_a_grid_have_equal_areas_wherever_they_are() -> None:
    import pyproj

    for latitude in (0.0, 47.0, 65.0):
        corner = to_metres(np.array([[10.0, latitude]]))[0]
        square = corner + np.array([[0, 0], [20_000, 0], [20_000, 20_000], [0, 20_000]])
        back = pyproj.Transformer.from_crs("EPSG:6933", "EPSG:4326", always_xy=True)
        area, _ = pyproj.Geod(ellps="WGS84").polygon_area_perimeter(*back.transform(*square.T))
        assert abs(area) == pytest.approx(400e6, rel=1e-3)
    labels = cells(np.array([[0.0, 0.0], [9_999, 9_999], [10_000, 0], [-1, 0], [np.nan, 0]]), 10)
    assert labels[0] == labels[1] and len(set(labels[:4])) == 3 and labels[4] == -1


def test_rows_without_a_place_are_in_no_fold(tmp_path: Path) -> None:
    found, rows = places(tmp_path, "zone", zone=["a", "b", None, "c", "a", None])
    deal = found.deal(np.ones(rows, bool), 3)
    assert (deal.labels < 0).tolist() == [False, False, True, False, False, True]
    assert deal.about.rows == (2, 1, 1) and deal.about.groups == 3


def test_folds_are_made_of_the_rows_that_a_target_has(tmp_path: Path) -> None:
    found, rows = places(tmp_path, "county", GEOID20=ids([5, 5, 5]))
    few = np.arange(rows) < 10
    assert found.deal(few, 3).about.skipped == "2 groups by county for 3 folds"
    assert found.deal(few, 2).about.rows == (5, 5)


def test_what_a_table_lacks_is_said(tmp_path: Path) -> None:
    for by, says in (
        ("county", "nothing tells a row's county: .* name a column with --spatial, or take a grid"),
        ("grid", "spatial folds by grid take a geometry, or longitude and latitude"),
        ("nme", "expected county, tract, grid or a column; did you mean 'name'"),
    ):
        with pytest.raises(InputError, match=says):
            places(tmp_path, by, name=["a", "b"])
    with pytest.raises(
        InputError, match=r"spatial 'box': this column holds struct<.*>, which names no group"
    ):
        places(tmp_path, "box", box=[{"west": 1}, {"west": 2}])
    found, rows = places(tmp_path, name=["a", "b"])
    reason = found.deal(np.ones(rows, bool), 2).about.skipped
    assert reason == "the table has neither enough counties nor geometry nor longitude and latitude"
