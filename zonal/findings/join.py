"""A table's columns with those of another table beside them, row by row.

Knows keys and how many of them meet; takes anything that gives Arrow columns,
and knows neither files nor what columns mean.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow.compute as pc

from zonal.errors import InputError
from zonal.findings.evaluation.model import Attributes
from zonal.findings.keys import check_unique, comparable, key_columns
from zonal.findings.rows import Rows, is_number


@dataclass(frozen=True)
class Joined:
    """The rows of a table, with further columns.

    Parameters
    ----------
    table : Rows
    file : Rows, optional
        Where the further columns are.
    at : pyarrow.Array, optional
        For each row of the table, its row of the file; null where it has none.
    about : Attributes, optional
        What was joined, and how many rows met.
    """

    table: Rows
    file: Rows | None = None
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


def join(table: Rows, file: Rows, on: str | None = None) -> Joined:
    """Join a file to a table by key: every row of the table stays, once.

    Parameters
    ----------
    table : Rows
        Its keys may repeat (blocks that take what is known of their tract) or be null.
    file : Rows
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
