"""A store over HTTP that fails one request in five: the right table to the last byte, or a resumable stop."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
from faults import ANY, BODY, FLIP, HTTP, RANGE, TILE, Faults, faulty_http
from processes import zonal_run
from seam import Seam, goes_on, is_right, settings, some_written, workflow, written
from servers import http_server

from zonal.cluster.runner import Threads
from zonal.engine.run import run

LOCAL = ("--workers", 2, "--threads", 4, "--stall", 0.5)

Note = Callable[[str, object], None]


def test_the_plan_has_many_parts_and_units_and_several_ranges_a_chunk(seam: Seam, tmp_path: Path) -> None:
    plan = seam.reference.manifest["plan"]
    assert plan["parts"] >= 20 and plan["units"] >= 40 and plan["tiles"] == 2
    tiles = seam.reference.manifest["fingerprint_of"]["tiles"].values()
    assert {tile["crs"] for tile in tiles} == {"EPSG:32610", "EPSG:32611"}
    with http_server(seam.mirror) as server:
        plain = Faults(0, seam.mirror, rate=0)
        run(settings(server.url, tmp_path / "out"), runner=Threads(2))
        spans = {span for method, path, span in server.asked if path.endswith(".tiff") and span}
    assert len(spans) > 5 * plan["chunks"]
    assert {*plain.blocks} == {path for _, path, _ in server.asked if path.endswith(".tiff")}


def test_one_request_in_five_fails_and_the_table_is_right_to_the_last_byte(
    seam: Seam, tmp_path: Path, fault_seed: int, record_property: Note
) -> None:
    faults = Faults(fault_seed, seam.mirror, stall=1.5)
    with faulty_http(faults) as server:
        words = [workflow(tmp_path, server.url), "--output", "out", *LOCAL]
        with zonal_run(*words, folder=tmp_path) as driver:
            assert driver.ended() == 0, driver.said
    assert is_right(seam, tmp_path / "out")
    assert {*faults.injected} == {*ANY, *BODY, *RANGE, *HTTP, TILE}, "every kind of fault was there"
    assert faults.injected.total() > 0.15 * faults.attempts.total()
    assert max(faults.attempts.values()) > 2, "some failed again and again"
    record_property("faults", faults.injected.total())


def test_flipped_bits_are_found_by_reading_twice(
    seam: Seam, tmp_path: Path, flip_seed: int, record_property: Note
) -> None:
    faults = Faults(flip_seed, seam.mirror, flips=True, stall=1.5)
    with faulty_http(faults) as server:
        words = [workflow(tmp_path, server.url, verify="twice"), "--output", "out", *LOCAL]
        with zonal_run(*words, folder=tmp_path) as driver:
            assert driver.ended() == 0, driver.said
    assert is_right(seam, tmp_path / "out")
    assert faults.injected[FLIP] > 0.05 * faults.attempts.total()
    record_property("faults", faults.injected.total())


def test_a_flipped_bit_cannot_be_seen_in_one_read(seam: Seam, tmp_path: Path) -> None:
    faults = Faults(0, seam.mirror, flips=True, kinds=(FLIP,))
    with faulty_http(faults) as server:
        (result,) = run(settings(server.url, tmp_path / "out"), runner=Threads(2))
    assert faults.injected[FLIP] > 20
    assert Path(result.table).read_bytes() != seam.reference.bytes, "so the flips of these tests are real"
    assert result.manifest["zones"] == seam.reference.manifest["zones"]


def test_what_goes_wrong_is_drawn_from_the_seed_for_each_range_and_attempt(seam: Seam) -> None:
    def drawn(seed: int, order: list[int]) -> dict[int, list[str]]:
        faults = Faults(seed, seam.mirror)
        found: dict[int, list[str]] = {at: [] for at in order}
        for at in order:
            found[at].append(faults.draw("GET", "x.tiff", (at, at + 9), ANY)[0])
        return found

    forwards = [at for at in range(50) for _ in range(5)]
    backwards = [at for _ in range(5) for at in reversed(range(50))]
    assert drawn(1, forwards) == drawn(1, backwards) != drawn(2, forwards)
    kinds = [kind for of_range in drawn(1, forwards).values() for kind in of_range]
    assert 0.1 < np.mean([kind != "" for kind in kinds]) < 0.3


def test_a_range_that_never_comes_stops_the_run_by_name_and_the_same_command_goes_on(
    seam: Seam, tmp_path: Path
) -> None:
    draw = random.Random(4)
    faults = Faults(0, seam.mirror, rate=0)
    key = sorted(faults.blocks)[0]
    blocks = faults.blocks[key]
    faults.broken = (key, int(blocks.offsets[draw.randrange(len(blocks.offsets))]))
    with faulty_http(faults) as server:
        words = [workflow(tmp_path, server.url, attempts=3), "--output", "out", *LOCAL]
        with zonal_run(*words, folder=tmp_path) as driver:
            assert driver.ended() == 4, driver.said
        for word in (key, "chunk ", f"bytes {faults.broken[1] // 10**6}", "HTTP 503", "3 attempts"):
            assert word in driver.sentence
        assert "the same command goes on where it stopped" in driver.sentence
        assert len(written(tmp_path / "out")) > seam.parts / 2, "all parts but those of one chunk are kept"
        assert faults.injected["503"] >= 6, "tried again elsewhere"
        faults.mend()
        assert goes_on(seam, server.url, tmp_path / "out")


def test_a_server_that_vanishes_stops_the_run_and_the_same_command_goes_on_when_it_is_back(
    seam: Seam, tmp_path: Path
) -> None:
    with http_server(seam.mirror, latency=0.1) as server:
        port = int(server.url.rsplit(":", 1)[1])
        words = [workflow(tmp_path, server.url, attempts=3), "--output", "out", *LOCAL]
        with zonal_run(*words, "--quiet", folder=tmp_path) as driver:
            some_written(tmp_path / "out", 5, driver)
            server.stop()
            assert driver.ended() == 4, driver.said
    assert ".tiff" in driver.sentence and "3 attempts" in driver.sentence
    assert "the same command goes on where it stopped" in driver.sentence
    with http_server(seam.mirror, port=port) as server:
        assert goes_on(seam, server.url, tmp_path / "out")
