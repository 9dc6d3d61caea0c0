"""What is predicted: census variables, columns, and logarithms of them, as numbers.

Knows names of census columns and how each variable is made of them; knows nothing
of features, models or where columns are read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from zonal.errors import InputError
from zonal.findings.table import Floats, is_number
from zonal.text import did_you_mean

LAND = ("ALAND20", "ALAND10", "ALAND")
WATER = ("AWATER20", "AWATER10", "AWATER")
POPULATION = ("POP20", "POP10", "POP100")
HOUSING = ("HOUSING20", "HOUSING10", "HU100")
URBAN = ("UR20", "UR10", "UR")
"""Names of the same census column in several vintages; the first that is there counts."""

CENSUS_COLUMNS = LAND + WATER + POPULATION + HOUSING + URBAN
"""Columns that are never features by themselves."""

_LOGARITHM = re.compile(r"(log|log1p)\((.+)\)")


def _ratio(top: Floats, bottom: Floats) -> Floats:
    """Divide; what has nothing to be divided by is null."""
    ratio: Floats = np.divide(top, bottom, out=np.full(len(top), np.nan), where=bottom > 0)
    return ratio


def _log(values: Floats) -> Floats:
    return np.log(values, out=np.full(len(values), np.nan), where=values > 0)


def _log1p(values: Floats) -> Floats:
    return np.log1p(values, out=np.full(len(values), np.nan), where=values > -1)


def _per_km2(count: Floats, land: Floats) -> Floats:
    return _ratio(count * 1e6, land)


def _same(values: Floats) -> Floats:
    return values


def _water_fraction(water: Floats, land: Floats) -> Floats:
    return _ratio(water, land + water)


Formula = Callable[..., Floats]

CENSUS: dict[str, tuple[tuple[tuple[str, ...], ...], Formula]] = {
    "log_land_area": ((LAND,), _log),
    "urban": ((URBAN,), _same),
    "log_population": ((POPULATION,), _log1p),
    "water_fraction": ((WATER, LAND), _water_fraction),
    "population_density": ((POPULATION, LAND), _per_km2),
    "housing_density": ((HOUSING, LAND), _per_km2),
    "population": ((POPULATION,), _same),
    "housing_units": ((HOUSING,), _same),
}
"""The reference post's variables: their columns' names, and the formula. Areas are m2, densities per km2."""


@dataclass(frozen=True)
class Target:
    """Something to predict.

    Parameters
    ----------
    name : str
    columns : tuple of str
        That it is made of.
    missing : str
        Why it cannot be made; empty where its columns are there.
    formula : callable
        From the columns' numbers, one float64 ndarray[row] each, NaN for null, to its own.
    """

    name: str
    columns: tuple[str, ...]
    missing: str
    formula: Formula

    def made(self, numbers: Callable[[str], Floats]) -> tuple[Floats, str]:
        """Make its values of its columns.

        Returns
        -------
        values : float64 ndarray[row]
            NaN where it is null or not defined.
        reason : str
            Why there is nothing to predict: a column or the target is null in every row, or it never varies;
            else empty.
        """
        inputs = [numbers(column) for column in self.columns]
        values = self.formula(*inputs)
        known = values[np.isfinite(values)]
        total = f"{len(values):,} rows"
        if not len(known):
            empty = [
                name for name, part in zip(self.columns, inputs, strict=True) if not np.isfinite(part).any()
            ]
            return values, f"{empty[0] if empty else self.name} is null in all {total}"
        if np.ptp(known) == 0:
            return values, f"{self.name} is {known[0]:g} in all {len(known):,} rows that have it"
        return values, ""


def find(name: str, columns: Collection[str]) -> Target:
    """Find what a name stands for: a column, a census variable, or ``log()`` or ``log1p()`` of either.

    Raises
    ------
    InputError
        If it stands for nothing.
    """
    if name in columns:
        return Target(name, (name,), "", _same)
    if name in CENSUS:
        sources, formula = CENSUS[name]
        present = [next((column for column in names if column in columns), None) for names in sources]
        absent = [names for names, column in zip(sources, present, strict=True) if column is None]
        missing = f"there is no column {absent[0][0]} (nor {' nor '.join(absent[0][1:])})" if absent else ""
        return Target(name, tuple(column for column in present if column is not None), missing, formula)
    if match := _LOGARITHM.fullmatch(name):
        inner = find(match[2], columns)
        logarithm = _log if match[1] == "log" else _log1p
        return Target(name, inner.columns, inner.missing, lambda *columns: logarithm(inner.formula(*columns)))
    near = did_you_mean(name, [*CENSUS, *columns])
    raise InputError(f"target {name!r}: neither a census variable nor a column{near}")


def numbers(name: str, column: Any) -> Floats:
    """Read a column as numbers, whatever its type.

    Parameters
    ----------
    name : str
        Of a column of urban and rural, ``U`` is 1 and ``R`` is 0.
    column : pyarrow.ChunkedArray[row]

    Returns
    -------
    float64 ndarray[row]
        True is 1; NaN for null, infinity, and text that is no number.
    """
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
    if text and name in URBAN:
        column = pc.index_in(column, value_set=pa.array(["R", "U"], column.type))
    elif text:
        parsed = pd.to_numeric(column.to_pandas(), errors="coerce")
        column = pa.chunked_array([pa.array(parsed.to_numpy(float, na_value=np.nan))])
    elif pa.types.is_boolean(column.type):
        column = column.cast(pa.int8())
    elif not is_number(column.type):
        return np.full(len(column), np.nan)
    values = np.array(column.cast(pa.float64(), safe=False).to_numpy())
    values[np.isinf(values)] = np.nan
    return values


@dataclass(frozen=True)
class Classes:
    """Something to classify.

    Parameters
    ----------
    values : float64 ndarray[row]
        1, 0, or NaN for null.
    positive : str
        What class 1 is.
    reason : str
        Why there is nothing to tell apart; else empty.
    """

    values: Floats
    positive: str
    reason: str


def classes(target: Target, numbers: Callable[[str], Floats], read: Callable[[str], Any]) -> Classes:
    """Make two classes of a target with two values: the greater is class 1.

    Numbers go by value, text by its letters, True is greater than False; ``U`` of urban and rural is 1.

    Parameters
    ----------
    target : Target
    numbers, read : callable
        Give a column as float64 ndarray[row], and as it is.
    """
    if target.missing:
        return Classes(np.empty(0), "", target.missing)
    if target.formula is _same and target.columns[0] not in URBAN:
        column = read(target.columns[0])
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            kinds = sorted(pc.unique(column).drop_null().to_pylist())
            positions = pc.index_in(column, value_set=pa.array(kinds, column.type), skip_nulls=True)
            values = np.array(positions.cast(pa.float64()).to_numpy())
            return Classes(values, kinds[-1] if kinds else "", _not_two(target.name, len(values), kinds))
    values, _ = target.made(numbers)
    known = np.unique(values[np.isfinite(values)])
    positive = f"{known[-1]:g}" if len(known) else ""
    made = np.where(np.isnan(values), np.nan, values == (known[-1] if len(known) else 1))
    if target.columns[0] in URBAN:
        positive = "urban"
    return Classes(made, positive, _not_two(target.name, len(values), known))


def _not_two(name: str, rows: int, kinds: Collection[Any]) -> str:
    if len(kinds) == 2:
        return ""
    if not len(kinds):
        return f"{name} is null in all {rows:,} rows"
    if len(kinds) == 1:
        return f"{name} is the same in all rows that have it"
    return f"{name} has {len(kinds):,} values; expected two"
