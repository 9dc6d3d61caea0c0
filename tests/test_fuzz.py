"""The TIFF reader and the workflow loader on any bytes: only zonal's errors, in bounded time and memory."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from fuzz.targets import read_tiff, read_yaml, tiff_seeds, yaml_seeds
from hypothesis import given, settings
from hypothesis import strategies as st

MOST = 64 * 2**20
"""Bytes of memory that a case may take: the file, its header's arrays and its chunks are a few MB at most."""

NUMBERS = st.sampled_from([0, 1, 2, 3, 7, 8, 255, 2**15, 2**16 - 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1])
WORDS = st.sampled_from([
    "&a ", "*a", "<<: *a", "!!python/object/apply:os.system ", "!!binary ", "!!set ", "!!timestamp ", "! ",
    "? ", "[", "]", "{", "}", "|\n", ">\n", "- ", "---\n", "...\n", "%YAML 9\n", ": ", "#", "'", '"', "~",
    "null", "state: ", "year: ", "raster: ", "storage_options: ", "metadata: ", "uri: ", "bbox: ", "1e999",
    "9" * 5000, "\n", "\n  ", "\0", "\t", "\x85", "\ufeff", "\u2028", "[" * 50, "{a: " * 50,
])  # fmt: skip


@pytest.fixture(scope="module")
def tiffs(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    return tiff_seeds(tmp_path_factory.mktemp("seeds"))


@pytest.fixture
def bounded() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


def test_the_seeds_themselves_are_read(tiffs: list[bytes], tmp_path: Path) -> None:
    assert all(read_tiff(seed, tmp_path) for seed in tiffs)
    assert sum(read_yaml(seed, tmp_path) > 0 for seed in yaml_seeds()) >= 3


@st.composite
def mangled(draw: st.DrawFn, seeds: list[bytes]) -> bytes:
    """A TIFF with bytes overwritten, inserted or left out, most often in its directory."""
    raw = bytearray(draw(st.sampled_from(seeds)))
    order = "little" if raw[:2] == b"II" else "big"
    big = 43 in (raw[2], raw[3])
    start = int.from_bytes(raw[8:16] if big else raw[4:8], order)
    entry, lead = (20, 8) if big else (12, 2)
    count = int.from_bytes(raw[start : start + lead], order)
    for _ in range(draw(st.integers(1, 4))):
        what = draw(st.sampled_from(["tag", "tag", "tag", "next", "overwrite", "insert", "delete", "cut"]))
        if what == "tag":
            at = start + lead + entry * draw(st.integers(0, count - 1))
            field, size = draw(
                st.sampled_from(
                    [(0, 2), (2, 2), (4, 8), (12, 8)] if big else [(0, 2), (2, 2), (4, 4), (8, 4)]
                )
            )
            value = draw(NUMBERS | st.integers(0, len(raw)))
            raw[at + field : at + field + size] = (value % 256**size).to_bytes(size, order)
            continue
        if what == "next":
            at = start + lead + entry * count
            raw[at : at + entry - lead] = draw(st.integers(0, len(raw))).to_bytes(entry - lead, order)
            continue
        at = draw(st.integers(0, max(0, len(raw) - 1)) | st.integers(start, start + entry * count))
        junk = draw(st.binary(min_size=1, max_size=8))
        if what == "overwrite":
            raw[at : at + len(junk)] = junk
        elif what == "insert":
            raw[at:at] = junk
        elif what == "delete":
            del raw[at : at + len(junk)]
        else:
            del raw[at:]
    return bytes(raw)


def test_no_change_of_a_tiff_brings_out_another_error_or_much_memory(
    tiffs: list[bytes], tmp_path: Path, bounded: None
) -> None:
    @settings(max_examples=5 * settings.default.max_examples)
    @given(mangled(tiffs) | st.binary(max_size=200))
    def check(raw: bytes) -> None:
        tracemalloc.reset_peak()
        read_tiff(raw, tmp_path)
        assert tracemalloc.get_traced_memory()[1] < MOST

    check()


@st.composite
def written(draw: st.DrawFn) -> bytes:
    """YAML with lines moved, doubled and left out, and odd words and bytes put in."""
    text = draw(st.sampled_from(yaml_seeds())).decode()
    lines = draw(st.lists(st.sampled_from(text.splitlines(keepends=True)), max_size=20))
    for _ in range(draw(st.integers(1, 6))):
        word = draw(WORDS | st.text(max_size=5))
        if not lines:
            lines.append(word)
            continue
        at = draw(st.integers(0, len(lines) - 1))
        cut = draw(st.integers(0, len(lines[at])))
        lines[at] = lines[at][:cut] + word + lines[at][cut:]
    raw = "".join(lines).encode("utf-8", "surrogatepass")
    return raw + draw(st.sampled_from([b"", b"", b"\xff", b"\xed\xa0\x80"]))


def test_no_text_brings_out_another_error_of_the_workflow_or_the_catalog_loader(
    tmp_path: Path, bounded: None
) -> None:
    @settings(max_examples=5 * settings.default.max_examples // 2)
    @given(written() | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")))
    def check(raw: bytes) -> None:
        tracemalloc.reset_peak()
        read_yaml(raw, tmp_path)
        assert tracemalloc.get_traced_memory()[1] < MOST

    check()
