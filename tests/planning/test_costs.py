from __future__ import annotations

from dataclasses import replace

from zonal.planning.costs import Costs

COSTS = Costs(
    zones_read=158_093,
    zones=148_683,
    dropped={"all water": 8_272, "over 25 km2": 1_138},
    tiles=44,
    chunks=1_234,
    units=310,
    parts=15,
    bytes_to_fetch=49_360_000_000,
    bytes_of_whole_files=112_640_000_000,
    exact=False,
    memory=214_000_000,
)


def test_costs_print_themselves_for_a_person() -> None:
    lines = [line.split("  ") for line in str(COSTS).splitlines()]
    said = {" ".join(line[:-1]).strip(): line[-1].strip() for line in lines}
    assert said["zones in the files"] == "158,093"
    assert said["dropped, all water"] == "8,272"
    assert said["zones to summarise"] == "148,683"
    assert said["to fetch"] == "about 49.4 GB"
    assert said["whole files"] == "about 113 GB"
    assert said["memory a worker thread"] == "about 214 MB"
    assert len({len(line) for line in str(COSTS).splitlines()}) == 1, "one column of figures"


def test_costs_from_headers_are_not_about() -> None:
    text = str(replace(COSTS, exact=True, bytes_to_fetch=999))
    assert "999 B" in text
    assert "about 49" not in text and "about 999" not in text


def test_costs_that_nobody_knows_are_left_out() -> None:
    text = str(replace(COSTS, bytes_to_fetch=None, bytes_of_whole_files=None))
    assert "fetch" not in text
    assert "whole" not in text
