"""Credentials of every kind on a real cluster, in runs that succeed and fail: they are shown nowhere."""

from __future__ import annotations

import base64
import json
import re
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml
from processes import Cluster, dask_cluster, wait_for
from servers import FolderServer, S3Server, http_server, zonal
from synthetic import small_town

from zonal.cluster.connection import connect
from zonal.errors import InputError

LOGIN = "reader:pa55word-of-the-mirror"
SIGNATURE = "s1gnature-of-the-zones"
API_KEY = "a-key-in-the-workflows-headers"
TOKEN = "t0ken-in-the-environment"
ENV_SECRET = "s3cret/in+the/environment"

# What a client might say in an error that nobody foresaw, in the place where pixels are decoded.
BUG = """
from pathlib import Path
from zonal.io.raster.cog import Cog

decode = getattr(Cog.decode, "sound", Cog.decode)  # a preload may be loaded twice

def buggy(self, fetched, reuse=None):
    if not Path({flag!r}).exists():
        return decode(self, fetched, reuse)
    signature = Path({flag!r}).read_text()
    if signature == "deep":
        return buggy(self, fetched, reuse)
    try:
        raise KeyError(self.blob.path)
    except KeyError as error:
        raise RuntimeError(f"no answer to GET {{self.blob.path}}?X-Amz-Signature={{signature}}"
                           f" with {{dict(self.blob._fs.kwargs)}}") from error

buggy.sound = decode
Cog.decode = buggy
"""


