from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from zonal.errors import InputError, UsageError
from zonal.findings.areas.aggregate import Aggregated, aggregate
from zonal.findings.areas.membership import constants, find_areas
from zonal.findings.areas.moments import ColumnRoles, merge
from zonal.io.table.finished import BATCH, FinishedTable, load_table

KINDS = ("mean", "std", "min", "max", "sum", "count")


@dataclass
class Memory:
    """A table in memory, read a few rows at a time."""

    table: pa.Table
    batch: int = 7
    zone_id: str | None = None
    name: str = "town"
    geo: dict[str, Any] | None = None

    @property
    def schema(self) -> pa.Schema:
        return self.table.schema

    @property
    def rows(self) -> int:
        return len(self.table)

    def read(self, columns: Sequence[str]) -> pa.Table:
        return self.table.select(columns)

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        yield from self.table.select(columns).combine_chunks().to_batches(self.batch)


def statistics(values: np.ndarray, weight: np.ndarray, band: str) -> dict[str, float]:
    """What a row says of pixels, by NumPy."""
    values, weight = values[weight > 0], weight[weight > 0]
    if not len(values):
        return {f"{band}_{kind}": 0.0 if kind == "count" else np.nan for kind in KINDS}
    mean = np.average(values, weights=weight)
    found = [
        *(mean, np.sqrt(np.average((values - mean) ** 2, weights=weight))),
        *(values.min(), values.max(), (values * weight).sum(), weight.sum()),
    ]
    return {f"{band}_{kind}": float(value) for kind, value in zip(KINDS, found, strict=True)}


def merged(table: Memory, by: str, sums: Sequence[str] = ()) -> pd.DataFrame:
    areas = find_areas(table, by)
    columns = ColumnRoles.of(table, [areas.column], sums, ours=False)
    found = merge(table, areas, columns)
    data = {"pixel_count": found.pixel_count.value, "zone_count": found.zone_count, **found.statistics}
    return pd.DataFrame(data, index=areas.ids.to_pylist())


@given(
    seed=st.integers(0, 2**32 - 1),
    pixels=st.integers(1, 300),
    rows=st.integers(1, 60),
    areas=st.integers(1, 8),
    batch=st.integers(1, 70),
    offset=st.sampled_from([0.0, 1e6]),
)
def test_pixels_split_at_random_into_rows_merge_to_what_numpy_says_of_all(
    seed: int, pixels: int, rows: int, areas: int, batch: int, offset: float
) -> None:
    rng = np.random.default_rng(seed)
    row_of, area_of = rng.integers(0, rows, pixels), rng.integers(-1, areas, rows)
    weight = rng.choice([0.0, 0.25, 1.0, rng.random()], pixels)
    values = {"red": offset + rng.normal(size=pixels), "heat": rng.normal(size=pixels) * 50}
    valid = {"red": np.ones(pixels, bool), "heat": rng.random(pixels) < 0.7}  # bands differ in nodata

    def of(some: np.ndarray) -> dict[str, Any]:
        found: dict[str, Any] = {"pixel_count": weight[some].sum()}
        for band in values:
            found |= statistics(values[band][some], np.where(valid[band], weight, 0)[some], band)
        return found

    names = [None if area < 0 else f"area {area}" for area in area_of]
    table = pd.DataFrame([{"name": names[row], **of(row_of == row)} for row in range(rows)])
    result = merged(Memory(pa.Table.from_pandas(table, preserve_index=False), batch), "name")
    expected = {
        f"area {area}": {**of(area_of[row_of] == area), "zone_count": (area_of == area).sum()}
        for area in np.unique(area_of[area_of >= 0])
    }
    assert list(result.index) == sorted(expected)
    for name, one in expected.items():
        for column, value in one.items():
            assert result.loc[name, column] == pytest.approx(value, rel=1e-9, abs=1e-6, nan_ok=True), column


def test_values_far_from_zero_keep_their_spread() -> None:
    rng = np.random.default_rng(0)
    values = 1e8 + rng.normal(0, 0.01, 4000)
    parts = values.reshape(100, 40)
    table = pa.table(
        {
            "id": [1] * 100,
            "pixel_count": [40.0] * 100,
            "a_mean": parts.mean(axis=1),
            "a_std": parts.std(axis=1),
        }
    )
    (std,) = merged(Memory(table), "id")["a_std"]
    assert std == pytest.approx(values.std(), rel=1e-5)


