"""One table, bit for bit, whatever the cluster, the number of workers, the order of tasks, or a resume.

On synthetic tiles of two neighbouring UTM zones, under zones that the seam and many chunks cut.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
import synthetic
from builds import Run
from pyproj import Transformer
from seam import SEAM, Seam, settings
from servers import http_server

from zonal.cluster.connection import connect
from zonal.cluster.runner import Runner, Threads
from zonal.engine.run import run
from zonal.errors import OtherRunError


@pytest.fixture
def mirror(wide_seam: Seam) -> Path:
    return wide_seam.mirror


@pytest.fixture
def reference(wide_seam: Seam) -> Run:
    return wide_seam.reference


class Unplugged(Exception):
    """What ends a run in these tests."""


@dataclass
class Shuffled:
    """Runs the tasks one by one in an order drawn from `seed`; stops once `parts` parts are written.

    Parts are taken in random order, and the tasks before each in random order, so that some
    parts are done long before others. `ran` collects the keys of the tasks that ran.
    """

    seed: int
    parts: float = float("inf")
    ran: list[Any] = field(default_factory=list)
    described: str = "one task after the other, shuffled"

    def run(
        self, graph: dict[Any, Any], keys: Sequence[Any], avoid: Collection[str] = ()
    ) -> Iterator[tuple[Any, Any]]:
        rng = np.random.default_rng(self.seed)
        done: dict[Any, Any] = {}
        written = 0
        for at in rng.permutation(len(keys)):
            if written == self.parts:
                raise Unplugged
            self._compute(keys[at], graph, done, rng)
            written += is_part(keys[at])
            yield keys[at], done[keys[at]]

    def _compute(
        self, key: Any, graph: dict[Any, Any], done: dict[Any, Any], rng: np.random.Generator
    ) -> None:
        if key in done:
            return
        task = graph[key]
        needed = list(dict.fromkeys(references(task, graph)))
        for at in rng.permutation(len(needed)):
            self._compute(needed[at], graph, done, rng)
        self.ran.append(key)
        done[key] = evaluate(task, done)

    def everywhere(self, function: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
        return {"here": function(*arguments)}


def is_part(key: Any) -> bool:
    return isinstance(key, tuple) and str(key[0]).startswith("part-")


def is_key(value: Any) -> bool:
    return isinstance(value, str) or (
        isinstance(value, tuple)
        and len(value) == 2
        and isinstance(value[0], str)
        and isinstance(value[1], int)
    )


def references(task: Any, graph: dict[Any, Any]) -> Iterator[Any]:
    """Keys that a task of Dask's own graph format mentions."""
    if is_key(task) and task in graph:
        yield task
    elif isinstance(task, list) or (isinstance(task, tuple) and task and callable(task[0])):
        for item in task:
            yield from references(item, graph)


def evaluate(task: Any, done: dict[Any, Any]) -> Any:
    if is_key(task) and task in done:
        return done[task]
    if isinstance(task, list):
        return [evaluate(item, done) for item in task]
    if isinstance(task, tuple) and task and callable(task[0]):
        return task[0](*(evaluate(item, done) for item in task[1:]))
    return task


# ------------------------------------------------------------------ the plan is worth the name


def test_the_plan_has_many_parts_and_units_and_two_tiles_in_two_utm_zones(reference: Run) -> None:
    plan, zones = reference.manifest["plan"], reference.manifest["zones"]
    assert plan["parts"] >= 20 and plan["units"] >= 40 and plan["tiles"] == 2
    crss = {tile["crs"] for tile in reference.manifest["fingerprint_of"]["tiles"].values()}
    assert crss == {"EPSG:32610", "EPSG:32611"}
    assert zones["covered"] == zones["kept"] and zones["dropped"]["all water"] > 0
    table = gpd.read_parquet(reference.path)
    straddling = (table.bounds["minx"] < SEAM) & (table.bounds["maxx"] > SEAM)
    assert straddling.sum() >= 15
    assert (table["tile_count"] == np.where(straddling, 2, 1)).all()
    assert table["valid_fraction"].between(0.9, 1 + 1e-9).all(), "a few pixels are nodata"


# ------------------------------------------------------------------ who runs it


