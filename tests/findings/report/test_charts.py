from __future__ import annotations

import numpy as np
import pytest

from zonal.findings.report.charts import (
    BINS,
    LOWEST,
    Scale,
    Scree,
    bar,
    histogram,
    nice_length,
    powers,
    ramp,
    steps,
)


def test_bars_begin_at_zero_wherever_it_is() -> None:
    scale = Scale.of_scores([0.5, -0.3, None])
    assert (scale.low, scale.high) == (-0.5, 1.0)
    above, below = bar(scale, "a", "random", 0.5, 0.25, 0.75), bar(scale, "b", "spatial", -0.25)
    assert above.left == pytest.approx(100 / 3, abs=0.01) and above.width == pytest.approx(100 / 3, abs=0.01)
    assert above.whisker == pytest.approx((50, 100 / 3), abs=0.01)
    assert below.left == pytest.approx(50 / 3, abs=0.01) and below.left + below.width == above.left
    assert below.whisker is None


def test_what_lies_outside_the_axis_stays_inside_the_box() -> None:
    scale = Scale.of_scores([-17.0, 0.9])
    assert scale.low == LOWEST
    one = bar(scale, "a", "spatial", -17.0, -40.0, 2.0)
    assert (one.left, one.left + one.width) == (0.0, scale.zero) and one.whisker == (0.0, 100.0)
    assert bar(scale, "a", "spatial", None).width == 0


def test_a_histogram_counts_every_value_once() -> None:
    values = np.random.default_rng(0).lognormal(size=5_000)
    values[:3] = np.nan, 0.0, -1.0
    one = histogram("x", values, logarithmic=True)
    assert one is not None and one.rows == sum(one.counts) == 4_997
    kept = values[values > 0]
    assert (one.edges[0], one.edges[-1], one.median) == (kept.min(), kept.max(), np.median(kept))
    oracle, _ = np.histogram(np.log(kept), BINS, (np.log(kept.min()), np.log(kept.max())))
    assert np.abs(np.array(one.counts) - oracle).sum() <= 2  # rounding at an edge
    low, high = np.log(kept.min()), np.log(kept.max())
    assert one.median_at == pytest.approx(100 * (np.log(one.median) - low) / (high - low), abs=0.01)


def test_columns_of_a_histogram_stand_on_the_axis_and_the_highest_fills_the_box() -> None:
    one = histogram("x", np.repeat([0.1, 0.9], [1, 4]), ends=(0.0, 1.0))
    assert one is not None
    first, last = one.columns.split("z")[:2]
    assert one.columns.count("M") == 2  # empty columns are not drawn
    assert first == f"M{4 * 100 / BINS:.2f} 100V75.00h{0.86 * 100 / BINS:.2f}V100"
    assert last == f"M{43 * 100 / BINS:.2f} 100V0.00h{0.86 * 100 / BINS:.2f}V100"


def test_values_beyond_the_given_ends_are_in_the_outer_columns() -> None:
    one = histogram("x", np.array([-5.0, 0.5, 9.0]), ends=(0.0, 1.0))
    assert one is not None and one.counts[0] == one.counts[-1] == 1 and sum(one.counts) == 3


@pytest.mark.parametrize("logarithmic", [False, True])
def test_one_value_or_none_has_a_histogram_or_none(logarithmic: bool) -> None:
    one = histogram("x", np.array([3.0, 3.0]), logarithmic=logarithmic)
    assert one is not None and sum(one.counts) == 2
    assert histogram("x", np.array([np.nan]), logarithmic=logarithmic) is None


@pytest.mark.parametrize(
    ("longest", "nice"),
    [(1.0, 1.0), (1.99, 1.0), (2.0, 2.0), (4999.0, 2000.0), (5000.0, 5000.0), (0.07, 0.05)],
)
def test_a_scale_bar_has_a_round_length(longest: float, nice: float) -> None:
    assert nice_length(longest) == pytest.approx(nice)


def test_the_ramp_goes_from_dark_to_bright_and_leaves_nan_out() -> None:
    colours = ramp(np.array([0.0, 0.25, 0.5, 0.75, 1.0, np.nan]))
    assert colours[0].tolist() == [0x44, 0x01, 0x54, 255] and colours[4].tolist() == [0xFD, 0xE7, 0x25, 255]
    light = colours[:5, :3].astype(float) @ (0.2126, 0.7152, 0.0722)
    assert (np.diff(light) > 0).all() and colours[5, 3] == 0


def test_ticks_are_round_few_and_inside_the_axis() -> None:
    rng = np.random.default_rng(0)
    for _ in range(500):
        low = rng.uniform(-100, 100)
        high = low + 10 ** rng.uniform(-3, 4)
        found = steps(low, high)
        assert 2 <= len(found) <= 6 and found == sorted(set(found))
        assert found[0] >= low - 1e-6 and found[-1] <= high * (1 + 1e-9) + 1e-6
        low = 10 ** rng.uniform(-6, 6)
        high = low * 10 ** rng.uniform(0.01, 9)
        found = powers(low, high)
        assert 2 <= len(found) <= 9 and found == sorted(set(found))
        assert low * (1 - 1e-6) <= found[0] and found[-1] <= high * (1 + 1e-6)
    assert steps(0, 1) == [0, 0.5, 1] and steps(-10.2, 7.8) == [-10, -5, 0, 5]
    assert powers(0.4, 4897) == [1, 10, 100, 1000] and powers(3, 60) == [5, 10, 20, 50]


def test_an_axis_of_scores_has_ticks_at_its_quarters() -> None:
    assert Scale(-0.25, 1.0).quarters == ((-0.25, 0), (0, 20), (0.25, 40), (0.5, 60), (0.75, 80), (1, 100))


def test_a_scree_adds_up_and_tells_the_components_in_use_from_the_others() -> None:
    one = Scree((0.5, 0.3, 0.1), 2)
    assert one.rows == ((1, 0.5, 0.5), (2, 0.3, 0.8), (3, 0.1, pytest.approx(0.9)))
    used, others = one.columns
    assert used.count("M") == 2 and others.count("M") == 1 and used.startswith("M5.00 100V50.00h23.33")
    assert one.together == "16.67,50.00 50.00,20.00 83.33,10.00"
