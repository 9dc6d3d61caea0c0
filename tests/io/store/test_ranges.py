from __future__ import annotations

import re
import sys
import threading
import tomllib
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builds import REPO
from hypothesis import given
from hypothesis import strategies as st

from zonal.credentials import scrub_urls
from zonal.errors import InputError, StoreError
from zonal.io.store import clients
from zonal.io.store.cache import Cache
from zonal.io.store.clients import explain
from zonal.io.store.folder import Folder
from zonal.io.store.merged import coalesce
from zonal.io.store.ranges import Blob, ReadPolicy

DATA = np.random.default_rng(0).integers(0, 256, 500_000, np.uint8).tobytes()
QUICK = ReadPolicy(attempts=4, delay=0.001, longest_delay=0.01, total=20, stall=2)

ranges_strategy = st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 300)), max_size=30)


@given(ranges_strategy, st.integers(0, 200), st.integers(1, 1000))
def test_every_range_lies_in_exactly_one_request(
    ranges: list[tuple[int, int]], gap: int, longest: int
) -> None:
    merged = coalesce(ranges, gap, longest)
    members = Counter(index for request in merged for index in request.members)
    assert members == {i: 1 for i, (_, length) in enumerate(ranges) if length}
    for request in merged:
        for index in request.members:
            offset, length = ranges[index]
            assert request.start <= offset and offset + length <= request.end
    for before, after in pairwise(merged):
        assert before.end <= after.start, "a byte is asked for twice"


@given(ranges_strategy, st.integers(0, 200))
def test_no_request_reads_across_a_gap_wider_than_allowed(ranges: list[tuple[int, int]], gap: int) -> None:
    for request in coalesce(ranges, gap, 10**9):
        wanted = np.zeros(request.end - request.start, bool)
        for index in request.members:
            offset, length = ranges[index]
            wanted[offset - request.start :][:length] = True
        assert wanted[0] and wanted[-1]
        unwanted = "".join("01"[int(w)] for w in wanted)
        assert all(len(run) <= gap for run in re.findall("0+", unwanted))


def test_ranges_that_only_touch_are_not_merged_beyond_the_cap() -> None:
    assert [(r.start, r.end) for r in coalesce([(0, 60), (60, 60)], 0, 100)] == [(0, 60), (60, 120)]
    assert [(r.start, r.end) for r in coalesce([(0, 60), (59, 60)], 0, 100)] == [(0, 119)]


def test_a_negative_range_is_a_bug_of_the_caller() -> None:
    with pytest.raises(ValueError, match="offset=-1"):
        coalesce([(-1, 2)])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "data.bin"
    path.write_bytes(DATA)
    return path


@given(ranges_strategy)
def test_a_memory_file_gives_what_slicing_gives(ranges: list[tuple[int, int]]) -> None:
    import fsspec

    fsspec.filesystem("memory").pipe("/ranges.bin", DATA[:5000])
    blob = Blob("memory://ranges.bin")
    assert blob.read(ranges) == [DATA[offset : offset + length] for offset, length in ranges]


def test_a_local_file_gives_ranges_in_the_order_asked_with_duplicates(file: Path) -> None:
    blob = Blob(str(file))
    ranges = [(1000, 50), (0, 10), (1000, 50), (1020, 100), (499_990, 10), (7, 0)]
    assert blob.read(ranges) == [DATA[offset : offset + length] for offset, length in ranges]
    assert (blob.counters.requests, blob.counters.bytes) == (3, 10 + 120 + 10)
    assert Blob(file.as_uri()).read([(5, 5)]) == [DATA[5:10]]


def test_the_stat_of_a_local_file_is_its_size_and_time(file: Path) -> None:
    stat = Blob(str(file)).stat()
    assert stat.size == len(DATA)
    assert stat.etag == str(file.stat().st_mtime_ns)


@pytest.mark.parametrize("known", [False, True])
def test_a_range_past_the_end_of_a_local_file_is_an_error(file: Path, known: bool) -> None:
    blob = Blob(str(file))
    if known:
        blob.stat()
    with pytest.raises(InputError, match=r"data\.bin: bytes 499990 to 500010 .* is it truncated"):
        blob.read([(0, 10), (499_990, 20)])


def test_a_missing_local_file_is_named_at_once(tmp_path: Path) -> None:
    blob = Blob(str(tmp_path / "nowhere.tif"))
    for ask in (blob.stat, lambda: blob.read([(0, 1)])):
        with pytest.raises(InputError, match=r"nowhere\.tif: no such file"):
            ask()
    assert blob.counters.retries == 0