@pytest.fixture(scope="module")
def two_workers() -> Iterator[Runner]:
    with connect("local", 2, 1) as runner:
        yield runner


@pytest.mark.parametrize(
    "runner",
    [
        pytest.param(Threads(1), id="1 thread again"),
        pytest.param(Threads(4), id="4 threads"),
        pytest.param(None, id="2 worker processes"),
        pytest.param(Shuffled(1), id="shuffled"),
        pytest.param(Shuffled(2), id="shuffled otherwise"),
    ],
)
def test_the_table_is_bit_identical_whoever_runs_the_tasks(
    mirror: Path,
    reference: Run,
    tmp_path: Path,
    runner: Runner | None,
    request: pytest.FixtureRequest,
) -> None:
    runner = runner or request.getfixturevalue("two_workers")
    (result,) = run(settings(mirror, tmp_path / "out"), runner=runner)
    assert Path(result.table).read_bytes() == reference.bytes
    for same in ("fingerprint", "zones", "plan", "stage_key"):
        assert result.manifest[same] == reference.manifest[same]
    for same in ("fetched", "staged_read"):
        assert result.manifest["bytes"][same] == reference.manifest["bytes"][same]


# ------------------------------------------------------------------ stopped and gone on


@dataclass
class Recorded:
    """Another runner, and the order in which its values came in."""

    runner: Runner
    graph: dict[Any, Any] = field(default_factory=dict)
    came: list[Any] = field(default_factory=list)

    @property
    def described(self) -> str:
        return self.runner.described

    def run(
        self, graph: dict[Any, Any], keys: Sequence[Any], avoid: Collection[str] = ()
    ) -> Iterator[tuple[Any, Any]]:
        self.graph = graph
        for key, value in self.runner.run(graph, keys):
            self.came.append(key)
            yield key, value

    def everywhere(self, function: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
        return self.runner.everywhere(function, *arguments)


def test_a_part_is_written_as_soon_as_its_last_unit_is_in(
    mirror: Path, reference: Run, tmp_path: Path
) -> None:
    with connect("local", 1, 1) as runner:
        recorded = Recorded(runner)
        (result,) = run(settings(mirror, tmp_path), runner=recorded)
    assert Path(result.table).read_bytes() == reference.bytes
    came = {key: at for at, key in enumerate(recorded.came)}
    reports = {number: at for (name, number), at in came.items() if name.startswith("report-")}
    parts = [key for key in recorded.came if is_part(key)]
    assert len(parts) >= 20
    for key in parts:
        shares = [recorded.graph[share] for share in recorded.graph[key][3]]
        last = max(reports[unit] for _, (_, unit), _ in shares)
        later = sum(last < at < came[key] for at in reports.values())
        assert later <= 2, "other units were preferred to a part that could be written"


def test_two_workers_ask_for_each_byte_of_a_tile_once_and_for_its_header_once(
    mirror: Path, two_workers: Runner, tmp_path: Path
) -> None:
    with http_server(mirror) as served:
        (result,) = run(settings(served.url, tmp_path), runner=two_workers)
    of_tile: dict[str, list[tuple[int, int]]] = {}
    for method, path, wanted in served.asked:
        if method == "GET" and path.endswith(".tiff"):
            first, last = map(int, wanted.removeprefix("bytes=").split("-"))
            of_tile.setdefault(path, []).append((first, last))
    assert len(of_tile) == 2
    for asked in of_tile.values():
        asked.sort()
        assert [first for first, _ in asked].count(0) == 1
        # The header's read goes on into the first chunks: how long a header is, only it can tell.
        assert all(last < first for (_, last), (first, _) in pairwise(asked[1:]))
    moved = result.manifest["bytes"]
    assert moved["headers"] + moved["fetched"] == sum(
        last + 1 - first for asked in of_tile.values() for first, last in asked
    )


@pytest.mark.parametrize("parts", [1, 7, 20])
def test_a_run_that_was_stopped_goes_on_with_the_missing_parts_only(
    mirror: Path, reference: Run, tmp_path: Path, parts: int
) -> None:
    given = settings(mirror, tmp_path / "out")
    first = Shuffled(seed=parts, parts=parts)
    with pytest.raises(Unplugged):
        run(given, runner=first)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [".work"], "nothing is published"
    before = {key[1] for key in first.ran if is_part(key)}
    assert len(before) == parts
    second = Shuffled(seed=99)
    (result,) = run(given, runner=second)
    after = {key[1] for key in second.ran if is_part(key)}
    assert not before & after and before | after == set(range(reference.manifest["plan"]["parts"]))
    assert Path(result.table).read_bytes() == reference.bytes
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["manifest.json", "stats.parquet"]


def test_a_run_stopped_three_times_ends_with_the_same_bytes(
    mirror: Path, reference: Run, tmp_path: Path
) -> None:
    given = settings(mirror, tmp_path / "out")
    for stop in (3, 5, 8):
        with pytest.raises(Unplugged):
            run(given, runner=Shuffled(seed=stop, parts=stop))
    last = Shuffled(seed=0)
    (result,) = run(given, runner=last)
    assert sum(map(is_part, last.ran)) == reference.manifest["plan"]["parts"] - 16
    assert Path(result.table).read_bytes() == reference.bytes


def test_a_run_that_goes_on_with_other_parts_does_not_mix_them(
    mirror: Path, reference: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zonal.planning.staging.ROW_GROUP", 10)  # so that parts of many row groups stay small
    given = [settings(mirror, tmp_path / "out", part_zones=zones) for zones in (20, 50)]
    with pytest.raises(Unplugged):
        run(given[0], runner=Shuffled(seed=1, parts=6))
    (result,) = run(given[1], runner=Threads(2))
    assert result.manifest["plan"]["parts"] < 12
    assert pq.read_table(result.table).equals(pq.read_table(reference.path))


def test_a_tile_that_was_replaced_is_read_anew_in_the_same_process(mirror: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    grid = synthetic.utm_grid(32611, 271_000, 5_209_000, 64, 64, 32)
    old, new = (synthetic.random_tile(rng, grid, nodata_fraction=0) for _ in range(2))
    synthetic.make_mirror(tmp_path / "mirror", [old])
    box = Transformer.from_crs(32611, 4269, always_xy=True).transform_bounds(*grid.bounds)
    synthetic.blocks_zip(tmp_path / "mirror", "53", synthetic.jittered_blocks(box, 2, 2, state_fips="53"))
    means = []
    for number, tile in enumerate((old, new)):
        tile.write(tmp_path / "mirror" / old.key())
        (result,) = run(settings(tmp_path / "mirror", tmp_path / f"out{number}"), runner=Threads(2))
        table = gpd.read_parquet(result.table)
        weights = table["pixel_count"].to_numpy()
        means.append((table[[f"A{b:02d}_mean" for b in range(64)]].to_numpy() * weights[:, None]).sum(axis=0))
        means[-1] /= weights.sum()
    for found, tile in zip(means, (old, new), strict=True):
        assert np.abs(found - synthetic.dequantise(tile.data).mean(axis=(1, 2))).max() < 0.01
    assert np.abs(means[0] - means[1]).max() > 0.001


def test_another_run_in_the_same_folder_is_refused_and_harms_nothing(
    mirror: Path, reference: Run, tmp_path: Path
) -> None:
    with pytest.raises(Unplugged):
        run(settings(mirror, tmp_path / "out"), runner=Shuffled(seed=1, parts=4))
    with pytest.raises(
        OtherRunError, match='its coverage is "fractional", this run\'s is "center"'
    ) as caught:
        run(settings(mirror, tmp_path / "out", coverage="center"), runner=Threads(2))
    assert caught.value.exit_code == 6
    rest = Shuffled(seed=2)
    (result,) = run(settings(mirror, tmp_path / "out"), runner=rest)
    assert sum(map(is_part, rest.ran)) == reference.manifest["plan"]["parts"] - 4
    assert Path(result.table).read_bytes() == reference.bytes


# ------------------------------------------------------------------ the grain of the plan


@pytest.mark.parametrize(
    "grain",
    [
        {"part_zones": 10_000, "unit_chunks": 4},
        {"part_zones": 37, "unit_chunks": 5},
        {"part_zones": 20, "unit_chunks": 100, "part_chunks": 2},
    ],
)
def test_other_parts_and_units_give_the_same_numbers_bit_for_bit(
    mirror: Path, reference: Run, tmp_path: Path, grain: dict[str, int]
) -> None:
    (result,) = run(settings(mirror, tmp_path / "out", **grain), runner=Threads(2))
    assert result.manifest["plan"] != reference.manifest["plan"]
    found, expected = pq.read_table(result.table), pq.read_table(reference.path)
    assert found.schema.equals(expected.schema, check_metadata=True)
    assert found.equals(expected)
    assert Path(result.table).read_bytes() == reference.bytes


# ------------------------------------------------------------------ several states, several years


def rows_by_id(table: pa.Table) -> pa.Table:
    return table.sort_by("GEOID20").combine_chunks().replace_schema_metadata(None)


def test_several_states_make_a_dataset_with_the_rows_of_single_runs(
    mirror: Path, reference: Run, tmp_path: Path
) -> None:
    given = settings(mirror, tmp_path / "both", state=["WA", "Oregon"])
    (result,) = run(given, runner=Threads(2))
    root = Path(result.table)
    assert root == tmp_path / "both/stats"
    assert sorted(p.name for p in root.parent.iterdir()) == ["manifest.json", "stats"]
    assert sorted(p.name for p in root.iterdir()) == ["state=OR", "state=WA"]
    files = [str(p.relative_to(root.parent)) for p in sorted(root.rglob("*")) if p.is_file()]
    assert files == sorted(json.loads((tmp_path / "both/manifest.json").read_text())["files"])
    assert all(Path(name).match("stats/state=*/part-*.parquet") for name in files) and len(files) >= 24
    (oregon,) = run(settings(mirror, tmp_path / "or", state="OR"), runner=Threads(2))
    whole = pyarrow.dataset.dataset(root, format="parquet", partitioning="hive").to_table()
    assert set(whole["state"].to_pylist()) == {"OR", "WA"}
    for state, single in (("WA", reference.path), ("OR", oregon.table)):
        mine = whole.filter(pyarrow.dataset.field("state") == state).drop_columns(["state"])
        assert rows_by_id(mine).equals(rows_by_id(pq.read_table(single)))
    frame = gpd.read_parquet(root)
    assert len(frame) == len(whole) and frame.crs == "EPSG:4269"
    assert set(frame["state"]) == {"OR", "WA"} and frame.geometry.is_valid.all()
    part = gpd.read_parquet(root.parent / files[0])
    assert len(part) and part.crs == "EPSG:4269"


def test_several_years_are_sibling_outputs_over_one_stage(
    mirror: Path, reference: Run, tmp_path: Path
) -> None:
    told: list[str] = []
    given = settings(mirror, tmp_path / "wa", year="2023,2024")
    results = run(given, runner=Threads(2), notify=lambda event: told.append(event.message))
    assert [Path(r.output).name for r in results] == ["wa-2023", "wa-2024"]
    assert sum(message.startswith("staging ") for message in told) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["wa-2023", "wa-2024"]
    earlier, later = (pq.read_table(r.table) for r in results)
    assert Path(results[1].table).read_bytes() == reference.bytes
    assert earlier["GEOID20"].equals(later["GEOID20"])
    assert set(earlier["year"].to_pylist()) == {2023}
    assert not earlier["A00_mean"].equals(later["A00_mean"])
    (alone,) = run(settings(mirror, tmp_path / "alone", year=2023), runner=Threads(2))
    assert Path(alone.table).read_bytes() == Path(results[0].table).read_bytes()
    assert not any(result.fresh for result in run(given, runner=Threads(2)))


# ------------------------------------------------------------------ the helper itself


def test_shuffled_runs_each_task_once_in_an_order_of_its_own() -> None:
    counter = count()
    graph: dict[Any, Any] = {"a": 5, ("b", 0): (lambda x: (next(counter), x + 1)[1], "a")}
    graph |= {("c", n): (sum, [("b", 0), "a", n]) for n in range(4)}
    orders = []
    for seed in (1, 2):
        runner = Shuffled(seed)
        keys = [("c", n) for n in range(4)]
        assert dict(runner.run(graph, keys)) == {("c", n): 11 + n for n in range(4)}
        assert len(runner.ran) == len(set(runner.ran)) == 6
        orders.append(runner.ran)
    assert orders[0] != orders[1] and next(counter) == 2
