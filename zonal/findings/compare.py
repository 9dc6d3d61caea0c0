"""Two tables by zone id: rows that one of them lacks, and how far their numbers differ.

Knows ids, columns and differences; takes anything that gives Arrow columns, and
knows neither files nor clusters. A few columns are in memory at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from zonal.errors import InputError
from zonal.findings.join import check_unique, comparable, key_columns
from zonal.findings.table import KINDS, Floats, Table, is_number

ALONE = ("pixel_count", "tile_count", "zone_count")
"""Columns that end like a statistic and are none."""

TOGETHER = 8
"""Columns read at once."""

EXAMPLES = 3
"""Ids named where rows are missing."""


@dataclass(frozen=True, slots=True)
class Difference:
    """How far columns of one kind differ over the shared rows.

    Parameters
    ----------
    kind : str
        ``mean``, ``std``, ...; or the name of a single column.
    columns : int
        Columns of that kind.
    values : int
        Pairs of values that both tables have.
    median, largest : float
        Of the absolute difference over all these pairs; NaN where there are none.
    column, zone : str
        Where the largest is; empty where there is no difference.
    null_only_in_a, null_only_in_b : int
        Values that only the other table has; NaN counts as null.
    """

    kind: str
    columns: int
    values: int
    median: float
    largest: float
    column: str
    zone: str
    null_only_in_a: int
    null_only_in_b: int


@dataclass(frozen=True, slots=True)
class Side:
    """What one of the two tables has, and the other has not.

    Parameters
    ----------
    name, zone_id : str
        The table and its id column.
    rows : int
    alone : int
        Rows whose id the other table lacks.
    examples : tuple of str
        The first of these ids.
    columns : tuple of str
        Columns that the other table lacks.
    """

    name: str
    zone_id: str
    rows: int
    alone: int
    examples: tuple[str, ...]
    columns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two tables side by side; prints itself.

    Parameters
    ----------
    a, b : Side
    both : int
        Ids that both have.
    differences : tuple of Difference
        Statistics by kind, then other numeric columns one by one.
    not_compared : tuple of str
        Shared columns that are not numbers, the id left out.
    """

    a: Side
    b: Side
    both: int
    differences: tuple[Difference, ...]
    not_compared: tuple[str, ...]

    def __str__(self) -> str:
        sides = (("A", self.a), ("B", self.b))
        lines = [f"{letter}  {side.name}: {side.rows:,} rows by {side.zone_id}" for letter, side in sides]
        lines += ["", f"{'in both':<12}{self.both:>12,} rows"]
        for letter, side in sides:
            examples = ", ".join(side.examples) + (", ..." if side.alone > len(side.examples) else "")
            lines.append(f"{f'only in {letter}':<12}{side.alone:>12,} rows  {examples}".rstrip())
        if self.differences:
            lines += ["", *_grid(self.differences)]
        for letter, side in sides:
            if side.columns:
                lines.append(f"columns only in {letter}: {_summary(side.columns)}")
        if self.not_compared:
            lines.append(f"not compared, for they are not numbers: {', '.join(self.not_compared)}")
        return "\n".join(lines)


def compare_tables(a: Table, b: Table, on: str | None = None) -> Comparison:
    """Join two tables by id and measure how far they differ.

    Parameters
    ----------
    a, b : Table
    on : str, optional
        Column of the id, or ``COLUMN_OF_A=COLUMN_OF_B``; None for what the tables say.
        Where one id is text and the other a number, leading zeros do not count.

    Raises
    ------
    InputError
        If an id column is missing, holds nulls or an id twice, or no id is in both tables.
    """
    id_a, id_b = key_columns(a, b, on)
    written_a, written_b = a.read([id_a])[id_a], b.read([id_b])[id_b]
    ids_a, ids_b = comparable(written_a, written_b)
    for table, column, ids in ((a, id_a, ids_a), (b, id_b, ids_b)):
        check_unique(ids, f"{table.name}: {column}")
    rows_b = pc.index_in(ids_a, value_set=ids_b)
    rows_a = pc.indices_nonzero(rows_b.is_valid())
    rows_b = rows_b.take(rows_a)
    if not len(rows_a) and len(ids_a) and len(ids_b):
        raise InputError(
            f"no zone is in both: {id_a} of {a.name} is like {ids_a[0].as_py()!r}, "
            f"{id_b} of {b.name} like {ids_b[0].as_py()!r}; name the id columns with --on A_COLUMN=B_COLUMN"
        )
    only_a = written_a.filter(pc.invert(pc.is_in(ids_a, value_set=ids_b)))
    only_b = written_b.filter(pc.invert(pc.is_in(ids_b, value_set=ids_a)))
    in_b = {*b.schema.names} - {id_b}
    shared = [name for name in a.schema.names if name in in_b and name != id_a]
    numeric = [name for name in shared if _number(a.schema, name) and _number(b.schema, name)]
    zones = written_a.take(rows_a)
    differences = [
        _difference(kind, columns, a, b, rows_a, rows_b, zones) for kind, columns in _by_kind(numeric).items()
    ]
    return Comparison(
        _side(a, id_a, len(ids_a), only_a, {*b.schema.names, id_a}),
        _side(b, id_b, len(ids_b), only_b, {*a.schema.names, id_b}),
        len(rows_a),
        tuple(differences),
        tuple(name for name in shared if name not in {*numeric}),
    )


