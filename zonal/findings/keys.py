"""Key columns of two tables: which they are, whether they are keys, and how they meet.

Knows ids as text and as numbers; takes anything that gives Arrow columns, and
knows neither files nor what is joined.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from zonal.errors import InputError
from zonal.findings.rows import Rows, is_number


def key_columns(a: Rows, b: Rows, on: str | None) -> tuple[str, str]:
    """Name the key column of each of two tables.

    Parameters
    ----------
    a, b : Rows
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
        said = a.zone_id or b.zone_id
        if said is None:
            raise InputError(f"neither {a.name} nor {b.name} says which column is the id: use --on COLUMN")
        left, right = a.zone_id or said, b.zone_id or said
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
    if pa.types.is_floating(ids.type):  # whole numbers with a null among them, as pandas writes them
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