def test_rows_without_pixels_or_without_a_mean_count_for_nothing() -> None:
    table = pa.table(
        {
            "id": list("aaaabbc"),
            "pixel_count": [1.0, 3.0, 0.0, None, 0.0, 0.0, 4.0],
            "a_mean": [2.0, 6.0, 77.0, 77.0, None, 77.0, None],
            "a_std": [0.0, 0.0, 77.0, 77.0, None, 77.0, None],
            "a_max": [2.5, 7.0, 77.0, 77.0, None, 77.0, None],
            "a_sum": [2.0, 18.0, 77.0, 77.0, None, 77.0, None],
        }
    )
    found = merged(Memory(table), "id")
    assert found["pixel_count"].to_list() == [4, 0, 4]
    assert found.loc["a", ["a_mean", "a_max", "a_sum"]].to_list() == [5, 7, 20]
    assert found.loc["a", "a_std"] == pytest.approx(np.std([2, 6, 6, 6]))
    assert found.loc[["b", "c"], ["a_mean", "a_std", "a_max", "a_sum"]].isna().all(axis=None)


def test_a_row_with_a_mean_and_no_std_leaves_its_area_without_one() -> None:
    table = pa.table(
        {"id": [1, 1, 2], "pixel_count": [1.0] * 3, "a_mean": [1.0, 3.0, 5.0], "a_std": [0.0, None, 0.5]}
    )
    found = merged(Memory(table), "id")
    assert found["a_mean"].to_list() == [2, 5]
    assert np.isnan(found.loc[1, "a_std"]) and found.loc[2, "a_std"] == 0.5


def test_counts_of_a_band_are_its_weights_with_pixel_count_or_without() -> None:
    columns = {"id": [1, 1], "a_mean": [0.0, 4.0], "a_count": [3.0, 1.0]}
    assert merged(Memory(pa.table(columns)), "id")["a_mean"].to_list() == [1]
    both = merged(Memory(pa.table({**columns, "pixel_count": [9.0, 9.0]})), "id")
    assert both[["a_mean", "a_count", "pixel_count"]].to_numpy().tolist() == [[1, 4, 18]]


def test_nothing_but_ids_is_read_as_a_whole_and_memory_does_not_grow_with_the_rows() -> None:
    bands = [f"A{band:02d}_{kind}" for kind in ("mean", "std") for band in range(8)]

    class Endless(Memory):
        def read(self, columns: Sequence[str]) -> pa.Table:
            assert [*columns] == ["id"]
            return pa.table({"id": np.arange(self.count) % 100})

        def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
            for _ in range(0, self.count, 5000):
                values = rng.random(5000, np.float32)
                yield pa.record_batch(dict.fromkeys(columns, values))

    schema = pa.schema(
        [("id", pa.int64()), ("pixel_count", pa.float64()), *((b, pa.float32()) for b in bands)]
    )
    peaks = []
    for count in (20_000, 400_000):
        rng = np.random.default_rng(0)
        table = Endless(schema.empty_table())
        table.count = count  # type: ignore[attr-defined]
        tracemalloc.start()
        found = merged(table, "id")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert found["zone_count"].sum() == count
    # Beside the areas of the rows (and what sorts them), all is of a batch or of the areas.
    assert peaks[1] - peaks[0] < 400_000 * 8 * 4 < 400_000 * 4 * len(bands)


# ------------------------------------------------------------------ which area a row lies in

BLOCKS = ["080310001011000", "080310001021001", "080310002001000", "080590001001000", "490350001001000"]


