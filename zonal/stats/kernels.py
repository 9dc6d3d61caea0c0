"""Compiled loops over the pixels of one chunk.

Spans and edges come sorted by pixel, so each kernel walks its chunk row by
row. No fastmath: the order of float additions is part of the contract. All
release the GIL and are cached on disk, so a worker does not compile them anew.
"""

from __future__ import annotations

import numba
import numpy as np

# What the arguments are called and hold is told once, in moments.py.


@numba.njit(nogil=True, cache=True)
def sum_codes(
    codes,
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
):
    """Add the codes of full spans (exact, int64) and of edge pixels (float64) to their zones."""
    bands, height, width = codes.shape
    spans, edges = len(span_zone), len(edge_zone)
    row_codes = np.empty((width, bands), np.int8)
    s = e = 0
    for row in range(height):
        begin, end = row * width, (row + 1) * width
        if not ((s < spans and span_start[s] < end) or (e < edges and edge_pixel[e] < end)):
            continue
        # The row of all planes, turned pixel-major, fits in cache; the loops below then run over
        # neighbouring bytes.
        for b in range(bands):
            for x in range(width):
                row_codes[x, b] = codes[b, row, x]
        while s < spans and span_start[s] < end:
            zone = span_zone[s]
            for x in range(span_start[s] - begin, span_start[s] - begin + span_length[s]):
                if valid[row, x]:
                    count[zone] += 1
                    for b in range(bands):
                        q = np.int32(row_codes[x, b])
                        u = q * abs(q)
                        full[zone, 0, b] += u
                        full[zone, 1, b] += u * u
            s += 1
        while e < edges and edge_pixel[e] < end:
            x = edge_pixel[e] - begin
            if valid[row, x]:
                zone, w = edge_zone[e], edge_weight[e]
                weight[zone] += w
                for b in range(bands):
                    q = np.int32(row_codes[x, b])
                    v = np.float64(q * abs(q))
                    edge[zone, 0, b] += w * v
                    edge[zone, 1, b] += w * (v * v)
            e += 1


@numba.njit(nogil=True, cache=True)
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


@numba.njit(nogil=True, cache=True)
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


@numba.njit(nogil=True, cache=True)
def merge_values(at, row_weight, row_mean, row_squares, weight, mean, squares):
    """Merge rows of moments into their zones, one after the other."""
    # Chan, Golub and LeVeque (1983), Algorithms for computing the sample variance.
    for row in range(len(at)):
        zone = at[row]
        for b in range(row_weight.shape[1]):
            w = row_weight[row, b]
            if w > 0:
                total = weight[zone, b] + w
                delta = row_mean[row, b] - mean[zone, b]
                squares[zone, b] += row_squares[row, b] + delta * delta * weight[zone, b] * w / total
                mean[zone, b] += delta * w / total
                weight[zone, b] = total


@numba.njit(nogil=True, cache=True)
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
