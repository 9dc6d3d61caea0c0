from __future__ import annotations

import pytest

from zonal.cli.words import spread


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("run --raster a.tif b.tif --year 2020", "run --raster a.tif --raster b.tif --year 2020"),
        ("run --state WA OR --quiet", "run --state WA --state OR --quiet"),
        ("run washington-2020 --county 033 061", "run washington-2020 --county 033 --county 061"),
        ("run --state WA seattle-bellevue", "run --state WA seattle-bellevue"),
        ("run --raster a.tif my.yaml --fresh", "run --raster a.tif my.yaml --fresh"),
        ("run --raster a.tif --raster b.tif c.tif", "run --raster a.tif --raster b.tif --raster c.tif"),
        ("run --bbox -122.4 47.4 -122 47.7 demo", "run --bbox -122.4 47.4 -122 47.7 demo"),
        ("export out/wa --to csv", "export out/wa --to csv"),
        ("catalog check --state WI census_blocks_2020", "catalog check --state WI census_blocks_2020"),
        ("plan --state WA OR", "plan --state WA --state OR"),
        ("run -- --state a b", "run -- --state a b"),
    ],
)
def test_options_of_several_values_take_them_one_after_the_other(words: str, expected: str) -> None:
    assert spread(words.split()) == expected.split()
