from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from zonal.errors import InputError
from zonal.findings.compare import Comparison, Difference, compare_tables
from zonal.io.table.finished import FinishedTable, load_table

IDS = ["053", "011", "002", "100"]


def written(
    folder: Path, name: str, columns: dict[str, Any], zone_id: str | None = "GEOID20"
) -> FinishedTable:
    table = pa.table(columns)
    if zone_id:
        table = table.replace_schema_metadata({"zonal": json.dumps({"zone_id": zone_id})})
    pq.write_table(table, folder / name)
    return load_table(str(folder / name))


def of(comparison: Comparison, kind: str) -> Difference:
    (found,) = [one for one in comparison.differences if one.kind == kind]
    return found


def test_a_table_equals_itself_whatever_the_order_of_its_rows(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random(4)
    a = written(tmp_path, "a.parquet", {"GEOID20": IDS, "A00_mean": values})
    b = written(tmp_path, "b.parquet", {"GEOID20": IDS[::-1], "A00_mean": values[::-1]})
    comparison = compare_tables(a, b)
    assert comparison.both == 4
    assert comparison.a.alone == comparison.b.alone == 0
    assert of(comparison, "mean") == Difference("mean", 1, 4, 0.0, 0.0, "", "", 0, 0)


def test_differences_are_those_that_pandas_finds(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    ids = [f"{n:05d}" for n in range(500)]
    names = [f"A{band:02d}_{stat}" for stat in ("mean", "std") for band in range(20)]
    left = pd.DataFrame(rng.random((500, 40)), columns=names, index=ids)
    right = (left + rng.normal(0, 1e-4, left.shape)).sample(frac=1, random_state=2)[names[::-1]]
    left, right = left.iloc[:450], right.drop(index=ids[:30])
    a = written(tmp_path, "a.parquet", {"GEOID20": left.index.to_list(), **{n: left[n] for n in names}})
    b = written(tmp_path, "b.parquet", {"GEOID20": right.index.to_list(), **{n: right[n] for n in names}})
    comparison = compare_tables(a, b)
    both = ids[30:450]
    gap = (left.loc[both] - right.loc[both, names]).abs()
    assert comparison.both == len(both)
    assert (comparison.a.alone, comparison.b.alone) == (30, 50)
    assert comparison.a.examples == tuple(ids[:3])
    for stat in ("mean", "std"):
        some = gap[[name for name in names if name.endswith(stat)]]
        found = of(comparison, stat)
        assert found.columns == 20
        assert found.values == some.size
        assert found.largest == some.to_numpy().max()
        assert found.median == pytest.approx(np.median(some), rel=1e-6)
        assert some.loc[found.zone, found.column] == found.largest


def test_an_id_that_is_a_number_meets_one_that_is_text_with_leading_zeros(tmp_path: Path) -> None:
    a = written(tmp_path, "a.parquet", {"GEOID20": IDS, "A00_mean": [1.0, 2.0, 3.0, 4.0]})
    b = written(tmp_path, "b.parquet", {"block": [2, 53, 100], "A00_mean": [3.0, 1.5, 4.0]}, None)
    comparison = compare_tables(a, b, on="GEOID20=block")
    assert comparison.both == 3
    assert of(comparison, "mean").zone == "053"
    assert comparison.a.examples == ("011",)
    (tmp_path / "b.csv").write_text("block,A00_mean\n2,3\n53,1.5\n100,4\n")
    assert compare_tables(a, load_table(str(tmp_path / "b.csv")), on="GEOID20=block").both == 3


def test_ids_that_are_both_text_are_compared_letter_by_letter(tmp_path: Path) -> None:
    a = written(tmp_path, "a.parquet", {"GEOID20": ["01", "2"]})
    b = written(tmp_path, "b.parquet", {"GEOID20": ["1", "2"]})
    assert compare_tables(a, b).both == 1


def test_nulls_and_nans_in_one_table_only_are_counted(tmp_path: Path) -> None:
    a = written(tmp_path, "a.parquet", {"GEOID20": IDS, "A00_std": [1.0, None, float("nan"), None]})
    b = written(tmp_path, "b.parquet", {"GEOID20": IDS, "A00_std": [None, 2.0, 3.0, None]})
    found = of(compare_tables(a, b), "std")
    assert (found.values, found.null_only_in_a, found.null_only_in_b) == (0, 2, 1)
    assert np.isnan(found.largest)


def test_a_published_table_with_fewer_columns_is_compared_on_those(tmp_path: Path) -> None:
    a = written(
        tmp_path,
        "a.parquet",
        {
            "GEOID20": IDS,
            "POP20": [1, 2, 3, 4],
            "pixel_count": [1.0] * 4,
            **{f"A{band:02d}_{stat}": [0.0] * 4 for stat in ("mean", "std") for band in range(4)},
        },
    )
    b = written(tmp_path, "b.parquet", {"GEOID20": IDS, "A01_mean": [0.0, 0.5, 0.0, 0.0], "who": ["x"] * 4})
    comparison = compare_tables(a, b)
    assert [one.kind for one in comparison.differences] == ["mean"]
    text = str(comparison)
    assert "columns only in A: POP20, pixel_count, mean of 3 bands, std of 4 bands" in text
    assert "columns only in B: who" in text
    assert "A01_mean of 011" in text


def test_counts_of_pixels_are_no_statistic_of_a_band(tmp_path: Path) -> None:
    columns = {"GEOID20": IDS, "pixel_count": [1.0] * 4, "A00_count": [1.0] * 4, "A01_count": [1.0] * 4}
    a, b = (written(tmp_path, name, columns) for name in ("a.parquet", "b.parquet"))
    assert [(one.kind, one.columns) for one in compare_tables(a, b).differences] == [
        ("pixel_count", 1),
        ("count", 2),
    ]


def test_tables_without_a_common_zone_show_what_their_ids_look_like(tmp_path: Path) -> None:
    a = written(tmp_path, "a.parquet", {"GEOID20": ["53033"]})
    b = written(tmp_path, "b.parquet", {"GEOID20": ["US53033"]})
    with pytest.raises(InputError, match=r"no zone is in both.*'53033'.*'US53033'.*--on"):
        compare_tables(a, b)


def test_an_id_that_comes_twice_or_not_at_all_is_an_error(tmp_path: Path) -> None:
    good = written(tmp_path, "good.parquet", {"GEOID20": IDS})
    twice = written(tmp_path, "twice.parquet", {"GEOID20": ["1", "1", "2"]})
    with pytest.raises(InputError, match=r"twice.parquet: GEOID20: 1 ids occur more than once, e.g. '1'"):
        compare_tables(good, twice)
    null = written(tmp_path, "null.parquet", {"GEOID20": ["1", None]})
    with pytest.raises(InputError, match="1 rows have no id"):
        compare_tables(good, null)
    other = written(tmp_path, "other.parquet", {"block": IDS}, None)
    with pytest.raises(InputError, match=r"no column 'GEOID20' for the id \(it has block.*--on"):
        compare_tables(good, other)
    with pytest.raises(InputError, match=r"neither .* says which column is the id: use --on"):
        compare_tables(other, other)