@pytest.mark.parametrize(
    ("by", "digits", "ids"),
    [
        ("block-group", 12, ["080310001011", "080310001021", "080310002001", "080590001001", "490350001001"]),
        ("tract", 11, ["08031000101", "08031000102", "08031000200", "08059000100", "49035000100"]),
        ("county", 5, ["08031", "08059", "49035"]),
        ("state", 2, ["08", "49"]),
    ],
)
def test_the_digits_of_census_ids_name_areas(by: str, digits: int, ids: list[str]) -> None:
    as_text = pa.table({"GEOID20": [*BLOCKS[::-1], None]})
    found = find_areas(Memory(as_text, zone_id="GEOID20"), by)
    assert found.column == "GEOID20" and found.ids.to_pylist() == ids
    assert [None if code < 0 else ids[code] for code in found.code] == [b[:digits] for b in BLOCKS[::-1]] + [
        None
    ]
    assert found.left_out == 1
    # As pyarrow reads a CSV file: numbers, the leading zeros gone.
    as_numbers = pa.table({"GEOID10": [int(block) for block in BLOCKS]})
    assert find_areas(Memory(as_numbers), by).ids.to_pylist() == ids
    parts = [(0, 2, "STATEFP20"), (2, 5, "COUNTYFP20"), (5, 11, "TRACTCE20"), (11, 15, "BLOCKCE20")]
    for read in (str, int):
        codes = pa.table({name: [read(block[a:b]) for block in BLOCKS] for a, b, name in parts})
        found = find_areas(Memory(codes, zone_id=None), by)
        assert (found.column, found.ids.to_pylist()) == ("GEOID20", ids)


def test_tables_of_tracts_can_be_made_larger_and_not_smaller() -> None:
    tracts = Memory(pa.table({"fips": [block[:11] for block in BLOCKS]}), zone_id="fips")
    assert find_areas(tracts, "county").ids.to_pylist() == ["08031", "08059", "49035"]
    with pytest.raises(
        InputError, match=r"town: nothing tells a row's block-group: expected census ids of 12"
    ):
        find_areas(tracts, "block-group")


@pytest.mark.parametrize(
    "ids", [["08031000100", "080310001001"], ["p1"], [8031000100], ["000000001001000"], [1.5], [[1]]]
)
def test_what_are_no_census_ids_is_not_cut_into_some(ids: list[Any]) -> None:
    with pytest.raises(InputError, match="nothing tells a row's state"):
        find_areas(Memory(pa.table({"GEOID": ids}), zone_id="GEOID"), "state")


def test_any_column_of_text_or_whole_numbers_names_areas_as_it_is() -> None:
    texts = pa.array(["010", "002", None, "010"]).dictionary_encode()
    table = Memory(
        pa.table(
            {"plan": texts, "ward": [3, 1, 1, None], "rent": [1.0, 2.0, 3.0, 4.0], "county": list("xyyx")}
        )
    )
    plan, ward, county = (find_areas(table, by) for by in ("plan", "ward", "county"))
    assert (plan.ids.to_pylist(), plan.code.tolist()) == (["002", "010"], [1, 0, -1, 1])
    assert (ward.ids.to_pylist(), ward.code.tolist()) == ([1, 3], [1, 0, 0, -1])
    assert county.ids.to_pylist() == ["x", "y"]  # no census ids here
    with pytest.raises(InputError, match="column 'rent' holds double"):
        find_areas(table, "rent")
    with pytest.raises(UsageError, match=r"--by wards: expected block-group, .*did you mean 'ward'"):
        find_areas(table, "wards")


def test_columns_are_kept_that_say_the_same_of_every_area() -> None:
    table = Memory(
        pa.table(
            {
                "id": [2, None, 1, 2, 1],
                "state": pa.array(["08", "99", "49", "08", "49"]).dictionary_encode(),
                "half": [None, 1, 7, None, 7],
                "urban": ["U", "R", "U", None, "U"],
                "never": pa.nulls(5, pa.int64()),
                "bare": pa.nulls(5),
            }
        ),
        batch=2,
    )
    kept = constants(table, find_areas(table, "id"), ["state", "half", "urban", "never", "bare"])
    assert kept.to_pydict() == {
        "state": ["49", "08"],
        "half": [7, None],
        "never": [None] * 2,
        "bare": [None] * 2,
    }


# ------------------------------------------------------------------ the table

