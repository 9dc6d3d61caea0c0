"""Two tables by key: which columns are the keys, how they meet, and one table with the other's columns.

Knows ids as text and as numbers, and how many of them meet; takes anything that gives
Arrow columns, and knows neither files nor what columns mean.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from zonal.errors import InputError
from zonal.findings.evaluation.schema import Attributes
from zonal.findings.table import Table, is_number


def key_columns(a: Table, b: Table, on: str | None) -> tuple[str, str]:
    """Name the key column of each of two tables.

    Parameters
    ----------
    a, b : Table
    on : str, optional
        Column that both have, or ``COLUMN_OF_A=COLUMN_OF_B``; None for what the tables say.

    Raises
    ------
    InputError
        If a table has no such column, or neither says which is the id.
    """
    if on is not None:
        whole = on in a.schema.names and on in b.schema.names
        left, _, right = (on, "", on) if whole or "=" not in on else on.partition("=")
    else:
        # What one table says holds for the other too, if it has that column and says nothing itself.
        zone_id = a.zone_id or b.zone_id
        if zone_id is None:
            raise InputError(f"neither {a.name} nor {b.name} says which column is the id: use --on COLUMN")
        left, right = a.zone_id or zone_id, b.zone_id or zone_id
    for table, column in ((a, left), (b, right)):
        if column not in table.schema.names:
            have = ", ".join(table.schema.names[:8])
            raise InputError(
                f"{table.name}: no column {column!r} for the id (it has {have}, ...); "
                "name the id columns with --on A_COLUMN=B_COLUMN"
            )
    return left, right


def comparable(a: Any, b: Any) -> tuple[Any, Any]:
    """Give keys one type: as they are if both are text or whole numbers, else text without leading zeros.

    Raises
    ------
    InputError
        If keys are neither text nor whole numbers.
    """
    if pa.types.is_integer(a.type) and pa.types.is_integer(b.type):
        return tuple(ids.cast(pa.int64()).combine_chunks() for ids in (a, b))
    left, right = _text(a), _text(b)
    if is_number(a.type) or is_number(b.type):
        left, right = (pc.utf8_ltrim(ids, "0") for ids in (left, right))
    return left.combine_chunks(), right.combine_chunks()


def _text(ids: Any) -> Any:
    # Whole numbers with a null among them, as pandas writes them.
    if pa.types.is_floating(ids.type):
        try:
            ids = ids.cast(pa.int64())
        except pa.ArrowInvalid:
            raise InputError(f"ids must be text or whole numbers, and some are not: {ids[0]}") from None
    try:
        return ids.cast(pa.large_string())
    except pa.ArrowException:
        raise InputError(f"ids must be text or whole numbers; these are of type {ids.type}") from None


def check_unique(ids: Any, what: str) -> None:
    """Raise `InputError` if an id is null or comes twice; `what` names the table and the column."""
    if ids.null_count:
        raise InputError(f"{what}: {ids.null_count:,} rows have no id")
    if pc.count_distinct(ids).as_py() != len(ids):
        counts = pc.value_counts(ids)
        twice = counts.field("values").filter(pc.greater(counts.field("counts"), 1))
        raise InputError(
            f"{what}: {len(twice):,} ids occur more than once, e.g. {str(twice[0])!r}; is it the id?"
        )


@dataclass(frozen=True)
class Joined:
    """The rows of a table, with further columns.

    Parameters
    ----------
    table : Table
    file : Table, optional
        Where the further columns are.
    at : pyarrow.Array, optional
        For each row of the table, its row of the file; null where it has none.
    about : Attributes, optional
        What was joined, and how many rows met.
    """

    table: Table
    file: Table | None = None
    at: Any = None
    about: Attributes | None = None

    @property
    def added(self) -> tuple[str, ...]:
        """Columns of the file, its key left out."""
        return self.about.columns if self.about else ()

    @property
    def numeric(self) -> tuple[str, ...]:
        """Those of them that are numbers."""
        return tuple(n for n in self.added if self.file and is_number(self.file.schema.field(n).type))

    @property
    def names(self) -> tuple[str, ...]:
        """All columns; one that both have comes once."""
        return tuple(dict.fromkeys((*self.table.schema.names, *self.added)))

    def read(self, name: str) -> Any:
        """Read a column, pyarrow.ChunkedArray[row of the table]: the file's where both have it."""
        if self.file is not None and name in self.added:
            return self.file.read([name])[name].take(self.at)
        return self.table.read([name])[name]


def join(table: Table, file: Table, on: str | None = None) -> Joined:
    """Join a file to a table by key: every row of the table stays, once.

    Parameters
    ----------
    table : Table
        Its keys may repeat (blocks that take what is known of their tract) or be null.
    file : Table
        Its keys are unique; a row without one meets nothing.
    on : str, optional
        Key column, or ``COLUMN_OF_TABLE=COLUMN_OF_FILE``; None for the zone id's name. Where one key is text
        and the other a number, leading zeros do not count.

    Raises
    ------
    InputError
        If a key column is missing, the file has a key twice, or no key is in both.
    """
    left, right = key_columns(table, file, on)
    ours, theirs = comparable(table.read([left])[left], file.read([right])[right])
    check_unique(theirs.drop_null(), f"{file.name}: {right}")
    at = pc.index_in(ours, value_set=theirs, skip_nulls=True)
    matched = len(at) - at.null_count
    if not matched:
        examples = [repr(keys[0].as_py()) if len(keys) else "nothing" for keys in (ours, theirs)]
        raise InputError(
            f"{file.name}: no row has a key of {table.name}: its {right} is like {examples[1]}, "
            f"{left} of the table like {examples[0]}; name the key with --on COLUMN_OF_TABLE=COLUMN_OF_FILE"
        )
    columns = tuple(name for name in file.schema.names if name != right)
    met = pc.is_in(theirs, value_set=ours, skip_nulls=True)
    about = Attributes(
        file=file.name,
        on=(left, right),
        columns=columns,
        replaced=tuple(name for name in columns if name in {*table.schema.names}),
        matched=matched,
        table_unmatched=at.null_count,
        file_unmatched=len(theirs) - (pc.sum(met).as_py() or 0),
    )
    return Joined(table, file, at, about)
