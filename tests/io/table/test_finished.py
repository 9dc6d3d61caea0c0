from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from zonal.errors import InputError
from zonal.io.table.finished import load_table


def test_a_table_with_two_columns_of_one_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("id,rent,rent\na,1,2\n")
    with pytest.raises(InputError, match=r"t\.csv: two columns are named 'rent'; rename one"):
        load_table(str(tmp_path / "t.csv"))


def test_types_that_arrow_can_do_little_with_are_read_as_their_plain_twins(tmp_path: Path) -> None:
    values = pa.table(
        {"id": pa.array(["a", None], pa.string_view()), "raw": pa.array([b"x", b"y"], pa.binary_view())}
    )
    pq.write_table(values, tmp_path / "t.parquet")
    table = load_table(str(tmp_path / "t.parquet"))
    assert table.schema.types == [pa.large_string(), pa.large_binary()]
    assert table.read(["id", "raw"]).to_pydict() == values.to_pydict()
    (batch,) = table.batches(["id"])
    assert batch.schema.types == [pa.large_string()] and batch["id"].to_pylist() == ["a", None]


def test_batches_are_of_one_row_group_after_the_other(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": list(range(25_000))}), tmp_path / "t.parquet", row_group_size=15_000)
    batches = list(load_table(str(tmp_path / "t.parquet")).batches(["x"]))
    assert [len(batch) for batch in batches] == [10_000, 5_000, 10_000]
    assert pa.Table.from_batches(batches)["x"].to_pylist() == list(range(25_000))
