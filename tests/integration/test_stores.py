"""The real run from a folder, over HTTP and from S3, and into S3: one table, whatever carries the bytes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import shapely
from builds import Run
from servers import S3Server, http_server, zonal

from zonal.cluster.runner import Threads
from zonal.config.settings import Settings
from zonal.engine.run import run
from zonal.errors import InputError, StoreError, ZonalError
from zonal.geo.pieces import Pieces
from zonal.io.store.folder import Folder
from zonal.io.store.ranges import ReadPolicy
from zonal.planning.stage import EVERY_YEAR, Batch, Stage, write_batch, zone_table

TILE = "tge-labs/aef/v1/annual/2024/16N/xwi2024demo000001-0000000000-0000000000.tiff"
PASSWORD = "hunter2-of-the-loopback"


@pytest.fixture(scope="module")
def store(s3: S3Server, shared: Path) -> S3Server:
    """Hold the mirror in a plain bucket, and in one whose name has dots, as the public one's has."""
    wanted = shared / "mirror"
    s3.upload(wanted, "mirror-of-all", "some/prefix")
    fs = s3.filesystem()
    fs.makedirs("dotted.mirror.example", exist_ok=True)
    for name in s3.keys("mirror-of-all"):
        fs.cp_file(f"mirror-of-all/{name}", f"dotted.mirror.example/{name.removeprefix('some/prefix/')}")
    fs.makedirs("results", exist_ok=True)
    return s3