@dataclass
class Place:
    """A cluster, the servers around it, and all the secrets that lead to them."""

    folder: Path
    bug: Path
    cluster: Cluster
    mirror: FolderServer
    zones: FolderServer
    s3: S3Server
    environment: dict[str, str]
    pages: dict[str, str] = field(default_factory=dict)

    @property
    def mirror_url(self) -> str:
        return self.mirror.url.replace("://", f"://{LOGIN}@")

    def workflow(self, output: str, *, s3: bool) -> Path:
        """A workflow with all of it: logins, a signed query, options by protocol."""
        options = {"http": {"client_kwargs": {"headers": {"X-Api-Key": API_KEY}}}}
        file = self.folder / "workflow.yaml"
        settings = {
            "zones": f"{self.zones.url}/zones.parquet?sig={SIGNATURE}",
            "zone_id": "GEOID20",
            "year": 2024,
            "mirror": self.mirror_url,
            "output": output,
            "cluster": self.cluster.address,
            "storage_options": options | ({"s3": self.s3.options} if s3 else {}),
        }
        file.write_text(yaml.safe_dump(settings))
        return file

    def shown(self) -> dict[str, str]:
        """Whatever was written or can be looked at: files, logs, objects of the store, pages."""
        files = {str(p): p for p in self.folder.rglob("*") if p.is_file() and p.name != "workflow.yaml"}
        found = {name: path.read_bytes().decode("latin-1") for name, path in files.items()}
        fs = self.s3.filesystem()
        for name in self.s3.keys("results-of-secrets"):
            found[f"s3 {name}"] = fs.cat_file(f"results-of-secrets/{name}").decode("latin-1")
        return found | self.pages

    def secrets(self) -> list[str]:
        password = LOGIN.split(":")[1]
        basic = base64.b64encode(LOGIN.encode()).decode()
        own = [password, basic, SIGNATURE, API_KEY, TOKEN, ENV_SECRET, self.s3.secret]
        return own + [urllib.parse.quote(secret, safe="") for secret in (ENV_SECRET, self.s3.secret)]

    def leaks(self, **told: str) -> list[tuple[str, str]]:
        return [
            (where, text[max(0, text.index(secret) - 200) : text.index(secret) + 80])
            for where, text in (self.shown() | told).items()
            for secret in self.secrets()
            if secret in text
        ]

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Look at every page of the scheduler, again and again, as long as it goes on."""
        ended = threading.Event()
        watcher = threading.Thread(target=self._watch, args=(ended,))
        watcher.start()
        try:
            yield
        finally:
            ended.set()
            watcher.join()

    def _watch(self, ended: threading.Event) -> None:
        (port,) = re.findall(r"dashboard at: +http://127.0.0.1:(\d+)/status", self.cluster.logs)
        base = f"http://127.0.0.1:{port}"
        first = ["info/main/workers.html", "info/main/exceptions.html", "info/logs.html", "json/counts.json"]
        first += ["json/identity.json", "metrics", "status", "tasks", "info/main/logs.html"]
        while not ended.is_set():
            todo, seen = list(first), set()
            while todo:
                page = todo.pop()
                seen.add(page)
                with ExitStack() as stack:
                    try:
                        url = urllib.parse.urljoin(f"{base}/", page)
                        answer = stack.enter_context(urllib.request.urlopen(url, timeout=20))
                    except (urllib.error.HTTPError, OSError):
                        continue
                    text = answer.read().decode(errors="replace")
                kind = re.sub(r"/[^/]*$", "", page) if page.startswith("info/") else page
                self.pages[f"{kind} {len(self.pages)}"] = text
                for link in re.findall(r'href="([^"]+\.html)"', text):
                    path = urllib.parse.urljoin(f"/{page}", link).lstrip("/")
                    if path.startswith("info/") and path not in seen and len(seen) < 25:
                        todo.append(path)
            ended.wait(0.3)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, s3: S3Server) -> Iterator[Place]:
    data, folder = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("shown")
    small_town(data)
    s3.filesystem().makedirs("results-of-secrets", exist_ok=True)
    environment = s3.environment | {"AWS_SECRET_ACCESS_KEY": ENV_SECRET, "AWS_SESSION_TOKEN": TOKEN}
    (data / "bug.py").write_text(BUG.format(flag=str(data / "bug")))
    with (
        http_server(data / "mirror", login=LOGIN) as mirror,
        http_server(data) as zones,
        dask_cluster(folder / "cluster", dashboard=True, **environment) as cluster,
    ):
        cluster.add("--preload", data / "bug.py")
        yield Place(folder, data / "bug", cluster, mirror, zones, s3, environment)


def run(place: Place, output: str, *words: str, s3: bool = True) -> tuple[int, str]:
    """Exit code and all that the command said; nothing of it, nor of what it left, is a secret."""
    with place.watched():
        done = zonal(
            *("run", place.workflow(output, s3=s3), *words), folder=place.folder, **place.environment
        )
    told = done.stdout + done.stderr
    assert not place.leaks(told=told)
    return done.returncode, told


def late_chunks(status: int, path: str, span: str) -> int:
    """Fault of ranges that hold pixels: a header is read from the beginning of a tile."""
    start = int(span.removeprefix("bytes=").split("-")[0] or 0)
    return status if path.endswith(".tiff") and start > 200_000 else 0


def test_a_run_that_ends_well_shows_no_secret(place: Place) -> None:
    code, told = run(place, "s3://results-of-secrets/done")
    assert code == 0, told
    assert "s3://results-of-secrets/done/stats.parquet" in told
    assert [page for page in place.pages if page.startswith("info/worker")]
    assert [page for page in place.pages if page.startswith("json/identity")]
    manifest = next(text for name, text in place.shown().items() if name.endswith("manifest.json"))
    given = json.loads(manifest)["settings"]
    assert given["mirror"] == place.mirror.url
    assert given["zones"] == f"{place.zones.url}/zones.parquet"
    assert given["storage_options"]["http"] == {"client_kwargs": {"headers": "***"}}


@pytest.mark.slow
def test_a_tile_that_is_missing_on_a_worker_shows_no_secret(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place.mirror, "fault", lambda _, path, span: late_chunks(404, path, span))
    code, told = run(place, "s3://results-of-secrets/missing", s3=False)
    assert code == 3, told
    assert f"{place.mirror.url}/tge-labs/aef" in told and "no such file" in told


@pytest.mark.slow
def test_a_store_that_refuses_shows_no_secret(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place.mirror, "fault", lambda _, path, span: late_chunks(403, path, span))
    code, told = run(place, "s3://results-of-secrets/refused", "--json-logs", "--attempts", "3")
    assert code == 4, told
    assert "HTTP 403" in told


def test_an_endless_recursion_on_a_worker_does_not_make_the_run_wait_for_ever(place: Place) -> None:
    place.bug.write_text("deep")
    try:
        code, told = run(place, "s3://results-of-secrets/deep")
    finally:
        place.bug.unlink()
    assert code == 70, told
    assert "RecursionError" in told


def test_a_bug_on_a_worker_shows_no_secret(place: Place) -> None:
    place.bug.write_text(SIGNATURE)
    try:
        code, told = run(place, "s3://results-of-secrets/bug")
    finally:
        place.bug.unlink()
    assert code == 70, told
    assert f"no answer to GET {place.mirror.url}/tge-labs/aef" in told
    assert "no answer to GET" in place.cluster.logs


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("plan", "--raster", "{login}/no.tif", "--zones", "z.gpkg", "--zone-id", "id"), 3),
        (("plan", "--raster", "{login}/no.tif?sig={signature}", "--zones", "{login}/a?sig={signature}"), 2),
        (("plan", "--state", "WA", "--year", "2024", "--mirror", "{login}/nothing"), 3),
        (("catalog", "check", "aef_annual", "--mirror", "{login}/nothing"), 3),
        (("compare", "{login}/stats.parquet?sig={signature}", "b.csv"), 3),
        (("export", "{login}/stats.parquet?sig={signature}", "--to", "csv"), 3),
        (("run", "{login}/w?sig={signature}"), 3),
        (("run", "--cluster", "{login}"), 2),
    ],
)
def test_what_is_wrong_with_an_address_is_said_without_its_secrets(
    place: Place, tmp_path: Path, words: tuple[str, ...], code: int
) -> None:
    (tmp_path / "z.gpkg").touch()
    (tmp_path / "b.csv").write_text("id\n1\n")
    said = [word.format(login=place.mirror_url, signature=SIGNATURE) for word in words]
    done = zonal(*said, folder=tmp_path)
    told = done.stdout + done.stderr
    assert done.returncode == code, told
    assert not [secret for secret in place.secrets() if secret in told], told


def test_a_cluster_with_another_zonal_is_refused_before_it_is_sent_any_secret(tmp_path: Path) -> None:
    old = tmp_path / "old" / "zonal-0.0.1.dist-info"
    old.mkdir(parents=True)
    (old / "METADATA").write_text("Metadata-Version: 2.1\nName: zonal\nVersion: 0.0.1\n")
    with dask_cluster(tmp_path / "cluster", PYTHONPATH=str(tmp_path / "old")) as cluster:
        cluster.add()
        with (
            pytest.raises(InputError, match=r"the scheduler of .* has zonal 0\.0\.1, this process zonal \d"),
            connect(cluster.address, None, None),
        ):
            pass
        wait_for(lambda: "Remove client" in cluster.logs, "its client never left")
