from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from zonal.errors import InputError
from zonal.findings.features import feature_names, read_features
from zonal.io.table.finished import FinishedTable, load_table


def table(folder: Path, **columns: object) -> FinishedTable:
    pq.write_table(pa.table(columns), folder / "t.parquet")
    return load_table(str(folder / "t.parquet"))


def test_statistics_are_features_and_counts_and_attributes_are_not(tmp_path: Path) -> None:
    names = ("POP20", "pixel_count", "valid_fraction", "A00_mean", "A00_count", "A00_std", "name_max")
    found = table(tmp_path, **{name: [1.0] for name in names}, text_mean=["x"])
    assert feature_names(found) == ("A00_mean", "A00_std", "name_max")
    assert feature_names(found, exclude={"name_max"}) == ("A00_mean", "A00_std")


def test_bands_are_features_where_there_are_no_statistics_and_any_fractions_else(tmp_path: Path) -> None:
    assert feature_names(table(tmp_path, A00=[0.1], B1=[0.2], year=[2024], other=[0.3])) == ("A00", "B1")
    plain = table(tmp_path, id=[1], green=[0.1], blue=[0.2], valid_fraction=[1.0])
    assert feature_names(plain, exclude={"blue"}) == ("green",)
    with pytest.raises(InputError, match="no column looks like a feature; name some with --features"):
        feature_names(table(tmp_path, id=[1], name=["x"]))


def test_patterns_give_columns_in_their_order_each_once(tmp_path: Path) -> None:
    found = table(tmp_path, A00_mean=[1.0], A01_mean=[1.0], A00_std=[1.0])
    assert feature_names(found, ["A*_std", "A01_mean", "A*_mean"]) == ("A00_std", "A01_mean", "A00_mean")
    with pytest.raises(InputError, match="like the feature 'A02_mean'; did you mean 'A01_mean'"):
        feature_names(found, ["A02_mean"])


def test_rows_without_a_feature_are_left_out(tmp_path: Path) -> None:
    found = table(
        tmp_path, a=[1.0, None, 3.0, float("nan"), 5.0], b=[1, 2, 3, 4, None], c=[0.5] * 4 + [np.inf]
    )
    features = read_features(found, ["a", "b", "c"])
    assert features.kept.tolist() == [True, False, True, False, False]
    assert features.values.dtype == np.float32
    assert features.values.tolist() == [[1.0, 1.0, 0.5], [3.0, 3.0, 0.5]]
