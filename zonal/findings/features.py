"""The feature columns of a table, as one matrix.

Knows column names and Arrow columns; knows nothing of what is done with the
numbers. 8.1 million rows of 128 features are 4.2 GB, and nothing else is held.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from zonal.errors import InputError, UnfitError
from zonal.findings.table import Table, is_number
from zonal.text import did_you_mean

STATISTICS = ("mean", "std", "min", "max", "sum")
"""Ends of the names of zonal's statistic columns that say something of a zone, not of its size."""

_BAND = re.compile(r"[A-Za-z]+\d+")


@dataclass(frozen=True, slots=True)
class Features:
    """The rows of a table that have every feature.

    Parameters
    ----------
    names : tuple of str
    values : float32 ndarray[row, feature]
        Finite.
    kept : bool ndarray[row of the table]
        Which rows these are.
    """

    names: tuple[str, ...]
    values: npt.NDArray[np.float32]
    kept: npt.NDArray[np.bool_]


def feature_names(
    table: Table, patterns: Sequence[str] | None = None, exclude: Collection[str] = ()
) -> tuple[str, ...]:
    """Choose the feature columns of a table.

    Parameters
    ----------
    table : Table
    patterns : sequence of str, optional
        Names, or patterns such as ``A*_mean``, in the order wanted. None: the columns named
        ``{band}_mean``, ``_std``, ``_min``, ``_max`` or ``_sum``; else those named as bands are (``A00``,
        ``B1``); else all columns of floating-point numbers.
    exclude : collection of str
        Columns that are no features whatever their names: the id, targets, coordinates.

    Raises
    ------
    InputError
        If a pattern fits no numeric column, or there is no feature at all.
    """
    numeric = [field.name for field in table.schema if is_number(field.type)]
    if patterns is not None:
        chosen: list[str] = []
        for pattern in patterns:
            fitting = [name for name in numeric if name == pattern or fnmatchcase(name, pattern)]
            if not fitting:
                raise InputError(
                    f"{table.name}: no numeric column is like the feature {pattern!r}"
                    f"{did_you_mean(pattern, numeric)}"
                )
            chosen += fitting
        return tuple(dict.fromkeys(chosen))
    free = [name for name in numeric if name not in exclude and name != table.zone_id]
    floating = [name for name in free if pa.types.is_floating(table.schema.field(name).type)]
    for names in (
        [name for name in free if "_" in name and name.rpartition("_")[2] in STATISTICS],
        [name for name in floating if _BAND.fullmatch(name)],
        [name for name in floating if name not in ("pixel_count", "valid_fraction")],
    ):
        if names:
            return tuple(names)
    raise UnfitError(f"{table.name}: no column looks like a feature; name some with --features")


def read_features(table: Table, names: Sequence[str]) -> Features:
    """Read feature columns, a few thousand rows at a time; rows without one of them are left out.

    Null, NaN and infinity all count as missing.
    """
    values = np.empty((table.rows, len(names)), np.float32)
    kept = np.zeros(table.rows, bool)
    filled = start = 0
    for batch in table.batches(list(names)):
        block = np.empty((len(batch), len(names)), np.float32)
        for at, name in enumerate(names):
            block[:, at] = pc.cast(batch[name], pa.float32(), safe=False).to_numpy(zero_copy_only=False)
        whole = np.isfinite(block).all(axis=1)
        kept[start : start + len(batch)] = whole
        count = int(whole.sum())
        values[filled : filled + count] = block[whole]
        filled, start = filled + count, start + len(batch)
    return Features(tuple(names), values[:filled], kept)
