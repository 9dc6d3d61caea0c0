"""A hash of what a table holds: the same however its rows are grouped and compressed.

Knows Arrow's stream format; knows no file and no column.
"""

from __future__ import annotations

import hashlib
import io
from typing import Any

import pyarrow as pa


def digest(table: pa.Table) -> str:
    """SHA-256 of a table's content as Arrow's stream format has it."""
    sink = _Sha256()
    with pa.ipc.new_stream(pa.PythonFile(sink, "w"), table.schema) as out:
        out.write_table(table.combine_chunks())
    return sink.sha.hexdigest()


class _Sha256(io.RawIOBase):
    """A file that keeps nothing of what is written but its hash."""

    def __init__(self) -> None:
        self.sha = hashlib.sha256()

    def writable(self) -> bool:
        """Say yes."""
        return True

    def write(self, data: Any) -> int:
        """Hash some bytes."""
        self.sha.update(data)
        return len(data)