SQUARES = [shapely.box(i % 20, i // 20, i % 20 + 1, i // 20 + 1) for i in range(400)]


def blocks(rows: int = 400, seed: int = 0, **columns: Any) -> gpd.GeoDataFrame:
    """Squares side by side, as a table of zonal: 4 counties, 16 tracts; each ninth has no pixels."""
    rng = np.random.default_rng(seed)
    number = np.arange(rows)
    county, tract = number // 100, number // 25
    ids = [f"08{c:03d}{t:06d}{n:04d}" for c, t, n in zip(county, tract, number, strict=True)]
    count = np.where(number % 9 == 4, 0, 100 * rng.random(rows))
    data = {
        "GEOID20": ids,
        "STATEFP20": "08",
        "COUNTYFP20": [i[2:5] for i in ids],
        "UR20": np.where(number % 2, "U", "R"),
        "POP20": pd.array(rng.integers(0, 100, rows), dtype="Int64"),
        "ALAND20": 2**53 + number,
        "year": np.int32(2024),
        "pixel_count": count,
        "valid_fraction": np.where(count > 0, count / 100, 0.0),
        "tile_count": np.int32(1),
        **{
            f"A00_{kind}": np.where(count > 0, rng.random(rows), np.nan).astype(np.float32)
            for kind in ("mean", "std")
        },
        **columns,
    }
    return gpd.GeoDataFrame(data, geometry=SQUARES[:rows], crs="EPSG:32613")


def table_of(folder: Path, frame: pd.DataFrame, name: str = "stats.parquet") -> FinishedTable:
    if isinstance(frame, gpd.GeoDataFrame):
        frame.to_parquet(folder / name, write_covering_bbox=True)
    else:
        frame.to_parquet(folder / name)
    told = pq.read_table(folder / name)
    about = {"zone_id": "GEOID20", "year": 2024, "sources": ["https://somewhere"]}
    pq.write_table(
        told.replace_schema_metadata({**told.schema.metadata, b"zonal": json.dumps(about)}), folder / name
    )
    return load_table(str(folder / name))


def read(made: Aggregated) -> pd.DataFrame:
    return pd.read_parquet(made.file).set_index("GEOID20", drop=False)


def test_the_table_has_ids_attributes_counts_and_statistics_in_their_order(tmp_path: Path) -> None:
    made = aggregate(table_of(tmp_path, blocks()), "tract")
    assert made.file == tmp_path / "stats-by-tract.parquet"
    assert str(made) == f"{made.file}  16 areas from 400 rows; without UR20, tile_count"
    schema = pq.read_schema(made.file)
    expected = ["GEOID20", "STATEFP20", "COUNTYFP20", "POP20", "ALAND20", "year", "pixel_count"]
    assert schema.names == [*expected, "valid_fraction", "zone_count", "A00_mean", "A00_std"]
    assert [str(schema.field(name).type) for name in ("year", "zone_count", "A00_mean")] == [
        "int32",
        "int64",
        "float",
    ]
    about = json.loads(schema.metadata[b"zonal"])
    assert about == {
        "zone_id": "GEOID20",
        "year": 2024,
        "sources": ["https://somewhere"],
        "schema_version": 1,
        "aggregated_by": "tract",
        "aggregated_from": {"table": "stats.parquet", "rows": 400},
    }
    again = load_table(str(made.file))
    assert again.zone_id == "GEOID20" and again.geo is None
    assert list(read(made).index) == sorted(read(made).index)


def test_amounts_are_added_up_exactly_and_nulls_are_told(tmp_path: Path) -> None:
    frame = blocks(jobs=pd.array([None] * 25 + [1.5] * 375, dtype="Float64"))
    frame.loc[[3, 30, 40], "POP20"] = pd.NA
    made = aggregate(table_of(tmp_path, frame), "tract", sums=["jobs"])
    assert made.warnings == ("POP20: 3 nulls among numbers count as nothing",)
    found = read(made)
    tract = frame["GEOID20"].str[:11]
    assert found["POP20"].to_list() == frame.groupby(tract)["POP20"].sum().to_list()
    # Beyond 2^53 float64 has no odd numbers.
    assert found["ALAND20"].to_list() == [sum(map(int, g)) for _, g in frame.groupby(tract)["ALAND20"]]
    assert found["jobs"].isna().to_list() == [True] + [False] * 15 and found["jobs"].iloc[1] == 37.5


def test_tracts_made_into_counties_equal_counties_made_of_blocks(tmp_path: Path) -> None:
    table = table_of(tmp_path, blocks())
    direct = read(aggregate(table, "county"))
    tracts = aggregate(table, "tract")
    twice = read(aggregate(load_table(str(tracts.file)), "county"))
    assert twice.columns.to_list() == direct.columns.to_list()
    pd.testing.assert_frame_equal(twice, direct, rtol=1e-6)
    assert twice["zone_count"].to_list() == [100] * 4


def test_valid_fraction_counts_the_ground_of_zones_without_pixels(tmp_path: Path) -> None:
    frame = blocks()  # each square has 100 pixels of ground
    frame.loc[:99, ["pixel_count", "valid_fraction"]] = 0.0
    with_shapes = read(aggregate(table_of(tmp_path, frame), "county"))
    expected = frame["pixel_count"].groupby(frame["GEOID20"].str[:5]).sum() / (100 * 100)
    np.testing.assert_allclose(with_shapes["valid_fraction"], expected, rtol=1e-4)
    assert (
        with_shapes["valid_fraction"].iloc[0] == 0
        and with_shapes["A00_mean"].isna().to_list() == [True] + [False] * 3
    )
    without = aggregate(
        table_of(tmp_path, pd.DataFrame(frame.drop(columns="geometry")), "plain.parquet"), "county"
    )
    assert "valid_fraction is null in 3 areas" in str(without)
    assert read(without)["valid_fraction"].isna().to_list() == [False, True, True, True]


def test_polygons_are_united_area_by_area_whatever_the_order_of_the_rows(tmp_path: Path) -> None:
    frame = blocks().sample(frac=1, random_state=1)
    frame.loc[frame.index == 7, "geometry"] = shapely.Polygon()
    made = aggregate(table_of(tmp_path, frame), "tract", dissolve=True)
    found = gpd.read_parquet(made.file).set_index("GEOID20")
    expected = frame.dissolve(frame["GEOID20"].str[:11]).geometry
    assert made.warnings == () and found.crs == frame.crs
    assert (
        found.geometry.is_valid.all() and shapely.equals(found.geometry, expected.reindex(found.index)).all()
    )
    geo = json.loads(pq.read_schema(made.file).metadata[b"geo"])
    assert geo["version"] == "1.1.0" and geo["columns"]["geometry"]["bbox"] == [0, 0, 20, 20]
    np.testing.assert_array_equal(
        pd.json_normalize(pd.read_parquet(made.file)["bbox"].to_list()).to_numpy(), found.geometry.bounds
    )


def test_zones_that_overlap_or_are_invalid_are_united_all_the_same(tmp_path: Path) -> None:
    frame = blocks(50)
    frame.loc[frame.index == 3, "geometry"] = shapely.box(3, 0, 4.5, 1)
    frame["geometry"] = shapely.force_3d(frame.geometry)
    bow = shapely.Polygon([(9, 0), (10, 1), (10, 0), (9, 1)])
    frame.loc[frame.index == 30, "geometry"] = bow
    made = aggregate(table_of(tmp_path, frame), "tract", dissolve=True)
    assert made.warnings == (
        "2 areas have zones that overlap, or borders that do not agree; they were united all the same",
    )
    found = gpd.read_parquet(made.file)
    assert found.geometry.is_valid.all()
    assert found.geometry.area.sum() == pytest.approx(49.5)


def test_rows_without_an_area_are_left_out_and_counted(tmp_path: Path) -> None:
    frame = blocks(ward=pd.array([None] * 10 + [1, 2] * 195, dtype="Int64"))
    made = aggregate(table_of(tmp_path, frame), "ward", dissolve=True)
    assert made.warnings == ("10 rows are left out: they have no ward",) and made.rows == 390
    assert gpd.read_parquet(made.file)["ward"].to_list() == [1, 2]
    about = json.loads(pq.read_schema(made.file).metadata[b"zonal"])
    assert about["zone_id"] == about["aggregated_by"] == "ward"


def test_an_attribute_named_like_a_statistic_is_none_in_a_table_of_zonal(tmp_path: Path) -> None:
    frame = blocks()
    frame.insert(1, "income_mean", np.arange(400.0))
    made = aggregate(table_of(tmp_path, frame), "tract")
    assert "income_mean" in made.left_out


def test_a_csv_file_of_someone_else_works(tmp_path: Path) -> None:
    rows = "GEOID10,pixel_count,B1_mean\n010010201001000,1,0\n010010201001001,3,4\n010010202001000,2,5\n"
    (tmp_path / "their.csv").write_text(rows)
    made = aggregate(load_table(str(tmp_path / "their.csv")), "tract")
    assert made.file.name == "their-by-tract.parquet"
    found = pq.read_table(made.file).to_pydict()
    assert found == {
        "GEOID10": ["01001020100", "01001020200"],
        "pixel_count": [4, 2],
        "zone_count": [2, 1],
        "B1_mean": [3, 5],
    }


def test_a_file_that_is_there_stays_unless_told_otherwise(tmp_path: Path) -> None:
    table = table_of(tmp_path, blocks())
    made = aggregate(table, "tract")
    before = made.file.read_bytes()
    with pytest.raises(UsageError, match=r"stats-by-tract\.parquet exists; .*--overwrite"):
        aggregate(table, "tract")
    assert aggregate(table, "tract", overwrite=True).file.read_bytes() == before
    with pytest.raises(UsageError, match=r"is the table itself|a part of the table"):
        aggregate(table, "tract", Path(table.place), overwrite=True)
    with pytest.raises(UsageError, match="would be taken for a part of the table"):
        aggregate(load_table(str(tmp_path)), "tract", tmp_path / "b.parquet")
    with pytest.raises(UsageError, match=r"expected a name that ends in \.parquet"):
        aggregate(table, "tract", tmp_path / "b.csv")
    assert {path.name for path in tmp_path.iterdir()} == {"stats.parquet", "stats-by-tract.parquet"}


@pytest.mark.parametrize(
    ("less", "more", "asked", "error", "sentence"),
    [
        ("", {}, {"dissolve": True}, InputError, "has no geometry .* nothing to dissolve"),
        ("A00_mean", {}, {}, InputError, "A00_std cannot be merged without A00_mean"),
        ("pixel_count", {}, {}, InputError, "without weights; .* pixel_count or A00_count"),
        ("A00_mean A00_std", {}, {}, InputError, "no column is a statistic"),
        ("", {"pixel_count": -1.0}, {}, InputError, "pixel_count holds -1, which is no count"),
        ("", {"GEOID20": None, "STATEFP20": None}, {}, InputError, "nothing tells a row's tract"),
        (
            "",
            {"ward": pd.array([None] * 400, "Int64")},
            {"by": "ward"},
            InputError,
            "no row has a value in ward",
        ),
        ("", {}, {"by": "tile_count"}, UsageError, "--by tile_count: this column is no name of areas"),
        ("", {}, {"by": "A00_mean"}, InputError, "column 'A00_mean' holds float"),
        ("", {}, {"sums": ["POP2O"]}, UsageError, "--sum POP2O: .* did you mean 'POP20'"),
        ("", {}, {"sums": ["UR20"]}, UsageError, "--sum UR20: it holds .*string, expected numbers"),
        ("", {}, {"sums": ["A00_std"]}, UsageError, "--sum A00_std: this column is merged"),
        (
            "",
            {"big": np.full(400, 2**64 - 1, np.uint64)},
            {"sums": ["big"]},
            InputError,
            "big cannot be added up",
        ),
    ],
)
def test_what_cannot_be_done_is_one_sentence_and_leaves_nothing(
    tmp_path: Path,
    less: str,
    more: dict[str, Any],
    asked: dict[str, Any],
    error: type[Exception],
    sentence: str,
) -> None:
    frame = blocks(**more).drop(columns=["geometry", *less.split()])
    table = table_of(tmp_path, pd.DataFrame(frame))
    with pytest.raises(error, match=sentence):
        aggregate(table, **{"by": "tract", **asked})
    assert [path.name for path in tmp_path.iterdir()] == ["stats.parquet"]


def test_a_table_of_no_rows_gives_one_of_no_areas(tmp_path: Path) -> None:
    made = aggregate(table_of(tmp_path, blocks().iloc[:0]), "tract", dissolve=True)
    assert made.areas == 0 and len(gpd.read_parquet(made.file)) == 0


def test_more_rows_than_a_batch_give_what_pandas_gives(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    rows = 2 * BATCH + 11
    frame = pd.DataFrame({"GEOID20": [f"x{n}" for n in range(rows)], "ward": rng.integers(0, 900, rows)})
    frame["pixel_count"] = rng.random(rows) * 9
    frame["A00_mean"] = rng.normal(size=rows).astype(np.float32)
    made = aggregate(table_of(tmp_path, frame), "ward")
    weighted = (frame["pixel_count"] * frame["A00_mean"].astype(float)).groupby(frame["ward"]).sum()
    expected = weighted / frame.groupby("ward")["pixel_count"].sum()
    found = pd.read_parquet(made.file).set_index("ward")
    np.testing.assert_allclose(found["A00_mean"], expected, atol=1e-6)