@pytest.fixture
def reaches(store: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """The store, reached by the environment alone."""
    for name, value in store.environment.items():
        monkeypatch.setenv(name, value)
    yield store


def settings(mirror: object, output: object, **more: Any) -> Settings:
    return Settings(**{"state": "WI", "year": 2024, "mirror": str(mirror), "output": str(output)} | more)


def run_here(mirror: object, output: object, **more: Any) -> dict[str, Any]:
    (result,) = run(settings(mirror, output, **more), runner=Threads(2))
    return result.manifest


def everything_in(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


# ------------------------------------------------------------------ HTTP


def test_a_plain_http_server_gives_the_same_bytes_as_the_folder(wisconsin: Run, tmp_path: Path) -> None:
    with http_server(wisconsin.mirror) as server:
        manifest = run_here(server.url, tmp_path)
        asked = list(server.asked)
    assert (tmp_path / "stats.parquet").read_bytes() == wisconsin.path.read_bytes()
    assert manifest["bytes"]["fetched"] == wisconsin.manifest["bytes"]["fetched"]
    assert [(t["path"], t["size"]) for t in manifest["inputs"]["tiles"]] == [
        (t["path"], t["size"]) for t in wisconsin.manifest["inputs"]["tiles"]
    ]
    spans = [span for method, path, span in asked if method == "GET" and path == TILE]
    assert spans and all(span.startswith("bytes=") for span in spans), "the tile is never asked for whole"
    ends = [span.removeprefix("bytes=").split("-") for span in spans]
    sent = sum(int(last) - int(first) + 1 for first, last in ends)
    assert sent <= 1.05 * manifest["bytes"]["to_fetch"], "no byte of the tile travels twice"


def test_a_second_run_takes_from_its_cache_what_the_first_one_fetched(wisconsin: Run, tmp_path: Path) -> None:
    with http_server(wisconsin.mirror) as server:
        first = run_here(server.url, tmp_path / "a", cache=str(tmp_path / "cache"))["bytes"]
        server.asked.clear()
        second = run_here(server.url, tmp_path / "b", cache=str(tmp_path / "cache"))["bytes"]
        assert {method for method, *_ in server.asked} == {"HEAD"}, "sizes and versions are asked for anew"
    assert (first["fetched"], first["cached"]) == (second["cached"], 0)
    assert second["fetched"] == 0
    for name in ("a", "b"):
        assert (tmp_path / name / "stats.parquet").read_bytes() == wisconsin.path.read_bytes()


def test_a_server_without_byte_ranges_is_refused_in_one_sentence(
    wisconsin: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ReadPolicy, "delays", lambda self: iter([0.01, 0.01]))
    with (
        http_server(wisconsin.mirror, ranges=False) as server,
        pytest.raises(StoreError, match="ignores byte ranges") as caught,
    ):
        run_here(server.url, tmp_path / "out")
    assert caught.value.exit_code == 4
    assert not (tmp_path / "out").exists()


def test_a_tile_that_the_server_lacks_ends_the_run_by_name(wisconsin: Run, tmp_path: Path) -> None:
    with http_server(wisconsin.mirror, missing=(".tiff",)) as server:
        done = zonal(
            *("run", "--state", "WI", "--year", 2024, "--output", "out", "--mirror", server.url),
            folder=tmp_path,
        )
    assert done.returncode == 3, done.stdout + done.stderr
    (sentence,) = [line for line in done.stderr.splitlines() if line.startswith("zonal: ")]
    assert TILE in sentence and "no such file" in sentence and "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_password_in_the_mirrors_address_is_used_and_never_shown(
    wisconsin: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    login = f"reader:{PASSWORD}"
    with http_server(wisconsin.mirror, login=login) as server:
        manifest = run_here(server.url.replace("://", f"://{login}@"), tmp_path / "out")
        assert (tmp_path / "out/stats.parquet").read_bytes() == wisconsin.path.read_bytes()
        assert manifest["settings"]["mirror"] == server.url
        assert PASSWORD.encode() not in everything_in(tmp_path)
        server.missing = (".tiff",)
        with pytest.raises(InputError) as caught:
            run_here(server.url.replace("://", f"://{login}@"), tmp_path / "other")
        assert PASSWORD not in str(caught.value) and TILE in str(caught.value)
        server.login = "reader:changed"
        with pytest.raises(ZonalError) as refused:
            run_here(server.url.replace("://", f"://{login}@"), tmp_path / "third")
        assert PASSWORD not in str(refused.value) and "401" in str(refused.value)


# ------------------------------------------------------------------ S3


def test_a_mirror_on_s3_gives_the_same_bytes_as_the_folder(
    wisconsin: Run, reaches: S3Server, tmp_path: Path
) -> None:
    manifest = run_here("s3://mirror-of-all/some/prefix", tmp_path)
    assert (tmp_path / "stats.parquet").read_bytes() == wisconsin.path.read_bytes()
    assert manifest["bytes"]["fetched"] == wisconsin.manifest["bytes"]["fetched"]


def test_the_command_reads_a_dotted_bucket_and_leaves_only_the_table_and_its_manifest(
    wisconsin: Run, store: S3Server, tmp_path: Path
) -> None:
    words = ["run", "--state", "WI", "--year", 2024, "--mirror", "s3://dotted.mirror.example"]
    words += ["--output", "s3://results/out/wi", "--steps", "stats"]
    done = zonal(*words, folder=tmp_path, **store.environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "s3://results/out/wi/stats.parquet" in done.stdout
    fs = store.filesystem()
    names = [name for name in store.keys("results") if name.startswith("out/wi")]
    assert names == ["out/wi/manifest.json", "out/wi/stats.parquet"]
    assert fs.cat_file("results/out/wi/stats.parquet") == wisconsin.path.read_bytes()
    stored = fs.cat_file("results/out/wi/manifest.json")
    manifest = json.loads(stored)
    assert manifest["files"] == ["stats.parquet"]
    assert manifest["zones"] == wisconsin.manifest["zones"]
    assert manifest["settings"]["output"] == "s3://results/out/wi"
    told = done.stdout + done.stderr + stored.decode()
    for secret in (store.key, store.secret):
        assert secret not in told
    assert not list(tmp_path.iterdir()), "nothing is written to the working directory"


def test_credentials_from_storage_options_work_and_are_written_nowhere(store: S3Server) -> None:
    told: list[str] = []
    given = settings(
        "s3://mirror-of-all/some/prefix",
        "s3://results/by-options",
        storage_options={"s3": store.options},
        bbox=(-88.835, 44.26, -88.82, 44.27),  # few chunks: what is read is not in question here
    )
    (result,) = run(given, runner=Threads(2), notify=lambda event: told.append(repr(event)))
    fs = store.filesystem()
    assert fs.exists("results/by-options/stats.parquet") and result.manifest["zones"]["covered"] > 10
    everything = repr(given) + repr(result) + "".join(told) + json.dumps(result.manifest)
    everything += "".join(fs.cat_file(f"results/{n}").decode("latin-1") for n in store.keys("results"))
    for secret in (store.key, store.secret):
        assert secret not in everything


def test_wrong_credentials_end_the_run_without_being_shown(
    store: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ReadPolicy, "delays", lambda self: iter([0.01]))
    options = {"s3": store.options | {"secret": PASSWORD}}
    with pytest.raises(ZonalError) as caught:
        run_here("s3://no-such-bucket/x", tmp_path / "out", storage_options=options)
    assert caught.value.exit_code in (3, 4)
    assert PASSWORD not in str(caught.value) and "no-such-bucket" in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_the_same_run_again_on_s3_has_nothing_to_do(wisconsin: Run, reaches: S3Server) -> None:
    given = settings(wisconsin.mirror, "s3://results/twice")
    (first,) = run(given, runner=Threads(2))
    (second,) = run(given, runner=Threads(2))
    assert first.fresh and not second.fresh
    assert second.manifest == first.manifest


def test_a_failed_run_leaves_nothing_on_s3(reaches: S3Server) -> None:
    with pytest.raises(InputError, match="covers any of the 10,146 zones"):
        run_here("s3://dotted.mirror.example", "s3://results/colorado", state="CO")
    assert not [name for name in reaches.keys("results") if name.startswith("colorado")]


def test_a_bucket_that_is_not_there_ends_the_run_in_one_sentence(
    wisconsin: Run, reaches: S3Server, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"cannot write to s3://no-such-bucket/.*: no such bucket"):
        run_here(wisconsin.mirror, "s3://no-such-bucket/x")


def test_an_endpoint_that_does_not_answer_ends_the_run_in_one_sentence(wisconsin: Run) -> None:
    quick = {"config_kwargs": {"retries": {"total_max_attempts": 1}}}
    options = {"s3": {"key": "me", "secret": PASSWORD, "endpoint_url": "http://127.0.0.1:1"} | quick}
    with pytest.raises(StoreError, match=r"s3://results/x: .*; try again later") as caught:
        run_here(wisconsin.mirror, "s3://results/x", storage_options=options)
    assert PASSWORD not in str(caught.value)


def test_staged_row_groups_come_by_ranges_and_are_counted_as_they_travel(store: S3Server) -> None:
    folder = Folder("s3://results/staged", store.options)
    size, groups = 1_000, 40
    frame = gpd.GeoDataFrame(
        {"id": [f"{i:06d}" for i in range(size * groups)]},
        geometry=shapely.box(np.arange(size * groups), 0, np.arange(size * groups) + 1, 1),
        crs=32616,
    )
    count = len(frame)
    pieces = Pieces(np.arange(count), np.full(count, 32616, np.int32), frame.geometry.to_numpy())

    def write(some: Pieces, size: int) -> None:
        zones = zone_table(frame.iloc[: len(some)])
        words = {"crs": frame.crs.to_wkt(), "first_zone": 0, "first_piece": 0, "size": size}
        write_batch(folder, 0, zones, np.ones(len(some)), {EVERY_YEAR: some}, **words)

    write(pieces, size)
    batches = (Batch("WI", count, size),)
    stage = Stage(folder, "", "", frame.crs.to_wkt(), "id", batches, {}, {})
    whole = folder.blob("pieces-000.parquet").stat().size
    with counted_requests() as spans:
        found, _, read = stage.pieces([3, 4], epsg=32616, year=2024, bounds=(0, 0, count, 1))
    assert found.zone.tolist() == list(range(3 * size, 5 * size))
    assert len(spans) == 1, "neighbouring row groups come in one request"
    assert sum(stop - start for start, stop in spans) == read < 0.1 * whole
    # Another file under the same name: neither its footer nor its rows are the old one's.
    write(pieces.take(np.arange(count // 2)), size // 2)
    again = replace(stage, batches=(Batch("WI", count // 2, size // 2),))
    found, _, _ = again.pieces([3], epsg=32616, year=2024, bounds=(0, 0, count, 1))
    assert found.zone.tolist() == list(range(3 * size // 2, 2 * size))


@contextmanager
def counted_requests() -> Iterator[list[tuple[int, int]]]:
    """Byte ranges that the S3 client is asked for, but those of footers."""
    import s3fs

    spans: list[tuple[int, int]] = []
    old = s3fs.S3FileSystem._cat_file

    async def counted(self: Any, path: str, start: Any = None, end: Any = None, **more: Any) -> bytes:
        data: bytes = await old(self, path, start=start, end=end, **more)
        if not data.endswith(b"PAR1"):
            spans.append((start, start + len(data)))
        return data

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(s3fs.S3FileSystem, "_cat_file", counted)
        yield spans
