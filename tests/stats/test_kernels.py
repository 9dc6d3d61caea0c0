"""The compiled loops over codes against plain NumPy, and that they are compiled once."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zonal.stats import kernels
from zonal.stats.coverage import Coverage
from zonal.stats.moments import CodeMoments, accumulate
from zonal.stats.preload import preload

Array = npt.NDArray[Any]


def spans_and_edges(rng: np.random.Generator, zones: int, height: int, width: int) -> Coverage:
    """Make up a coverage: runs and single pixels, row by row and zone by zone."""
    spans: list[tuple[int, int, int]] = []
    edges: list[tuple[int, int, float]] = []
    for row in range(height):
        if rng.random() < 0.2:
            continue
        for zone in range(zones):
            cuts = np.sort(rng.integers(0, width + 1, 4))
            spans += [
                (zone, row * width + a, b - a) for a, b in (cuts[:2], cuts[2:]) if b > a and cuts[1] < cuts[2]
            ]
            edges += [
                (zone, row * width + int(x), rng.uniform(1e-9, 1))
                for x in np.flatnonzero(rng.random(width) < 0.2)
            ]
    span, edge = np.array(spans).reshape(-1, 3), np.array(edges).reshape(-1, 3)
    return Coverage(
        zones,
        *(np.ascontiguousarray(column, np.int32) for column in span.T),
        *(np.ascontiguousarray(column, np.int32) for column in edge.T[:2]),
        np.ascontiguousarray(edge[:, 2]),
    )


def reduce(codes: Array, valid: Array, coverage: Coverage) -> CodeMoments:
    slots = np.arange(coverage.zones)
    found = accumulate(
        codes,
        valid,
        coverage,
        zone=slots,
        piece=slots,
        tile=0,
        chunk=0,
        extremes=True,
        kept=np.ones(coverage.zones, bool),
    )
    assert isinstance(found, CodeMoments)
    return found


def expected(codes: Array, valid: Array, coverage: Coverage) -> CodeMoments:
    """Do with NumPy, pixel by pixel, what the kernel does; float sums in the contract's order."""
    bands, zones = codes.shape[0], coverage.zones
    flat, fine = codes.reshape(bands, -1), valid.ravel()
    count, full = np.zeros(zones, np.int64), np.zeros((zones, 2, bands), np.int64)
    weight, edge = np.zeros(zones), np.zeros((zones, 2, bands))
    low, high = np.full((zones, bands), 127, np.int8), np.full((zones, bands), -128, np.int8)
    for zone, start, length in zip(
        coverage.span_zone, coverage.span_start, coverage.span_length, strict=True
    ):
        run = flat[:, start : start + length][:, fine[start : start + length]]
        u = run.astype(np.int64) * np.abs(run.astype(np.int64))
        count[zone] += run.shape[1]
        full[zone] += u.sum(axis=1), (u * u).sum(axis=1)
        low[zone] = np.minimum(low[zone], run.min(axis=1, initial=127))
        high[zone] = np.maximum(high[zone], run.max(axis=1, initial=-128))
    for zone, pixel, w in zip(coverage.edge_zone, coverage.edge_pixel, coverage.edge_weight, strict=True):
        if fine[pixel]:
            q = flat[:, pixel].astype(np.float64)
            v = q * np.abs(q)
            weight[zone] += w
            edge[zone, 0] += w * v
            edge[zone, 1] += w * (v * v)
            low[zone] = np.minimum(low[zone], flat[:, pixel])
            high[zone] = np.maximum(high[zone], flat[:, pixel])
    keys = np.arange(zones), np.zeros(zones, np.int64), np.zeros(zones, np.int64), np.arange(zones)
    return CodeMoments(*keys, count, full, weight, edge, low, high)


def same_bits(a: CodeMoments, b: CodeMoments) -> None:
    for name in ("count", "full", "weight", "edge", "low", "high"):
        ours, theirs = getattr(a, name), getattr(b, name)
        assert ours.dtype == theirs.dtype and ours.shape == theirs.shape, name
        assert ours.tobytes() == theirs.tobytes(), name


@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([1, 2, 3, 7, 8, 9, 63, 64, 65]),
    st.integers(1, 70),
    st.integers(1, 6),
    st.sampled_from([0.0, 0.5, 0.97, 1.0]),
)
def test_sums_of_codes_equal_numpys_to_the_bit(
    seed: int, bands: int, width: int, height: int, share: float
) -> None:
    rng = np.random.default_rng(seed)
    codes = rng.integers(-128, 128, (bands, height, width)).astype(np.int8)
    valid = rng.random((height, width)) < share
    coverage = spans_and_edges(rng, int(rng.integers(1, 5)), height, width)
    same_bits(reduce(codes, valid, coverage), expected(codes, valid, coverage))


@pytest.mark.parametrize("code", [-128, -127, 127])
def test_a_zone_of_a_whole_chunk_of_extreme_codes_does_not_overflow(code: int) -> None:
    side, bands = 1024, 9
    codes = np.full((bands, side, side), code, np.int8)
    starts = np.arange(side, dtype=np.int32) * side
    lengths = np.full(side, side, np.int32)
    none = np.empty(0, np.int32)
    coverage = Coverage(1, np.zeros(side, np.int32), starts, lengths, none, none, np.empty(0))
    found = reduce(codes, np.ones((side, side), bool), coverage)
    u = code * abs(code)
    assert found.count.tolist() == [side * side]
    assert found.full[0].tolist() == [[side * side * u] * bands, [side * side * u * u] * bands]


@pytest.mark.parametrize("width", [16, 13])
def test_codes_in_any_layout_give_the_same_moments_without_another_compilation(width: int) -> None:
    rng = np.random.default_rng(4)
    codes = rng.integers(-127, 128, (5, 6, width)).astype(np.int8)
    valid = np.ones((6, width), bool)
    coverage = spans_and_edges(rng, 3, 6, width)
    plain = reduce(codes, valid, coverage)
    compiled = len(kernels.sum_codes.signatures)
    wide = np.zeros((5, 8, width + 3), np.int8)
    wide[:, 1:7, 2:-1] = codes
    odd = np.frombuffer(b"x" + codes.tobytes(), np.int8, offset=1).reshape(codes.shape)  # and read-only
    for view in (wide[:, 1:7, 2:-1], np.asfortranarray(codes), odd):
        same_bits(reduce(view, valid, coverage), plain)
    sealed = valid.copy()
    sealed.flags.writeable = False
    same_bits(reduce(codes, sealed, coverage), plain)
    assert len(kernels.sum_codes.signatures) == compiled


def test_moments_keep_nothing_of_the_chunk() -> None:
    rng = np.random.default_rng(6)
    codes = rng.integers(-127, 128, (4, 5, 16)).astype(np.int8)
    valid = rng.random((5, 16)) < 0.9
    found = reduce(codes, valid, coverage := spans_and_edges(rng, 3, 5, 16))
    before = expected(codes, valid, coverage)
    codes[:], valid[:] = 0, False
    same_bits(found, before)


def test_preloading_leaves_nothing_to_compile_for_codes() -> None:
    preload()
    loops = (kernels.sum_codes, kernels.merge_codes, kernels.finish_codes)
    before = [len(loop.signatures) for loop in loops]
    assert all(before)
    rng = np.random.default_rng(7)
    coverage = spans_and_edges(rng, 3, 5, 16)
    codes = rng.integers(-127, 128, (4, 5, 16)).astype(np.int8)
    reduce(codes, np.ones((5, 16), bool), coverage).statistics(0, 3, ("mean", "std", "min"))
    assert [len(loop.signatures) for loop in loops] == before
