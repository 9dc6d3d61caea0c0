"""Moments against NumPy's weighted statistics, cut and merged in any way."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from synthetic import aef_codes

from zonal.geo.antimeridian import polygonal
from zonal.geo.grid import Grid
from zonal.stats.coverage import Coverage, cover
from zonal.stats.moments import (
    AEF_SCALE,
    STATISTICS,
    CodeMoments,
    Statistics,
    ValueMoments,
    accumulate,
    concat,
    dequantise,
    nothing,
)

ALL = tuple(STATISTICS)

Array = npt.NDArray[Any]


def grid_of(width: int, height: int, chunk_width: int = 0, chunk_height: int = 0) -> Grid:
    return Grid("EPSG:32616", 0.0, 0.0, 1.0, 1.0, width, height, chunk_width or width, chunk_height or height)


def coverage_of(weights: Array) -> Coverage:
    """Make the coverage that has just these weights[zone, y, x]."""
    flat = weights.reshape(len(weights), -1).T  # [pixel, zone]: sorted by pixel, then zone
    full_pixel, full_zone = np.nonzero(flat == 1)
    edge_pixel, edge_zone = np.nonzero((flat > 0) & (flat < 1))
    small = np.int32
    return Coverage(
        len(weights),
        full_zone.astype(small),
        full_pixel.astype(small),
        np.ones(len(full_zone), small),
        edge_zone.astype(small),
        edge_pixel.astype(small),
        flat[edge_pixel, edge_zone],
    )


def reduce(
    values: Array,
    valid: Array,
    weights: Array,
    *,
    tile: int = 0,
    chunk: int = 0,
    zone: Array | None = None,
) -> CodeMoments | ValueMoments:
    slots = np.arange(len(weights))
    return accumulate(
        values,
        valid,
        coverage_of(weights),
        zone=slots if zone is None else zone,
        piece=slots,
        tile=tile,
        chunk=chunk,
        extremes=True,
    )


def polygons(rng: np.random.Generator, count: int, width: int, height: int) -> Array:
    """Make random stars, some with a hole, some partly outside the raster."""
    found = []
    for _ in range(count):
        angle = np.sort(rng.uniform(0, 2 * np.pi, 9))
        radius = rng.uniform(0.2, 1, 9) * rng.uniform(2, max(width, height) * 0.7)
        centre = rng.uniform(0, [width, height])
        star = shapely.make_valid(
            shapely.Polygon(centre + radius[:, None] * np.c_[np.cos(angle), np.sin(angle)])
        )
        if rng.random() < 0.3:
            star = star.difference(shapely.Point(centre).buffer(radius.min() / 2, quad_segs=3))
        found.append(star)
    return np.array(found, dtype=object)


def draw_chunks(rng: np.random.Generator, width: int, height: int) -> Grid:
    return grid_of(width, height, int(rng.integers(3, width + 1)), int(rng.integers(3, height + 1)))


def reduce_in_chunks(
    values: Array, valid: Array, geometry: Array, zone: Array, grid: Grid, tiles: int = 1
) -> list[Any]:
    """Reduce a raster chunk by chunk; chunks are dealt out to `tiles` tiles."""
    found = []
    for number in range(grid.chunk_count):
        part = grid.chunk(number)
        row, col = grid.chunk_offset(number)
        window = np.s_[..., row : row + part.height, col : col + part.width]
        found.append(
            accumulate(
                values[window],
                valid[window],
                cover(geometry, part),
                zone=zone,
                piece=np.arange(len(geometry)),
                tile=number % tiles,
                chunk=number,
                extremes=True,
            )
        )
    return found


def same_bits(a: Statistics, b: Statistics) -> bool:
    pairs = [(a.pixel_count, b.pixel_count), (a.tile_count, b.tile_count)]
    pairs += [(a.columns[name], b.columns[name]) for name in a.columns]
    if a.band_count is not None:
        pairs.append((a.band_count, b.band_count))
    return all(x.tobytes() == y.tobytes() for x, y in pairs)


def assert_close(a: Statistics, b: Statistics, tolerance: float = 1e-9) -> None:
    np.testing.assert_allclose(a.pixel_count, b.pixel_count, rtol=0, atol=tolerance)
    for name in a.columns:
        scale = np.maximum(1, np.abs(np.nan_to_num(b.columns[name])))
        # Where the spread is next to nothing, a root makes 1e-8 of a rounding error of 1e-16.
        slack = np.where((name == "std") & (b.columns[name] < 1e-3), 1e-7, tolerance)
        difference = np.abs(a.columns[name] - b.columns[name])
        assert (np.isnan(a.columns[name]) == np.isnan(b.columns[name])).all(), name
        assert (np.nan_to_num(difference) <= slack * scale).all(), (name, np.nanmax(difference))


# ------------------------------------------------------------------ cut anywhere, merged = uncut


@given(st.integers(0, 2**32 - 1))
def test_codes_cut_into_chunks_and_merged_are_exactly_the_uncut_sums(seed: int) -> None:
    rng = np.random.default_rng(seed)
    width, height = rng.integers(6, 30, 2)
    codes = aef_codes(rng, 3, height, width, 0.1)
    valid = codes[0] != -128
    zones = polygons(rng, 6, width, height)
    number = np.arange(len(zones))
    (whole,) = reduce_in_chunks(codes, valid, zones, number, grid_of(width, height))
    cut = concat(
        reduce_in_chunks(
            codes, valid, zones, number, draw_chunks(rng, width, height), int(rng.integers(1, 4))
        )
    )
    for zone in number:
        mine, uncut = cut.zone == zone, whole.zone == zone
        assert cut.count[mine].sum() == whole.count[uncut].sum()
        assert (cut.full[mine].sum(axis=0) == whole.full[uncut].sum(axis=0)).all()
    ours, expected = (m.statistics(0, len(zones), ALL) for m in (cut, whole))
    assert_close(ours, expected)
    for name in ("min", "max"):
        np.testing.assert_array_equal(ours.columns[name], expected.columns[name])


@given(st.integers(0, 2**32 - 1))
def test_zones_cut_by_lines_and_chunks_and_merged_equal_the_uncut_zones(seed: int) -> None:
    rng = np.random.default_rng(seed)
    width, height = rng.integers(8, 26, 2)
    codes = aef_codes(rng, 2, height, width, 0.1)
    valid = codes[0] != -128
    zones = polygons(rng, 5, width, height)
    (whole,) = reduce_in_chunks(codes, valid, zones, np.arange(5), grid_of(width, height))
    geometry, zone = list(zones), list(range(5))
    for _ in range(3):
        at, turn = rng.uniform(0, [width, height]), rng.uniform(0, 2 * np.pi)
        along, across = np.array([np.cos(turn), np.sin(turn)]), np.array([-np.sin(turn), np.cos(turn)])
        side = shapely.Polygon(at + 200 * np.array([-along, along, along + across, -along + across]))
        cut = [(polygon.intersection(side), polygon.difference(side)) for polygon in geometry]
        zone = [z for z, halves in zip(zone, cut, strict=True) for half in halves if half.area > 0]
        geometry = [half for halves in cut for half in halves if half.area > 0]
    pieces = np.array([polygonal(half) for half in geometry], dtype=object)
    grid = draw_chunks(rng, width, height)
    ours = concat(reduce_in_chunks(codes, valid, pieces, np.array(zone), grid))
    uncut = whole.statistics(0, 5, ("mean", "std", "sum"))
    merged = ours.statistics(0, 5, ("mean", "std", "sum"))
    # A cut may leave a pixel less than the 1e-9 that counts as nothing: zones of some size bear that.
    big = uncut.pixel_count > 1
    for name in uncut.columns:
        np.testing.assert_allclose(
            merged.columns[name][big],
            uncut.columns[name][big],
            rtol=1e-8,
            atol=1e-7 if name == "std" else 1e-9,
        )
    np.testing.assert_allclose(merged.pixel_count, uncut.pixel_count, rtol=0, atol=1e-7)


@given(st.integers(0, 2**32 - 1))
def test_values_with_nodata_by_band_cut_and_merged_equal_the_uncut_zones(seed: int) -> None:
    rng = np.random.default_rng(seed)
    width, height = rng.integers(6, 30, 2)
    values = rng.normal(rng.uniform(-1e3, 1e3), 3, (3, height, width))
    valid = rng.random((3, height, width)) > 0.3
    zones = polygons(rng, 6, width, height)
    number = np.arange(len(zones))
    (whole,) = reduce_in_chunks(values, valid, zones, number, grid_of(width, height))
    cut = concat(reduce_in_chunks(values, valid, zones, number, draw_chunks(rng, width, height), 2))
    ours, expected = (m.statistics(0, len(zones), ALL) for m in (cut, whole))
    assert_close(ours, expected)
    assert ours.band_count is not None and expected.band_count is not None
    np.testing.assert_allclose(ours.band_count, expected.band_count, rtol=0, atol=1e-9)


@given(st.integers(0, 2**32 - 1), st.booleans())
def test_the_order_in_which_moments_arrive_changes_no_bit(seed: int, as_codes: bool) -> None:
    rng = np.random.default_rng(seed)
    codes = aef_codes(rng, 3, 20, 24, 0.1)
    values = codes if as_codes else dequantise(codes) + rng.normal(1e4, 1, codes.shape)
    parts = reduce_in_chunks(
        values, codes[0] != -128, polygons(rng, 5, 24, 20), np.arange(5), grid_of(24, 20, 7, 6), 3
    )
    expected = concat(parts).statistics(0, 5, ALL)
    shuffled = concat([parts[i] for i in rng.permutation(len(parts))])
    assert same_bits(shuffled.statistics(0, 5, ALL), expected)
    rows = shuffled.take(rng.permutation(len(shuffled.zone)))
    assert same_bits(rows.statistics(0, 5, ALL), expected)
    assert same_bits(concat([rows.take(rows.tile == t) for t in (2, 0, 1)]).statistics(0, 5, ALL), expected)


def test_zones_of_a_part_are_counted_from_its_start() -> None:
    rng = np.random.default_rng(1)
    codes = aef_codes(rng, 2, 8, 8, 0)
    weights = (rng.random((4, 8, 8)) < 0.5).astype(float)
    near = reduce(codes, codes[0] != -128, weights)
    far = reduce(codes, codes[0] != -128, weights, zone=np.arange(4) + 10_000)
    assert same_bits(far.statistics(10_000, 10_004, ALL), near.statistics(0, 4, ALL))


@pytest.mark.parametrize("kind", [np.int8, np.float64])
@pytest.mark.parametrize("zones", [(1, 3), (0, 2)])
def test_moments_of_a_zone_outside_the_part_are_refused(kind: type, zones: tuple[int, int]) -> None:
    moments = reduce(np.ones((2, 4, 4), kind), np.ones((4, 4), bool), np.ones((3, 4, 4)))
    with pytest.raises(ValueError, match=r"outside \d\.\.\d"):
        moments.statistics(*zones, ("mean",))


def test_taking_all_rows_copies_nothing_and_joining_always_does() -> None:
    codes = np.ones((2, 4, 4), np.int8)
    moments = reduce(codes, np.ones((4, 4), bool), np.ones((3, 4, 4)))
    assert moments.take(moments.zone >= 0) is moments
    # What came from another process may be read-only, which the merging loops are not compiled for.
    assert not np.shares_memory(concat([moments]).full, moments.full)


# ------------------------------------------------------------------ NumPy as the oracle


def oracle(values: Array, valid: Array, weights: Array) -> dict[str, float]:
    """Statistics of one zone and band over its valid pixels; NaN where there are none."""
    used = valid & (weights > 0)
    v, w = values[used], weights[used]
    if not len(v):
        return dict.fromkeys(("mean", "std", "min", "max", "sum"), np.nan) | {"count": 0.0}
    mean = np.average(v, weights=w)
    return {
        "mean": mean,
        "std": np.sqrt(np.average((v - mean) ** 2, weights=w)),
        "min": v.min(),
        "max": v.max(),
        "sum": (v * w).sum(),
        "count": w.sum(),
    }


def random_weights(rng: np.random.Generator, zones: int, height: int, width: int) -> Array:
    weights = rng.uniform(0, 1, (zones, height, width))
    weights[rng.random(weights.shape) < 0.4] = 1.0
    weights[rng.random(weights.shape) < 0.3] = 0.0
    return weights


@pytest.mark.parametrize("bands", [1, 3, 64])
def test_statistics_of_codes_equal_numpys_weighted_ones(bands: int) -> None:
    rng = np.random.default_rng(bands)
    codes = aef_codes(rng, max(bands, 2), 13, 17, 0.1)[:bands]
    valid = codes[0] != -128
    weights = random_weights(rng, 5, 13, 17)
    weights[4] = np.where(np.arange(13 * 17).reshape(13, 17) == np.flatnonzero(valid)[3], 0.25, 0)
    ours = reduce(codes, valid, weights).statistics(0, 5, ALL)
    values = dequantise(codes)
    for zone in range(5):
        assert ours.pixel_count[zone] == pytest.approx(weights[zone][valid].sum(), abs=1e-12)
        for band in range(bands):
            for name, value in oracle(values[band], valid, weights[zone]).items():
                slack = 1e-7 if name == "std" else 1e-12
                assert ours.columns[name][zone, band] == pytest.approx(value, rel=1e-12, abs=slack), name
    assert ours.band_count is None
    assert (ours.tile_count == 1).all()


@pytest.mark.parametrize("by_band", [True, False])
def test_statistics_of_values_equal_numpys_weighted_ones(by_band: bool) -> None:
    rng = np.random.default_rng(3)
    values = rng.normal(5, 2, (3, 13, 17))
    valid = rng.random((3, 13, 17) if by_band else (13, 17)) > 0.2
    masks = np.broadcast_to(valid, values.shape)
    weights = random_weights(rng, 5, 13, 17)
    ours = reduce(values, valid, weights).statistics(0, 5, ALL)
    assert ours.band_count is not None
    for zone in range(5):
        some = masks.any(axis=0)
        assert ours.pixel_count[zone] == pytest.approx(weights[zone][some].sum(), rel=1e-12)
        for band in range(3):
            expected = oracle(values[band], masks[band], weights[zone])
            assert ours.band_count[zone, band] == pytest.approx(expected["count"], rel=1e-12)
            for name, value in expected.items():
                assert ours.columns[name][zone, band] == pytest.approx(value, rel=1e-11), name


def test_std_is_that_of_the_population() -> None:
    codes = np.array([[[-100, 100]]], np.int8)
    found = reduce(codes, np.ones((1, 2), bool), np.ones((1, 1, 2))).statistics(0, 1, ("std",))
    assert found.columns["std"][0, 0] == pytest.approx((100 / 127.5) ** 2, rel=1e-14)


def test_codes_stand_for_signed_squares() -> None:
    codes = np.array([-127, -1, 0, 1, 127], np.int8)
    expected = np.sign(codes) * (codes / 127.5) ** 2
    np.testing.assert_allclose(dequantise(codes), expected, rtol=1e-15)


def test_statistics_come_in_the_order_and_number_asked_for() -> None:
    codes = np.ones((1, 2, 2), np.int8)
    moments = reduce(codes, np.ones((2, 2), bool), np.ones((1, 2, 2)))
    assert [*moments.statistics(0, 1, ("std", "mean")).columns] == ["std", "mean"]


def test_extremes_that_were_not_accumulated_are_an_error() -> None:
    codes = np.ones((1, 2, 2), np.int8)
    coverage = coverage_of(np.ones((1, 2, 2)))
    one = np.zeros(1, np.int64)
    moments = accumulate(codes, np.ones((2, 2), bool), coverage, zone=one, piece=one, tile=0, chunk=0)
    assert moments.low is None
    with pytest.raises(ValueError, match="without extremes"):
        moments.statistics(0, 1, ("min",))


@pytest.mark.parametrize("dtype", [np.int8, np.float64])
def test_a_piece_kept_without_a_pixel_counts_its_tile_and_nothing_else(dtype: type) -> None:
    values = np.full((1, 2, 2), 5, dtype)
    weights = np.zeros((3, 2, 2))
    weights[0, 0, 0] = 1
    slots = np.arange(3)
    moments = accumulate(
        values,
        np.ones((2, 2), bool),
        coverage_of(weights),
        zone=slots,
        piece=slots,
        tile=0,
        chunk=0,
        extremes=True,
        kept=np.array([True, True, False]),
    )
    found = moments.statistics(0, 3, ("mean", "min", "max", "count"))
    assert found.tile_count.tolist() == [1, 1, 0]
    assert found.pixel_count.tolist() == [1, 0, 0]
    for name in ("mean", "min", "max"):
        assert np.isnan(found.columns[name][:, 0]).tolist() == [False, True, True]
    assert found.columns["count"][:, 0].tolist() == [1, 0, 0]


# ------------------------------------------------------------------ where arithmetic goes wrong


@pytest.mark.parametrize("code", [-127, -126, -93, -1, 0, 1, 77, 126, 127])
def test_a_constant_zone_has_no_spread(code: int) -> None:
    rng = np.random.default_rng(code % 97)
    codes = np.full((2, 40, 50), code, np.int8)
    valid = rng.random((40, 50)) > 0.1
    weights = rng.uniform(0, 1, (4, 40, 50))  # all edges
    weights[1] *= 1e-6
    weights[2][rng.random((40, 50)) < 0.5] = 1
    weights[3] = 1
    found = reduce(codes, valid, weights).statistics(0, 4, ("mean", "std"))
    np.testing.assert_allclose(found.columns["mean"], np.sign(code) * (code / 127.5) ** 2, rtol=1e-12)
    assert (found.columns["std"] <= 1e-7).all()  # and no NaN, which would fail too


def test_extreme_codes_neither_wrap_nor_overflow() -> None:
    codes = np.where(np.arange(64 * 64).reshape(1, 64, 64) % 2 == 0, np.int8(-127), np.int8(127))
    found = reduce(codes, np.ones((64, 64), bool), np.ones((1, 64, 64))).statistics(0, 1, ALL)
    top = (127 / 127.5) ** 2
    assert found.columns["mean"][0, 0] == 0
    assert found.columns["std"][0, 0] == pytest.approx(top, rel=1e-14)
    assert (found.columns["min"][0, 0], found.columns["max"][0, 0]) == pytest.approx((-top, top), rel=1e-15)


@pytest.mark.parametrize("codes", [(127, 127), (-127, 127)])
def test_sums_over_a_thousand_million_pixels_do_not_overflow(codes: tuple[int, int]) -> None:
    """A zone of 1e9 pixels of 10 m is 100,000 km2; u^2 reaches 2.6e8."""
    rows, pixels = 1000, 10**6
    zero = np.zeros(rows, np.int64)
    u = np.array(codes) * np.abs(codes)
    full = np.zeros((rows, 2, 1), np.int64)
    full[:, 0, 0] = pixels // 2 * u.sum()
    full[:, 1, 0] = pixels // 2 * (u**2).sum()
    moments = CodeMoments(
        zero,
        zero,
        np.arange(rows),
        zero,
        zero + pixels,
        full,
        np.zeros(rows),
        np.zeros((rows, 2, 1)),
        None,
        None,
    )
    found = moments.statistics(0, 1, ("mean", "std", "sum", "count"))
    assert found.pixel_count[0] == 1e9
    assert found.columns["mean"][0, 0] == pytest.approx(u.mean() * AEF_SCALE, rel=1e-14)
    assert found.columns["std"][0, 0] == pytest.approx(u.std() * AEF_SCALE, rel=1e-14, abs=1e-7)
    assert found.columns["sum"][0, 0] == pytest.approx(u.mean() * AEF_SCALE * 1e9, rel=1e-14)


@pytest.mark.parametrize("chunks", [1, 5])
def test_a_small_spread_on_a_large_offset_does_not_cancel(chunks: int) -> None:
    rng = np.random.default_rng(8)
    values = 1e8 + rng.normal(0, 0.01, (2, 40, 50))
    weights = random_weights(rng, 3, 40, 50)
    parts = []
    for number, rows in enumerate(np.array_split(np.arange(40), chunks)):
        valid = np.ones((len(rows), 50), bool)
        parts.append(reduce(values[:, rows], valid, weights[:, rows], chunk=number))
    found = concat(parts).statistics(0, 3, ("mean", "std"))
    for zone in range(3):
        for band in range(2):
            exact = oracle(values[band] - 1e8, np.ones((40, 50), bool), weights[zone])
            assert found.columns["std"][zone, band] == pytest.approx(exact["std"], rel=1e-5)
            assert found.columns["mean"][zone, band] - 1e8 == pytest.approx(exact["mean"], abs=1e-6)


@pytest.mark.parametrize("kind", [np.int8, np.float64])
def test_a_zone_of_nothing_but_nodata_counts_zero_and_has_no_statistics(kind: type) -> None:
    values = np.full((2, 4, 4), -128 if kind is np.int8 else 0, kind)
    weights = np.ones((2, 4, 4))
    weights[1] = 0.5
    found = reduce(values, np.zeros((4, 4), bool), weights).statistics(0, 2, ALL)
    assert (found.pixel_count == 0).all()
    assert (found.tile_count == 1).all(), "it lies on a tile, even if that has nothing there"
    for name in ALL:
        column = found.columns[name]
        assert (column == 0).all() if name == "count" else np.isnan(column).all(), name


@pytest.mark.parametrize("kind", [np.int8, np.float64])
def test_a_zone_that_no_chunk_touches_is_on_no_tile(kind: type) -> None:
    weights = np.zeros((3, 4, 4))
    weights[1] = 1
    moments = reduce(np.ones((2, 4, 4), kind), np.ones((4, 4), bool), weights)
    assert moments.zone.tolist() == [1], "rows are for pieces with a pixel only"
    found = moments.statistics(0, 3, ALL)
    assert found.tile_count.tolist() == [0, 1, 0]
    assert found.pixel_count.tolist() == [0, 16, 0]
    assert np.isnan(found.columns["max"][[0, 2]]).all()
    assert not np.isnan(found.columns["max"][1]).any()


def test_tiles_are_counted_once_however_many_chunks_and_pieces_a_zone_has() -> None:
    codes, valid = np.ones((1, 4, 4), np.int8), np.ones((4, 4), bool)
    parts = [
        reduce(codes, valid, np.ones((2, 4, 4)), tile=tile, chunk=chunk, zone=np.zeros(2, np.int64))
        for tile, chunk in [(0, 0), (0, 1), (3, 0), (3, 7)]
    ]
    assert concat(parts).statistics(0, 1, ("mean",)).tile_count.tolist() == [2]


def test_nodata_in_some_bands_counts_for_those_bands_only() -> None:
    values = np.arange(8.0).reshape(2, 2, 2)
    valid = np.ones((2, 2, 2), bool)
    valid[0, 0] = False  # band 0 lacks the first row
    valid[:, 1, 1] = False  # no band has the last pixel
    found = reduce(values, valid, np.ones((1, 2, 2))).statistics(0, 1, ALL)
    assert found.pixel_count.tolist() == [3]
    assert found.band_count is not None
    assert found.band_count.tolist() == [[1, 3]]
    assert found.columns["mean"].tolist() == [[2.0, 5.0]]
    assert found.columns["min"].tolist() == [[2.0, 4.0]]


@pytest.mark.parametrize("by_band", [True, False])
def test_nothing_looks_like_the_statistics_of_zones_without_a_pixel(by_band: bool) -> None:
    values = np.zeros((2, 2, 2), np.float64 if by_band else np.int8)
    moments = reduce(values, np.ones((2, 2), bool), np.ones((1, 2, 2)), zone=np.array([9]))
    expected = moments.take(moments.zone < 0).statistics(0, 3, ALL)
    found = nothing(3, 2, ALL, by_band=by_band)
    assert same_bits(found, expected)
    assert found.pixel_count.tolist() == [0, 0, 0]
    assert (found.band_count is not None) == by_band
    assert (found.columns["count"] == 0).all()
    assert np.isnan(found.columns["mean"]).all()
