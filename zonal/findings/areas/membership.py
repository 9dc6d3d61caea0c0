"""Which larger area each row of a table lies in: by the digits of census ids, or by any column.

Knows how census ids are built, and groups of equal values; knows nothing of
statistics or geometry.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from zonal.errors import InputError, UsageError
from zonal.findings.table import Table
from zonal.text import did_you_mean

Ints = npt.NDArray[np.intp]

LEVELS = {"block-group": 12, "tract": 11, "county": 5, "state": 2}
"""Areas of the census, and how many digits of an id name one."""

BLOCK = 15
"""Digits of a block's id."""

VINTAGES = ("20", "10", "")
"""Ends of the names of census columns, in the order in which they are looked for."""

PARTS = (("STATEFP", 2), ("COUNTYFP", 3), ("TRACTCE", 6), ("BLOCKCE", 4))
"""Columns that make up an id, and the digits of each."""


@dataclass(frozen=True, slots=True)
class Groups:
    """Some rows of a batch, put together by area.

    Parameters
    ----------
    rows : intp ndarray[row]
        Numbers of the rows, those of one area side by side and in their own order.
    starts : intp ndarray[group]
        Where the groups begin among `rows`.
    area : intp ndarray[group]
        Number of each group's area; rising.
    """

    rows: Ints
    starts: Ints
    area: Ints

    @classmethod
    def of(cls, code: npt.NDArray[np.int32]) -> Groups:
        """Of the rows of a batch, by the area of each; -1 is in none."""
        rows = np.argsort(code, kind="stable")
        rows = rows[np.searchsorted(code[rows], 0) :]
        starts = np.flatnonzero(np.diff(code[rows], prepend=-1))
        return cls(rows, starts, code[rows][starts].astype(np.intp))

    def reduce(self, ufunc: np.ufunc, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Reduce an ndarray[row of the batch] to an ndarray[group]."""
        return np.asarray(ufunc.reduceat(values[self.rows], self.starts))

    def spread(self, values: npt.NDArray[Any], rows: int) -> npt.NDArray[Any]:
        """Give each row of the batch its group's value; 0 to rows of none."""
        result = np.zeros(rows, values.dtype)
        result[self.rows] = np.repeat(values, np.diff(self.starts, append=len(self.rows)))
        return result


@dataclass(frozen=True, slots=True)
class Areas:
    """The areas of a table's rows.

    Parameters
    ----------
    column : str
        Name for the areas' ids.
    ids : pyarrow.Array[area]
        Different from each other, rising.
    code : int32 ndarray[row]
        Number of each row's area; -1 where it has none.
    """

    column: str
    ids: pa.Array
    code: npt.NDArray[np.int32]

    @classmethod
    def of(cls, column: str, values: pa.ChunkedArray) -> Areas:
        """Of the rows, by a value for each; null is no area."""
        if pa.types.is_null(values.type):
            # Else null is a value.
            values = values.cast(pa.string())
        coded = _plain(values.combine_chunks()).dictionary_encode()
        order = pc.sort_indices(coded.dictionary).to_numpy()
        rank = np.empty(len(order) + 1, np.int32)
        rank[order], rank[-1] = np.arange(len(order)), -1
        return cls(column, coded.dictionary.take(order), rank[coded.indices.fill_null(len(order)).to_numpy()])

    @property
    def sizes(self) -> npt.NDArray[np.int64]:
        """Rows of each area."""
        return np.bincount(self.code[self.code >= 0], minlength=len(self.ids)).astype(np.int64)

    @property
    def left_out(self) -> int:
        """Rows that lie in no area."""
        return int((self.code < 0).sum())

    def batches(
        self, table: Table, columns: Sequence[str]
    ) -> Iterator[tuple[npt.NDArray[np.int32], pa.RecordBatch]]:
        """Read some columns of the table, some rows at a time, each batch with the areas of its rows."""
        start = 0
        for batch in table.batches(columns):
            yield self.code[start : start + len(batch)], batch
            start += len(batch)


def find_areas(table: Table, by: str) -> Areas:
    """Find the area of each row.

    Parameters
    ----------
    table : Table
    by : str
        One of `LEVELS`, told from census ids: of the table's id column, of a column ``GEOID20``,
        ``GEOID10`` or ``GEOID``, or put together from ``STATEFP20``, ``COUNTYFP20``, ...; or any column of
        text, whole numbers or dates (also one named like a level, where there are no census ids).

    Raises
    ------
    UsageError
        If there is no such column.
    InputError
        If no column tells the level, or the column cannot name areas.
    """
    if by in LEVELS and (areas := _by_level(table, LEVELS[by])) is not None:
        return areas
    if by in table.schema.names:
        kind = table.schema.field(by).type
        if pa.types.is_floating(kind) or pa.types.is_binary(kind) or pa.types.is_nested(kind):
            raise InputError(
                f"{table.name}: column {by!r} holds {kind}, and areas are named by text or whole numbers"
            )
        return Areas.of(by, table.read([by])[by])
    if by in LEVELS:
        raise InputError(
            f"{table.name}: nothing tells a row's {by}: expected census ids of {LEVELS[by]} digits or more, "
            f"as text, in {table.zone_id or 'GEOID20'}, or codes in STATEFP20, COUNTYFP20, ...; "
            "or give --by a column that names areas"
        )
    raise UsageError(
        f"--by {by}: expected {', '.join(LEVELS)} or a column of {table.name}"
        f"{did_you_mean(by, [*LEVELS, *table.schema.names])}"
    )


def _by_level(table: Table, digits: int) -> Areas | None:
    own = [] if table.zone_id is None else [table.zone_id]
    for name in dict.fromkeys([*own, *(f"GEOID{vintage}" for vintage in VINTAGES)]):
        if name in table.schema.names:
            ids = _digits(table.read([name])[name], BLOCK)
            if ids is not None and _are_ids(ids, digits):
                return Areas.of(name, pc.utf8_slice_codeunits(ids, 0, digits))
    for vintage in VINTAGES:
        ends = np.cumsum([0, *(width for _, width in PARTS)])
        parts = [
            (name + vintage, width) for (name, width), end in zip(PARTS, ends, strict=False) if end < digits
        ]
        if {name for name, _ in parts} <= {*table.schema.names}:
            columns = table.read([name for name, _ in parts])
            texts = [_digits(columns[name], width) for name, width in parts]
            if None not in texts:
                ids = pc.binary_join_element_wise(*texts, "")
                if _are_ids(ids, digits):
                    return Areas.of(f"GEOID{vintage}", pc.utf8_slice_codeunits(ids, 0, digits))
    return None


def _digits(values: pa.ChunkedArray, width: int) -> pa.ChunkedArray | None:
    """Codes as text; whole numbers, which a CSV file makes of them, get their leading zeros back."""
    kind = values.type.value_type if pa.types.is_dictionary(values.type) else values.type
    if pa.types.is_integer(kind):
        return pc.utf8_lpad(values.cast(kind).cast(pa.string()), width, "0")
    return values.cast(pa.string()) if pa.types.is_string(kind) or pa.types.is_large_string(kind) else None


def _are_ids(ids: pa.ChunkedArray, digits: int) -> bool:
    """Whether all are census ids of one level, which tells areas of so many digits."""
    lengths = pc.unique(pc.utf8_length(ids.drop_null())).to_pylist()
    if len(lengths) > 1 or any(n < digits or n not in (BLOCK, *LEVELS.values()) for n in lengths):
        return False
    # No state is 00: such ids were shorter numbers.
    return bool(pc.all(pc.match_substring_regex(ids, r"^(0[1-9]|[1-9]\d)\d*$"), min_count=0).as_py())


def constants(table: Table, areas: Areas, names: Sequence[str]) -> pa.Table:
    """Read the columns that have one value in all rows of an area, whichever it is.

    Null is a value like others. Two passes over the columns, some rows at a time.

    Returns
    -------
    pyarrow.Table[area]
        Of the columns that do so in every area.
    """
    if not names:
        return pa.table({})
    schema = pa.schema([table.schema.field(name) for name in names])
    seen, held, order = np.zeros(len(areas.ids), bool), [schema.empty_table()], [np.empty(0, np.intp)]
    for code, batch in areas.batches(table, names):
        groups = Groups.of(code)
        new = ~seen[groups.area]
        held.append(pa.table(batch.take(groups.rows[groups.starts][new])))
        order.append(groups.area[new])
        seen[groups.area] = True
    firsts = pa.concat_tables(held).take(np.argsort(np.concatenate(order)))
    kept = {name: _plain(firsts[name].combine_chunks()) for name in names}
    for code, batch in areas.batches(table, names):
        inside = code >= 0
        kept = {
            name: first
            for name, first in kept.items()
            if _plain(batch[name]).filter(inside).equals(first.take(code[inside]))
        }
    return pa.table(kept)


def _plain(values: pa.Array) -> pa.Array:
    return values.dictionary_decode() if pa.types.is_dictionary(values.type) else values