def test_a_folder_is_not_a_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a file"):
        Blob(str(tmp_path)).stat()


def test_an_unknown_protocol_is_an_input_error() -> None:
    with pytest.raises(InputError, match="gopher"):
        Blob("gopher://host/file")


@pytest.mark.parametrize(
    ("url", "client", "extra"),
    [
        ("gs://bucket/file", "gcsfs", "gs"),
        ("az://container/file", "adlfs", "az"),
        ("abfs://container@me.dfs.core.windows.net/file", "adlfs", "az"),
    ],
)
def test_a_client_that_is_not_installed_is_named_with_what_installs_it(
    url: str, client: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, client, None)
    told = rf"cannot be opened: {client} is not installed; pip install 'zonal\[{extra}\]'$"
    with pytest.raises(InputError, match=told):
        Blob(url)
    with pytest.raises(InputError, match=told):
        Folder(url).exists("manifest.json")


def test_every_extra_for_a_store_is_one_that_can_be_installed() -> None:
    text = (REPO / "pyproject.toml").read_text()
    extras = tomllib.loads(text)["project"]["optional-dependencies"]
    for client, extra in clients._EXTRAS.items():
        (needed,) = extras[extra]
        assert needed.startswith(client)


class Handler(BaseHTTPRequestHandler):
    """Serves DATA; `server.fault(handler, nth, range)` may answer in its place, by returning True."""

    protocol_version = "HTTP/1.1"
    server: Any

    def log_message(self, *_: Any) -> None:
        pass

    def send(self, status: int, body: bytes = b"", length: int | None = None, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def part(self, first: int, last: int) -> None:
        self.send(206, DATA[first : last + 1], Content_Range=f"bytes {first}-{last}/{len(DATA)}")

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        wanted = (int(found[1]), int(found[2])) if found else None
        with self.server.lock:
            key = (self.command, wanted)
            self.server.seen[key] += 1
            nth = self.server.seen[key]
            self.server.agents.add(self.headers.get("User-Agent"))
        if self.server.fault(self, nth, wanted):
            return
        if wanted is None:
            self.send(200, DATA, ETag='"v1"')
        elif wanted[1] >= len(DATA):
            self.send(416, Content_Range=f"bytes */{len(DATA)}")
        else:
            self.part(*wanted)


@pytest.fixture
def server() -> Iterator[Any]:
    httpd: Any = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.daemon_threads = True
    httpd.lock, httpd.seen, httpd.agents = threading.Lock(), Counter(), set()
    httpd.fault = lambda *_: False
    httpd.url = f"http://127.0.0.1:{httpd.server_port}/data.bin"
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield httpd
    httpd.shutdown()
    httpd.server_close()


FAR_APART = [(i * 100_000, 1000) for i in range(5)]
PARTS = [DATA[offset : offset + length] for offset, length in FAR_APART]


def test_http_ranges_arrive_and_neighbours_share_a_request(server: Any) -> None:
    blob = Blob(server.url, policy=QUICK)
    stat = blob.stat()
    assert (stat.size, stat.etag) == (len(DATA), '"v1"')
    ranges = [*FAR_APART, (3000, 7), (0, 1000), (70_000, 50)]
    assert blob.read(ranges) == [DATA[offset : offset + length] for offset, length in ranges]
    assert blob.counters.requests == 1 + 5  # the range at 70,000 is 30,000 bytes from the next
    assert blob.counters.retries == 0


def test_every_http_request_names_zonal_in_its_user_agent(server: Any) -> None:
    blob = Blob(server.url, policy=QUICK)
    blob.stat()
    blob.read([(0, 5)])
    assert len(server.agents) == 1
    assert next(iter(server.agents)).startswith("zonal/")


def test_every_s3_request_names_zonal_in_its_user_agent(server: Any) -> None:
    endpoint = server.url.rsplit("/", 1)[0]
    options = {"anon": True, "endpoint_url": endpoint, "config_kwargs": {"s3": {"addressing_style": "path"}}}
    blob = Blob("s3://bucket/data.bin", options, QUICK)
    assert blob.stat().size == len(DATA)
    assert blob.read([(0, 5)]) == [DATA[:5]]
    assert server.agents and all(f" zonal/{version('zonal')}" in agent for agent in server.agents)


@pytest.mark.parametrize("status", [403, 429, 500, 503])
def test_only_the_failed_ranges_are_asked_for_again(server: Any, status: int) -> None:
    def fault(handler: Handler, nth: int, wanted: tuple[int, int] | None) -> bool:
        if wanted in {(0, 999), (200_000, 200_999)} and nth <= 2:
            handler.send(status, b"no")
            return True
        return False

    server.fault = fault
    blob = Blob(server.url, policy=QUICK)
    assert blob.read(FAR_APART) == PARTS
    assert sorted(server.seen.values()) == [1, 1, 1, 3, 3]
    assert (blob.counters.requests, blob.counters.retries) == (9, 4)


def short_body(handler: Handler, wanted: tuple[int, int]) -> None:
    handler.send(206, DATA[wanted[0] : wanted[0] + 10], length=1000)
    handler.close_connection = True


def short_answer(handler: Handler, wanted: tuple[int, int]) -> None:
    handler.send(206, DATA[wanted[0] : wanted[0] + 10])


def whole_file(handler: Handler, wanted: tuple[int, int]) -> None:
    handler.send(200, DATA)


def other_range(handler: Handler, wanted: tuple[int, int]) -> None:
    handler.part(wanted[0] + 5, wanted[1] + 5)


def reset(handler: Handler, wanted: tuple[int, int]) -> None:
    handler.close_connection = True


@pytest.mark.parametrize("answer", [short_body, short_answer, whole_file, other_range, reset])
def test_a_wrong_answer_is_never_taken_for_the_range(server: Any, answer: Any) -> None:
    def fault(handler: Handler, nth: int, wanted: tuple[int, int] | None) -> bool:
        if nth <= 2 and wanted is not None:
            answer(handler, wanted)
            return True
        return False

    server.fault = fault
    blob = Blob(server.url, policy=QUICK)
    assert blob.read(FAR_APART) == PARTS
    assert blob.counters.retries == 2 * len(FAR_APART)
    assert sum(server.seen.values()) == blob.counters.requests, "a client asked again by itself"


def test_a_stalled_server_is_given_up_and_asked_again(server: Any) -> None:
    release = threading.Event()

    def fault(handler: Handler, nth: int, wanted: tuple[int, int] | None) -> bool:
        if nth == 1 and wanted == (0, 999):
            release.wait(10)
            return True
        return False

    server.fault = fault
    policy = ReadPolicy(attempts=3, delay=0.001, stall=0.3)
    assert Blob(server.url, policy=policy).read(FAR_APART) == PARTS
    release.set()


def test_a_server_without_ranges_ends_in_an_error_that_says_so(server: Any) -> None:
    server.fault = lambda handler, nth, wanted: wanted is not None and (handler.send(200, DATA) or True)
    blob = Blob(server.url, policy=QUICK)
    with pytest.raises(StoreError, match=r"bytes 0 to 10: the server ignores byte ranges .*4 attempts"):
        blob.read([(0, 10)])
    assert blob.counters.bytes == 0, "the whole file was read to find that out"


def test_exhausted_retries_name_url_range_and_cause_without_credentials(server: Any) -> None:
    server.fault = lambda handler, nth, wanted: handler.send(503) or True
    url = server.url.replace("http://", "http://me:hunter2@") + "?X-Amz-Signature=abcdef"
    blob = Blob(url, {"client_kwargs": {"headers": {"X-Api-Key": "tops3cret"}}}, policy=QUICK)
    with pytest.raises(StoreError) as caught:
        blob.read([(100, 10)])
    text = str(caught.value)
    assert f"{server.url}: bytes 100 to 110: HTTP 503 Service Unavailable (4 attempts)" in text
    for secret in ("hunter2", "abcdef", "tops3cret"):
        assert secret not in text + repr(blob) + blob.name
    with pytest.raises(StoreError, match="size and version: HTTP 503"):
        blob.stat()


@pytest.mark.parametrize(("status", "words"), [(404, "no such file"), (401, "HTTP 401"), (410, "HTTP 410")])
def test_a_final_refusal_is_not_asked_again(server: Any, status: int, words: str) -> None:
    server.fault = lambda handler, nth, wanted: handler.send(status) or True
    blob = Blob(server.url, policy=QUICK)
    with pytest.raises(InputError, match=words):
        blob.read([(0, 10)])
    with pytest.raises(InputError, match=words):
        blob.stat()
    assert blob.counters.retries == 0


@pytest.mark.parametrize("ranges", [[(499_990, 20)], [(500_000, 20)]])
def test_a_range_past_the_end_of_a_remote_file_is_not_asked_again(
    server: Any, ranges: list[tuple[int, int]]
) -> None:
    def fault(handler: Handler, nth: int, wanted: tuple[int, int] | None) -> bool:
        if wanted is not None and wanted[0] < len(DATA) <= wanted[1]:
            handler.part(wanted[0], len(DATA) - 1)  # what real servers do
            return True
        return False

    server.fault = fault
    blob = Blob(server.url, policy=QUICK)
    with pytest.raises(InputError, match="beyond the end of the file"):
        blob.read(ranges)
    assert blob.counters.retries == 0


def test_nobody_listening_is_a_store_error() -> None:
    policy = ReadPolicy(attempts=2, delay=0.001)
    with pytest.raises(StoreError, match=r"127\.0\.0\.1:9/x: size and version: .*2 attempts"):
        Blob("http://127.0.0.1:9/x", policy=policy).stat()


def test_the_total_time_ends_the_attempts_early() -> None:
    assert len(list(ReadPolicy(attempts=10, delay=1, total=0.1).delays())) == 0
    delays = list(ReadPolicy(attempts=10, delay=0.1, longest_delay=5).delays())
    assert len(delays) == 9
    assert all(0.05 <= delay <= 5 for delay in delays)


def test_the_64_ranges_of_a_chunk_are_in_flight_together(
    server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A server with the usual queue of 5 connections, which answers nothing before it has all requests.
    all_here = threading.Barrier(64)

    def fault(handler: Handler, nth: int, wanted: tuple[int, int] | None) -> bool:
        all_here.wait(timeout=20)
        return False

    server.fault = fault
    monkeypatch.setattr("zonal.io.store.ranges.GAP", 0)
    wanted = [(1000 * i, 10) for i in range(64)]
    # Patient: on a busy machine a connection may have to be asked for a second and a third time.
    blob = Blob(server.url, policy=ReadPolicy(attempts=1, stall=20))
    assert blob.read(wanted) == [DATA[offset : offset + length] for offset, length in wanted]


def test_one_blob_serves_many_threads(server: Any) -> None:
    blob = Blob(server.url, policy=QUICK)

    def right(seed: int) -> bool:
        offsets = np.random.default_rng(seed).integers(0, 400_000, 10).tolist()
        return all(blob.read([(offset, 100)]) == [DATA[offset : offset + 100]] for offset in offsets)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(right, range(8)))
    assert (blob.counters.requests, blob.counters.bytes) == (80, 8000)


def test_texts_lose_the_user_and_query_of_urls() -> None:
    assert scrub_urls("at https://u:p@h/x?sig=1 and s3://b/k") == "at https://h/x and s3://b/k"
    assert explain(OSError("bad https://h/x?token=9")) == "bad https://h/x"
    assert explain(TimeoutError()) == "TimeoutError"


def flipped(handler: Handler, wanted: tuple[int, int]) -> None:
    first, last = wanted
    body = bytearray(DATA[first : last + 1])
    body[len(body) // 2] ^= 4
    handler.send(206, bytes(body), Content_Range=f"bytes {first}-{last}/{len(DATA)}")


def test_a_bit_that_flips_on_the_way_is_seen_only_by_reading_twice(server: Any) -> None:
    def fault(handler: Handler, nth: int, wanted: Any) -> bool:
        wrong = wanted is not None and (nth == 1 or (nth == 4 and wanted[0] == 0))
        if wrong:
            flipped(handler, wanted)
        return wrong

    server.fault = fault
    twice = Blob(server.url, policy=replace(QUICK, twice=True))
    assert twice.read(FAR_APART) == PARTS
    assert twice.counters.retries == 5 + 1
    assert twice.counters.requests == 2 * (5 + 5 + 1)
    server.seen.clear()
    assert Blob(server.url, policy=QUICK).read(FAR_APART) != PARTS, "one read cannot see it"


def test_a_range_that_never_comes_twice_alike_ends_with_the_cause(server: Any) -> None:
    def fault(handler: Handler, nth: int, wanted: Any) -> bool:
        if wanted is not None and nth % 2:
            flipped(handler, wanted)
            return True
        return False

    server.fault = fault
    said = r"chunk 7, bytes 0 to 1000: two reads of it gave different bytes \(4 attempts\)"
    with pytest.raises(StoreError, match=said):
        Blob(server.url, policy=replace(QUICK, twice=True)).read([(0, 1000)], "chunk 7")


def gets(server: Any) -> int:
    return sum(count for (command, _), count in server.seen.items() if command == "GET")


def test_bytes_that_the_cache_holds_are_not_asked_for_again(server: Any, tmp_path: Path) -> None:
    policy = replace(QUICK, cache=Cache(str(tmp_path / "cache"), 10**8))
    for asked in (5, 0):
        before = gets(server)
        blob = Blob(server.url, policy=policy)
        stat = blob.stat()
        assert blob.read(FAR_APART) == PARTS
        assert gets(server) - before == asked
    assert blob.counters.cached == sum(map(len, PARTS))
    before = gets(server)
    Blob(server.url, policy=policy, stat=replace(stat, etag="v2")).read(FAR_APART)
    Blob(server.url, policy=replace(policy, twice=True), stat=stat).read(FAR_APART)
    assert gets(server) - before == 5 + 10, "of another version; or read once, where twice is asked for"


def test_a_query_that_names_the_file_tells_it_from_another_in_the_cache(server: Any, tmp_path: Path) -> None:
    policy = replace(QUICK, cache=Cache(str(tmp_path / "cache"), 10**8))
    one, other = (Blob(f"{server.url}?file={name}", None, policy) for name in "ab")
    assert one.stat() == other.stat(), "as those of files made in one second may be"
    one.read([(0, 100)])
    other.read([(0, 100)])
    assert other.counters.cached == 0


def test_bytes_of_a_file_that_was_replaced_meanwhile_are_not_kept_as_the_older_one(
    server: Any, tmp_path: Path
) -> None:
    policy = replace(QUICK, cache=Cache(str(tmp_path / "cache"), 10**8))
    planned = Blob(server.url, None, policy).stat()

    def replaced(handler: Handler, nth: int, wanted: tuple[int, int] | None) -> bool:
        if wanted is None:
            handler.send(200, DATA, ETag='"v2"')
        else:
            handler.send(206, bytes(100), Content_Range=f"bytes 0-99/{len(DATA)}")
        return True

    server.fault = replaced
    assert Blob(server.url, None, policy, planned).read([(0, 100)]) == [bytes(100)]
    server.fault = lambda *_: False  # the older one is put back
    again = Blob(server.url, None, policy, planned)
    assert again.read([(0, 100)]) == [DATA[:100]]


def test_bytes_that_were_of_no_use_are_not_taken_from_the_cache_again(server: Any, tmp_path: Path) -> None:
    def fault(handler: Handler, nth: int, wanted: Any) -> bool:
        if wanted is not None and nth == 1:
            flipped(handler, wanted)
            return True
        return False

    server.fault = fault
    policy = replace(QUICK, cache=Cache(str(tmp_path / "cache"), 10**8))
    blob = Blob(server.url, policy=policy)
    blob.stat()

    def use() -> bytes:
        (data,) = blob.read([(0, 1000)])
        if data != DATA[:1000]:
            raise ValueError("not what was written")
        return data

    assert blob.until_usable(use, "the start") == DATA[:1000]
    assert gets(server) == 2
    again = Blob(server.url, policy=policy, stat=blob.stat())
    assert again.read([(0, 1000)]) == [DATA[:1000]]
    assert gets(server) == 2, "the good bytes took the place of the others"


def test_other_bytes_than_those_asked_for_are_refused_from_s3_too(server: Any) -> None:
    def fault(handler: Handler, nth: int, wanted: Any) -> bool:
        if wanted is None or nth > 2:
            return False
        if nth == 1:
            handler.part(wanted[0] + 1, wanted[1] + 1)
        else:
            handler.send(200, DATA[: wanted[1] - wanted[0] + 1])
        return True

    server.fault = fault
    place = {"endpoint_url": server.url.rsplit("/", 1)[0], "key": "me", "secret": "made-up"}
    blob = Blob("s3://bucket/data.bin", {**place, "config_kwargs": PATH_STYLE}, policy=QUICK)
    assert blob.read([(1000, 500), (200_000, 7)]) == [DATA[1000:1500], DATA[200_000:200_007]]
    assert blob.counters.retries == 4


PATH_STYLE = {"s3": {"addressing_style": "path"}}
