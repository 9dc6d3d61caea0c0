from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from zonal.errors import InputError
from zonal.findings.evaluation.targets import CENSUS, classes, find, numbers

BLOCKS: dict[str, Any] = {
    "ALAND20": [1_000_000, 0, 500_000, None],
    "AWATER20": [0, 0, 500_000, 5],
    "POP20": [10, 3, 0, 7],
    "HOUSING20": ["4", "", "x", None],
    "UR20": ["U", "R", None, "C"],
}


def made(name: str, columns: dict[str, Any]) -> tuple[list[float], str]:
    arrays = {column: pa.chunked_array([pa.array(values)]) for column, values in columns.items()}
    values, reason = find(name, [*columns]).made(lambda column: numbers(column, arrays[column]))
    return values.tolist(), reason


def test_census_variables_are_made_as_the_post_defines_them() -> None:
    nan = float("nan")
    for name, expected in {
        "log_land_area": [np.log(1e6), nan, np.log(5e5), nan],
        "urban": [1, 0, nan, nan],
        "log_population": np.log1p([10, 3, 0, 7]),
        "water_fraction": [0, nan, 0.5, nan],
        "population_density": [10, nan, 0, nan],
        "housing_density": [4, nan, nan, nan],
        "population": [10, 3, 0, 7],
        "housing_units": [4, nan, nan, nan],
    }.items():
        assert made(name, BLOCKS)[0] == pytest.approx(expected, nan_ok=True), name
    assert {*CENSUS} == {
        "log_land_area", "urban", "log_population", "water_fraction", "population_density", "housing_density",
        "population", "housing_units",
    }  # fmt: skip


@pytest.mark.parametrize("end", ["20", "10", ""])
def test_columns_of_other_vintages_serve_as_well(end: str) -> None:
    columns = {f"ALAND{end}": [2.0, 4.0], f"AWATER{end}": [2.0, 0.0], f"UR{end}": ["R", "U"]}
    assert made("water_fraction", columns) == ([0.5, 0.0], "")
    assert made("urban", columns) == ([0.0, 1.0], "")


def test_columns_and_their_logarithms_are_targets_and_a_column_comes_first() -> None:
    columns = {"rent": [1.0, 0.0, np.e], "population": [5, 6, 7], "POP20": [1, 1, 1]}
    assert made("log(rent)", columns)[0] == pytest.approx([0, np.nan, 1], nan_ok=True)
    assert made("log1p(rent)", columns)[0] == pytest.approx(np.log1p([1, 0, np.e]))
    assert made("population", columns)[0] == [5, 6, 7]
    assert made("log(population_density)", {"POP20": [1, 2], "ALAND20": [1e6, 2e6]})[0] == [0, 0]
    with pytest.raises(InputError, match=r"target 'log\(rnt\)'|target 'rnt'.*did you mean 'rent'"):
        find("log(rnt)", [*columns])


def test_a_target_without_numbers_says_why() -> None:
    assert find("population", ["ALAND20"]).missing == "there is no column POP20 (nor POP10 nor POP100)"
    assert made("housing_density", {"ALAND20": [1, 2], "HOUSING20": pa.nulls(2)})[1] == (
        "HOUSING20 is null in all 2 rows"
    )
    assert made("log_land_area", {"ALAND20": [0, 0]})[1] == "log_land_area is null in all 2 rows"
    assert made("rent", {"rent": [3, None, 3]})[1] == "rent is 3 in all 2 rows that have it"
    assert made("rent", {"rent": [b"x", b"y"]})[1] == "rent is null in all 2 rows"


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pa.array([True, None, False]), [1, np.nan, 0]),
        (pa.array(["1.5", " 2 ", "-"]), [1.5, 2, np.nan]),
        (pa.array(["7", "8", "7"]).dictionary_encode(), [7, 8, 7]),
        (pa.array([1, 2, 3], pa.uint8()), [1, 2, 3]),
        (pa.array([np.inf, -np.inf, np.nan]), [np.nan] * 3),
    ],
)
def test_columns_of_any_type_are_read_as_numbers(column: Any, expected: list[float]) -> None:
    assert numbers("x", pa.chunked_array([column])).tolist() == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize(
    ("values", "positive", "ones"),
    [
        (["yes", None, "no", "yes"], "yes", [1, np.nan, 0, 1]),
        ([True, False, None], "1", [1, 0, np.nan]),
        ([10, 2, 2], "10", [1, 0, 0]),
    ],
)
def test_the_greater_of_two_values_is_class_one(values: list[Any], positive: str, ones: list[float]) -> None:
    column = pa.chunked_array([pa.array(values)])
    found = classes(find("x", ["x"]), lambda name: numbers(name, column), lambda name: column)
    assert (found.positive, found.reason) == (positive, "")
    assert found.values.tolist() == pytest.approx(ones, nan_ok=True)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (["a", "b", "c"], "x has 3 values; expected two"),
        ([1, 1, None], "x is the same in all rows that have it"),
        (pa.nulls(3), "x is null in all 3 rows"),
    ],
)
def test_what_is_not_two_values_is_no_pair_of_classes(values: Any, reason: str) -> None:
    column = pa.chunked_array([pa.array(values)])
    found = classes(find("x", ["x"]), lambda name: numbers(name, column), lambda name: column)
    assert found.reason == reason