def _side(table: Table, zone_id: str, rows: int, alone: Any, known: set[str]) -> Side:
    examples = tuple(str(value) for value in alone[:EXAMPLES].to_pylist())
    columns = tuple(name for name in table.schema.names if name not in known)
    return Side(table.name, zone_id, rows, len(alone), examples, columns)


# ------------------------------------------------------------------ differences


def _number(schema: pa.Schema, name: str) -> bool:
    return is_number(schema.field(name).type)


def _by_kind(columns: Sequence[str]) -> dict[str, list[str]]:
    """Statistics together, in the order of `KINDS`; others alone, before them."""
    alone: dict[str, list[str]] = {}
    kinds: dict[str, list[str]] = {kind: [] for kind in KINDS}
    for name in columns:
        end = name.rpartition("_")[2]
        if "_" in name and end in kinds and name not in ALONE:
            kinds[end].append(name)
        else:
            alone[name] = [name]
    return alone | {kind: names for kind, names in kinds.items() if names}


def _difference(
    kind: str, columns: Sequence[str], a: Table, b: Table, rows_a: Any, rows_b: Any, zones: Any
) -> Difference:
    largest, column, zone = float("nan"), "", ""
    null_a = null_b = 0
    gaps: list[npt.NDArray[np.float32]] = []
    for name, left, right in _pairs(columns, a, b, rows_a, rows_b):
        no_left, no_right = np.isnan(left), np.isnan(right)
        null_a += int((no_left & ~no_right).sum())
        null_b += int((no_right & ~no_left).sum())
        with np.errstate(invalid="ignore"):
            # Equal infinities do not differ.
            gap = np.where(left == right, 0.0, np.abs(left - right))
        both = ~(no_left | no_right)
        if not both.any():
            continue
        gap[~both] = -1.0
        worst = int(np.argmax(gap))
        if not largest >= gap[worst]:
            largest = float(gap[worst])
            column, zone = (name, str(zones[worst].as_py())) if largest > 0 else ("", "")
        # For the median alone: half the memory, 7 digits.
        gaps.append(gap[both].astype(np.float32))
    together = np.concatenate(gaps) if gaps else np.zeros(0, np.float32)
    median = float(np.median(together, overwrite_input=True)) if len(together) else float("nan")
    return Difference(kind, len(columns), len(together), median, largest, column, zone, null_a, null_b)


def _pairs(
    columns: Sequence[str], a: Table, b: Table, rows_a: Any, rows_b: Any
) -> Iterator[tuple[str, Floats, Floats]]:
    """Give each column's values of the shared rows, null as NaN."""
    for start in range(0, len(columns), TOGETHER):
        names = list(columns[start : start + TOGETHER])
        left, right = a.read(names), b.read(names)
        for name in names:
            yield name, _values(left[name], rows_a), _values(right[name], rows_b)


def _values(column: Any, rows: Any) -> Floats:
    values: Floats = column.take(rows).cast(pa.float64(), safe=False).to_numpy()
    return values


# ------------------------------------------------------------------ printing


def _grid(differences: Sequence[Difference]) -> list[str]:
    lines: list[tuple[str, ...]] = [
        ("|A - B|", "columns", "values", "median", "largest", "where", "null only")
    ]
    for difference in differences:
        nulls = [
            f"{n:,} in {x}"
            for n, x in ((difference.null_only_in_a, "A"), (difference.null_only_in_b, "B"))
            if n
        ]
        where = f"{difference.column} of {difference.zone}" if difference.column else ""
        figures = (
            f"{difference.columns}",
            f"{difference.values:,}",
            _short(difference.median),
            _short(difference.largest),
        )
        lines.append((difference.kind, *figures, where, ", ".join(nulls)))
    if not any(line[-1] for line in lines[1:]):
        lines = [line[:-1] for line in lines]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(
            text.rjust(width) if 1 <= at <= 4 else text.ljust(width)
            for at, (text, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]


def _short(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.3g}"


def _summary(columns: Sequence[str]) -> str:
    """Statistics by kind, others by name."""
    summaries = []
    for kind, names in _by_kind(columns).items():
        summaries.append(names[0] if len(names) == 1 else f"{kind} of {len(names)} bands")
    return ", ".join(summaries)
