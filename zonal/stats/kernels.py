"""Compiled loops over the pixels of one chunk, and over the rows of moments.

Spans and edges come row by row; the order of float additions is part of the contract.
Numba infers the arguments' types: what they are called and hold is told in moments.py.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from zonal.stats.compiling import compiled, inlined

kernel: Any = compiled  # without types: see above

_HALF, _QUARTER, _EIGHTH = np.uint64(32), np.uint64(16), np.uint64(8)
_HALVES = np.uint64(0x00000000FFFFFFFF)
_QUARTERS = np.uint64(0x0000FFFF0000FFFF)
_EIGHTHS = np.uint64(0x00FF00FF00FF00FF)

_ROWS = 4
"""Pixel rows of a plane that are read together: 4 KB of an AEF chunk lie side by side."""

_GROUPS = 8
"""Words of a pixel that are written together: the 64 bands of AEF."""

_RUN = 15
"""Pixels summed in 32 bits: u^2 <= 2^28 even of code -128, and 15 * 2^28 < 2^32."""


@inlined
def _swap(a, b, shift, mask):
    """Swap the high parts of `a` with the low parts of `b`."""
    differ = ((a >> shift) ^ b) & mask
    return a ^ (differ << shift), b ^ differ


@inlined
def _swap_rows(words, top, count, swapped):
    """Swap bytes of some pixel rows of all planes: swapped[row, band // 8, x % 8, x // 8] holds 8 bands.

    Eight planes and eight pixels at a time, as 64-bit words: three rounds of swaps
    transpose 8 x 8 bytes (H. S. Warren, Hacker's Delight, 7-3).
    """
    # The kernel's time with other layouts, for 64 bands and 1,000 zones that tile 1024 x 1024 pixels,
    # against this one: byte by byte 3.4 times; band by band along the spans, nothing turned, 2.9 times;
    # swaps that write where `_turn_row` does, which leaves them without vectors, 1.15 times; rows one by
    # one, whose reads are too short to be foreseen, 1.1 times; eight or sixteen at once: no gain.
    last = words.shape[0] - 1
    for group in range(swapped.shape[1]):
        b0 = 8 * group
        for row in range(count):
            # Where bands are no multiple of 8, the last plane fills up; nobody looks at those bytes.
            p0, p1 = words[min(b0, last), top + row], words[min(b0 + 1, last), top + row]
            p2, p3 = words[min(b0 + 2, last), top + row], words[min(b0 + 3, last), top + row]
            p4, p5 = words[min(b0 + 4, last), top + row], words[min(b0 + 5, last), top + row]
            p6, p7 = words[min(b0 + 6, last), top + row], words[min(b0 + 7, last), top + row]
            out = swapped[row, group]
            for x in range(words.shape[2]):
                w0, w4 = _swap(p0[x], p4[x], _HALF, _HALVES)
                w1, w5 = _swap(p1[x], p5[x], _HALF, _HALVES)
                w2, w6 = _swap(p2[x], p6[x], _HALF, _HALVES)
                w3, w7 = _swap(p3[x], p7[x], _HALF, _HALVES)
                w0, w2 = _swap(w0, w2, _QUARTER, _QUARTERS)
                w1, w3 = _swap(w1, w3, _QUARTER, _QUARTERS)
                w4, w6 = _swap(w4, w6, _QUARTER, _QUARTERS)
                w5, w7 = _swap(w5, w7, _QUARTER, _QUARTERS)
                out[0, x], out[1, x] = _swap(w0, w1, _EIGHTH, _EIGHTHS)
                out[2, x], out[3, x] = _swap(w2, w3, _EIGHTH, _EIGHTHS)
                out[4, x], out[5, x] = _swap(w4, w5, _EIGHTH, _EIGHTHS)
                out[6, x], out[7, x] = _swap(w6, w7, _EIGHTH, _EIGHTHS)


@inlined
def _turn_row(swapped, turned):
    """Lay a row of swapped words out pixel by pixel: turned[x // 8, x % 8, band // 8]."""
    for group in range(0, turned.shape[2], _GROUPS):
        for x in range(8):
            p0, p1, p2, p3 = (
                swapped[group, x],
                swapped[group + 1, x],
                swapped[group + 2, x],
                swapped[group + 3, x],
            )
            p4, p5 = swapped[group + 4, x], swapped[group + 5, x]
            p6, p7 = swapped[group + 6, x], swapped[group + 7, x]
            for word in range(turned.shape[0]):
                out = turned[word, x, group : group + _GROUPS]
                out[0], out[1], out[2], out[3] = p0[word], p1[word], p2[word], p3[word]
                out[4], out[5], out[6], out[7] = p4[word], p5[word], p6[word], p7[word]


@inlined
def _squared(code):
    """Return u = q |q| in 32 bits, lest the loop over bands work with 64."""
    q = np.int32(code)
    return np.int32(q * np.int32(abs(q)))


@inlined
def _stretch(codes, x, low, high):
    """Lower `low` and raise `high` by a pixel's codes."""
    for b in range(len(low)):
        low[b] = min(low[b], codes[x, b])
        high[b] = max(high[b], codes[x, b])


@kernel
def sum_codes(
    words,
    valid,
    span_zone,
    span_start,
    span_length,
    edge_zone,
    edge_pixel,
    edge_weight,
    count,
    full,
    weight,
    edge,
    low,
    high,
):
    """Add the codes of full spans (exact, int64) and of edge pixels (float64) to their zones.

    `words` are the codes, eight pixels of a row at a time (the first in the lowest byte), rows
    filled up to whole words. `low` and `high` have no rows where extremes are not wanted.
    """
    height, width = valid.shape
    bands = full.shape[2]
    spans, edges = len(span_zone), len(edge_zone)
    extremes = len(low) > 0
    groups = (bands + 8 * _GROUPS - 1) // (8 * _GROUPS) * _GROUPS
    swapped = np.empty((_ROWS, groups, 8, words.shape[2]), np.uint64)
    turned = np.empty((words.shape[2], 8, groups), np.uint64)
    codes = turned.view(np.int8).reshape(8 * turned.shape[0], 8 * turned.shape[2])
    first, second = np.empty(bands, np.int32), np.empty(bands, np.uint32)
    s = e = 0
    top = -_ROWS
    for row in range(height):
        begin, end = row * width, (row + 1) * width
        if not ((s < spans and span_start[s] < end) or (e < edges and edge_pixel[e] < end)):
            continue
        # 64 KB for 64 bands: the loops below then run over neighbouring bytes in cache, all bands at once.
        if row >= top + _ROWS:
            top = row
            _swap_rows(words, top, min(_ROWS, height - top), swapped)
        _turn_row(swapped[row - top], turned)
        while s < spans and span_start[s] < end:
            zone = span_zone[s]
            x, stop = span_start[s] - begin, span_start[s] - begin + span_length[s]
            while x < stop:
                if not valid[row, x]:
                    x += 1
                    continue
                # A short run's sums fit 32 bits, and twice as many bands a vector; with 64 bits these
                # loops take 1.4 times as long, and two or four pixels at once 1.8 times.
                start = x
                first[:] = 0
                second[:] = 0
                while x < stop and x < start + _RUN and valid[row, x]:
                    for b in range(bands):
                        u = _squared(codes[x, b])
                        first[b] = np.int32(first[b] + u)
                        second[b] = np.uint32(second[b] + np.uint32(np.int32(u * u)))
                    if extremes:
                        _stretch(codes, x, low[zone], high[zone])
                    x += 1
                count[zone] += x - start
                for b in range(bands):
                    full[zone, 0, b] += first[b]
                    full[zone, 1, b] += second[b]
            s += 1
        while e < edges and edge_pixel[e] < end:
            x = edge_pixel[e] - begin
            if valid[row, x]:
                zone, w = edge_zone[e], edge_weight[e]
                weight[zone] += w
                for b in range(bands):
                    v = np.float64(_squared(codes[x, b]))
                    edge[zone, 0, b] += w * v
                    edge[zone, 1, b] += w * (v * v)
                if extremes:
                    _stretch(codes, x, low[zone], high[zone])
            e += 1


@kernel
def sum_pixels(valid, span_zone, span_start, span_length, edge_zone, edge_pixel, edge_weight, pixels):
    """Add up the coverage of valid pixels by zone."""
    flat = valid.ravel()
    for s in range(len(span_zone)):
        for p in range(span_start[s], span_start[s] + span_length[s]):
            if flat[p]:
                pixels[span_zone[s]] += 1.0
    for e in range(len(edge_zone)):
        if flat[edge_pixel[e]]:
            pixels[edge_zone[e]] += edge_weight[e]


@kernel
def sum_values(
    values,
    valid,
    span_zone,
    span_start,
    span_length,
    edge_zone,
    edge_pixel,
    edge_weight,
    weight,
    mean,
    squares,
):
    """Update weight, mean and squared deviations of each zone and band, pixel by pixel."""
    # West (1979), Updating mean and variance estimates: one pass, no cancellation.
    bands = values.shape[0]
    masks = valid.shape[0]
    for b in range(bands):
        plane = values[b].ravel()
        mask = valid[b if masks > 1 else 0].ravel()
        for s in range(len(span_zone)):
            zone = span_zone[s]
            for p in range(span_start[s], span_start[s] + span_length[s]):
                if mask[p]:
                    weight[zone, b] += 1.0
                    delta = plane[p] - mean[zone, b]
                    mean[zone, b] += delta / weight[zone, b]
                    squares[zone, b] += delta * (plane[p] - mean[zone, b])
        for e in range(len(edge_zone)):
            p = edge_pixel[e]
            if mask[p]:
                zone, w = edge_zone[e], edge_weight[e]
                weight[zone, b] += w
                delta = plane[p] - mean[zone, b]
                mean[zone, b] += w * delta / weight[zone, b]
                squares[zone, b] += w * delta * (plane[p] - mean[zone, b])


@kernel
def merge_codes(order, at, row_count, row_full, row_weight, row_edge, count, full, weight, edge):
    """Add rows of moments to their zones, one after the other in the order given."""
    for row in order:
        zone = at[row]
        count[zone] += row_count[row]
        weight[zone] += row_weight[row]
        for i in range(2):
            for b in range(full.shape[2]):
                full[zone, i, b] += row_full[row, i, b]
                edge[zone, i, b] += row_edge[row, i, b]


@kernel
def finish_codes(total, full, edge, scale, scale_squared, mean, variance):
    """Divide sums of u and u^2 by their weight: mean and population variance in value units."""
    for zone in range(len(total)):
        if not total[zone] > 0:
            mean[zone] = np.nan
            variance[zone] = np.nan
            continue
        for b in range(full.shape[2]):
            first = (full[zone, 0, b] + edge[zone, 0, b]) / total[zone]
            second = (full[zone, 1, b] + edge[zone, 1, b]) / total[zone]
            mean[zone, b] = first * scale
            variance[zone, b] = max(second - first * first, 0.0) * scale_squared


@kernel
def merge_extremes(order, at, row_low, row_high, low, high):
    """Lower `low` and raise `high` by rows of extremes."""
    for row in order:
        zone = at[row]
        for b in range(low.shape[1]):
            low[zone, b] = np.minimum(low[zone, b], row_low[row, b])
            high[zone, b] = np.maximum(high[zone, b], row_high[row, b])


@kernel
def merge_values(order, at, row_weight, row_mean, row_squares, weight, mean, squares):
    """Merge rows of moments into their zones, one after the other in the order given."""
    # Chan, Golub and LeVeque (1983), Algorithms for computing the sample variance.
    for row in order:
        zone = at[row]
        for b in range(row_weight.shape[1]):
            w = row_weight[row, b]
            if w > 0:
                total = weight[zone, b] + w
                delta = row_mean[row, b] - mean[zone, b]
                squares[zone, b] += row_squares[row, b] + delta * delta * weight[zone, b] * w / total
                mean[zone, b] += delta * w / total
                weight[zone, b] = total


@kernel
def extremes(values, valid, span_zone, span_start, span_length, edge_zone, edge_pixel, low, high):
    """Lower `low` and raise `high` by the valid pixels of each zone."""
    bands = values.shape[0]
    masks = valid.shape[0]
    for b in range(bands):
        plane = values[b].ravel()
        mask = valid[b if masks > 1 else 0].ravel()
        for s in range(len(span_zone)):
            zone = span_zone[s]
            for p in range(span_start[s], span_start[s] + span_length[s]):
                if mask[p]:
                    low[zone, b] = min(low[zone, b], plane[p])
                    high[zone, b] = max(high[zone, b], plane[p])
        for e in range(len(edge_zone)):
            p = edge_pixel[e]
            if mask[p]:
                zone = edge_zone[e]
                low[zone, b] = min(low[zone, b], plane[p])
                high[zone, b] = max(high[zone, b], plane[p])
