"""Input made to do harm: a clear error of one sentence or the right answer, in bounded time and memory."""

from __future__ import annotations

import json
import stat
import struct
import time
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely

from zonal.config.catalog import Catalog
from zonal.config.workflows import load
from zonal.credentials import redacted, secrets
from zonal.errors import InputError, UsageError
from zonal.io.raster.cog import Cog
from zonal.io.table import vector
from zonal.io.table.geoparquet import deep
from zonal.io.table.vector import read_index, read_zones
from zonal.planning.tiles import INDEX_COLUMNS, near

ZONES = gpd.GeoDataFrame(
    {"id": ["a", "b"]}, geometry=[shapely.box(0, 0, 1, 1), shapely.box(1, 0, 2, 1)], crs="EPSG:4326"
)
VRT = (
    '<OGRVRTDataSource><OGRVRTLayer name="zones"><SrcDataSource>{}</SrcDataSource>'
    "</OGRVRTLayer></OGRVRTDataSource>"
)


@pytest.fixture
def little_memory() -> Iterator[None]:
    """What Python and NumPy take stays under 64 MiB, and the test under 20 seconds of the processor."""
    start = time.process_time()
    tracemalloc.start()
    yield
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 * 2**20
    assert time.process_time() - start < 20


def refused(path: Path, match: str, read: Callable[..., Any] = read_zones, *rest: Any) -> str:
    with pytest.raises(InputError, match=match) as caught:
        read(str(path), *rest)
    message = str(caught.value)
    assert path.name in message
    assert "\n" not in message
    assert len(message) < 600
    return message


# ---------------------------------------------------------------------- zip files


def shapefile(folder: Path) -> dict[str, bytes]:
    (folder / "shp").mkdir()
    ZONES.to_file(folder / "shp" / "zones.shp")
    return {file.name: file.read_bytes() for file in (folder / "shp").iterdir()}


def zipped(path: Path, members: dict[Any, Any]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize(
    "name", ["../x.txt", "a/../../x.txt", "/tmp/x.txt", "C:\\x.txt", "c:x.txt", "..\\x.txt", "\\x.txt"]
)
def test_a_zip_member_that_points_outside_is_refused(tmp_path: Path, name: str) -> None:
    refused(zipped(tmp_path / "z.zip", shapefile(tmp_path) | {name: "x"}), "points outside")


def test_a_link_in_a_zip_is_refused(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("readme.txt")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    refused(zipped(tmp_path / "z.zip", shapefile(tmp_path) | {link: "/etc/passwd"}), "is a link")


def test_odd_names_and_thousands_of_members_of_a_zip_do_no_harm(tmp_path: Path) -> None:
    odd = {f"zö\n\t\"'<>☃{Path(name).suffix}": content for name, content in shapefile(tmp_path).items()}
    many = {f"{number}.txt": "" for number in range(3000)}
    frame, _ = read_zones(str(zipped(tmp_path / "z.zip", odd | many)))
    assert frame["id"].tolist() == ["a", "b"]


def test_a_zip_of_too_many_members_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = zipped(tmp_path / "z.zip", shapefile(tmp_path) | {f"{n}.txt": "" for n in range(vector.MEMBERS)})
    refused(path, "holds 10,00. files, expected 10,000 at most")
    monkeypatch.setattr(vector, "LISTING", 10_000)
    refused(path, r"list of members takes \d+,\d+ bytes")


def many_headers(path: Path, copies: int) -> Path:
    """Let a zip's list name one member again and again: members that overlap."""
    raw = path.read_bytes()
    end = raw.rindex(b"PK\5\6")
    start = int.from_bytes(raw[end + 16 : end + 20], "little")
    (entry,) = [b"PK\1\2" + part for part in raw[start:end].split(b"PK\1\2")[1:] if b"zeros" in part]
    listing = raw[start:end] + entry * copies
    total = len(listing) // len(entry)
    tail = (
        raw[end:][:8] + total.to_bytes(2, "little") * 2 + len(listing).to_bytes(4, "little") + raw[end:][16:]
    )
    path.write_bytes(raw[:start] + listing + tail)
    return path


def test_a_zip_bomb_is_refused_before_a_byte_is_unpacked(tmp_path: Path, little_memory: None) -> None:
    path = zipped(tmp_path / "z.zip", shapefile(tmp_path) | {"zeros.bin": bytes(2**24)})
    assert len(read_zones(str(path))[0]) == 2  # 16 MB of zeros are no bomb
    start = time.process_time()
    refused(many_headers(path, 1000), r"claims to hold 16,\d+,\d+,\d+ bytes, expected \d+,\d+,\d+ at most")
    assert time.process_time() - start < 2


def test_an_attribute_table_that_packs_well_is_no_bomb(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vector, "SPARE", 0)
    count = 50_000
    frame = gpd.GeoDataFrame(
        {"id": [f"{n:015d}" for n in range(count)], "name": "x", "kind": "a" * 80},
        geometry=shapely.box(np.arange(count), 0, np.arange(count) + 1, 1),
        crs="EPSG:5070",
    )
    (tmp_path / "shp").mkdir()
    frame.to_file(tmp_path / "shp" / "zones.shp")
    files = {file.name: file.read_bytes() for file in (tmp_path / "shp").iterdir()}
    path = zipped(tmp_path / "z.zip", files)
    with zipfile.ZipFile(path) as archive:
        table = archive.getinfo("zones.dbf")
    assert table.file_size > 40 * table.compress_size
    assert len(read_zones(str(path))[0]) == count


def test_an_encrypted_or_nested_or_damaged_zip_says_so(tmp_path: Path) -> None:
    path = zipped(tmp_path / "z.zip", shapefile(tmp_path))
    raw = bytearray(path.read_bytes())
    listed = raw.index(b"PK\1\2")
    flagged = raw.copy()
    flagged[listed + 8] |= 1
    (tmp_path / "e.zip").write_bytes(flagged)
    refused(tmp_path / "e.zip", "is encrypted")
    refused(zipped(tmp_path / "n.zip", {"z.zip": bytes(raw)}), "not recognized")
    with zipfile.ZipFile(path) as archive:
        raw[archive.getinfo("zones.dbf").header_offset + 45] ^= 255
    (tmp_path / "d.zip").write_bytes(raw)
    refused(tmp_path / "d.zip", "damaged|not a readable zip")


def test_a_zip_by_another_name_is_looked_at_too(tmp_path: Path) -> None:
    refused(zipped(tmp_path / "z.kmz", {"../doc.kml": "x"}), "points outside")


# ---------------------------------------------------------------------- files that read other files


@pytest.mark.parametrize("name", ["zones.vrt", "zones.txt", "zones.gpkg"])
def test_a_vrt_is_refused_alone_and_in_a_zip(tmp_path: Path, name: str) -> None:
    ZONES.to_file(tmp_path / "real.gpkg")
    text = VRT.format(tmp_path / "real.gpkg")
    (tmp_path / name).write_text("\n" * 500 + text)
    refused(tmp_path / name, "points at other data")
    refused(zipped(tmp_path / "z.zip", {name: text}), "points at other data")
    refused(tmp_path / name, "points at other data", read_index, ["id"])


@pytest.mark.parametrize(
    "text",
    [
        '{"type": "gdal_streamed_alg", "command_line": "gdal vector pipeline ! read real.gpkg"}',
        "<OGRWFSDataSource><URL>http://127.0.0.1:9/</URL></OGRWFSDataSource>",
    ],
)
def test_a_pipeline_or_a_service_in_place_of_a_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "zones.json").write_text(text)
    refused(tmp_path / "zones.json", "points at other data")


def test_a_view_of_a_geopackage_is_a_layer_like_any_other(tmp_path: Path) -> None:
    import sqlite3

    ZONES.to_file(tmp_path / "z.gpkg", layer="real")
    with sqlite3.connect(tmp_path / "z.gpkg") as base:
        base.execute("CREATE VIEW seen AS SELECT fid AS OGC_FID, id, geom FROM real WHERE id = 'a'")
        base.execute("UPDATE gpkg_contents SET table_name = 'seen', identifier = 'seen'")
        base.execute("DELETE FROM gpkg_extensions")
        base.execute("UPDATE gpkg_geometry_columns SET table_name = 'seen'")
    assert read_zones(str(tmp_path / "z.gpkg"))[0]["id"].tolist() == ["a"]


def test_entities_of_xml_are_neither_expanded_nor_fetched(tmp_path: Path, little_memory: None) -> None:
    (tmp_path / "secret.txt").write_text("s3cret")
    lol = "".join(f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in zip("abcdefghi", "bcdefghij", strict=True))
    entities = f'<!ENTITY a "aaaaaaaaaa">{lol}<!ENTITY x SYSTEM "file://{tmp_path}/secret.txt">'
    for use in ("&j;", "&x;"):
        (tmp_path / "z.gml").write_text(
            f'<?xml version="1.0"?><!DOCTYPE l [{entities}]><gml:FeatureCollection '
            'xmlns:gml="http://www.opengis.net/gml"><gml:featureMember><z><id>'
            f'{use}</id><gml:Polygon srsName="EPSG:4326"><gml:outerBoundaryIs><gml:LinearRing>'
            "<gml:coordinates>0,0 1,0 1,1 0,0</gml:coordinates></gml:LinearRing></gml:outerBoundaryIs>"
            "</gml:Polygon></z></gml:featureMember></gml:FeatureCollection>"
        )
        try:
            frame, _ = read_zones(str(tmp_path / "z.gml"))
        except InputError:
            continue
        assert "s3cret" not in frame.to_json()
        assert len(frame.to_json()) < 10_000


# ---------------------------------------------------------------------- GeoParquet


def geoparquet(path: Path, geo: Any = None, table: pa.Table | None = None) -> Path:
    ZONES.to_parquet(path)
    old = pq.read_table(path)
    meta = {b"geo": geo if isinstance(geo, bytes) else json.dumps(geo).encode()} if geo is not None else {
        b"geo": old.schema.metadata[b"geo"]
    }  # fmt: skip
    pq.write_table((table or old).replace_schema_metadata(meta), path)
    return path


def geo(column: dict[str, Any] | None = None, **top: Any) -> dict[str, Any]:
    described = {"encoding": "WKB", "geometry_types": ["Polygon"]} | (column or {})
    value = {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": described}} | top
    return {key: item for key, item in value.items() if item != "absent"}


@pytest.mark.parametrize(
    "meta",
    [
        b"{nope", b"", b"\xff\xfe", b"null", b"3", b'"x"', b"[1, 2]", b"[" * 100_000,
        geo(primary_column="absent"), geo(primary_column="gone"), geo(primary_column=5),
        geo(primary_column=["geometry"]),
        geo(columns="absent"), geo(columns={}), geo(columns=["geometry"]), geo(columns={"geometry": None}),
        geo({"encoding": "FLATBUF"}), geo({"encoding": None}), geo({"encoding": [1]}),
        geo({"encoding": "polygon"}),
        geo({"crs": "nonsense"}), geo({"crs": {"type": "x"}}), geo({"crs": [1]}),
        geo({"crs": json.loads("[" * 99 + "]" * 99)}),
        geo(version="2.0.0"), geo(version="absent"), geo(version=[]),
        geo({"covering": {"bbox": {"xmin": [1]}}}),
    ],
)  # fmt: skip
def test_wrong_geoparquet_metadata_is_one_sentence(tmp_path: Path, meta: Any) -> None:
    refused(geoparquet(tmp_path / "z.parquet", meta), "GeoParquet|`geo`")


@pytest.mark.parametrize(
    "column", [{"bbox": [500, 500, 600, 600]}, {"bbox": "x"}, {"geometry_types": ["Point"]}, {"epoch": "x"}]
)
def test_geoparquet_metadata_that_lie_where_nothing_depends_on_them_change_nothing(
    tmp_path: Path, column: dict[str, Any]
) -> None:
    frame, _ = read_zones(str(geoparquet(tmp_path / "z.parquet", geo(column))))
    assert shapely.equals(frame.geometry.to_numpy(), ZONES.geometry.to_numpy()).all()


@pytest.mark.parametrize(
    "shapes",
    [
        pa.array([b"garbage", b"\1\3"]),
        pa.array([b"\1\3\0\0\0\xff\xff\xff\xff" + bytes(20), b"\1\6\0\0\0\xff\xff\xff\x7f"]),
        pa.array(["POLYGON ((0 0, 1 0, 1 1, 0 0))", "x"]),
        pa.array([1, 2]),
        pa.array([{"x": 1}, {"x": 2}]),
    ],
)
def test_geometries_that_are_none_are_one_sentence(tmp_path: Path, shapes: pa.Array) -> None:
    refused(
        geoparquet(tmp_path / "z.parquet", None, pa.table({"id": ["a", "b"], "geometry": shapes})),
        "z.parquet",
    )


def nested(levels: int, kind: int = 7) -> bytes:
    head = b"\1" + kind.to_bytes(4, "little") + b"\1\0\0\0"
    return head * levels + b"\1\3\0\0\0\0\0\0\0"


@pytest.mark.parametrize("kind", [4, 5, 6, 7, 9, 10, 11, 12, 1007, 0xA0000007 & ~0x20000000])
def test_collections_nested_until_the_reader_dies_are_refused(tmp_path: Path, kind: int) -> None:
    table = pa.table({"id": ["a"], "geometry": pa.array([nested(200_000, kind)])})
    refused(geoparquet(tmp_path / "z.parquet", None, table), "nested over 64 deep")


def test_nested_collections_in_a_geopackage_are_refused(tmp_path: Path) -> None:
    import sqlite3

    path = tmp_path / "z.gpkg"
    ZONES.to_file(path, layer="z")
    with sqlite3.connect(path) as base:
        for (name,) in base.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            base.execute(f'DROP TRIGGER "{name}"')
        (blob,) = base.execute("SELECT geom FROM z").fetchone()
        base.execute("UPDATE z SET geom = ?", (blob[:3] + b"\1" + blob[4:8] + nested(200_000),))
    refused(path, "nested over 64 deep")


def test_depth_is_found_in_any_place_and_not_where_there_is_none() -> None:
    square = shapely.to_wkb(shapely.box(0, 0, 1, 1))
    after = b"\1\7\0\0\0\2\0\0\0" + square + nested(100)
    late = b"\0\0\0\0\7\0\0\0\3" + shapely.to_wkb(shapely.from_wkt("POINT Z (1 2 3)"))
    late += shapely.to_wkb(shapely.linestrings(np.zeros((50, 2)))) + nested(80)
    wide = shapely.to_wkb(shapely.multipolygons([shapely.box(i, 0, i + 1, 1) for i in range(0, 2000, 2)]))
    fine = [
        square,
        wide,
        nested(60),
        b"",
        b"\1\7\0\0\0\xff\xff\xff\xff" + bytes(1000),
        b"\1\3\0\0\0\xff\xff\xff\xff" * 80,
    ]
    assert not deep(pa.array([*fine, None], pa.binary()))
    for wkb in (after, late):
        assert deep(pa.array([square, wkb], pa.binary()))


def test_damaged_parquet_is_one_sentence_as_zones_and_as_an_index(tmp_path: Path) -> None:
    path = tmp_path / "z.parquet"
    raw = geoparquet(path).read_bytes()
    rng = np.random.default_rng(0)
    cases = [
        raw[:-10],
        raw[: len(raw) // 2],
        b"",
        b"PAR1PAR1",
        raw[:-8] + b"\xff\xff\xff\x7fPAR1",
        rng.bytes(5000),
    ]
    cases += [raw[:-400] + rng.bytes(392) + raw[-8:], raw[:-4] + b"PARE"]
    for case in cases:
        path.write_bytes(case)
        refused(path, "cannot be read")
        refused(path, "cannot be read", read_index, ["id"])
    read = 0
    for _ in range(100):  # bits flipped, most of them in the footer
        damaged = bytearray(raw)
        damaged[rng.integers(len(raw) - 900 if rng.random() < 0.7 else 0, len(raw))] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        for read_it in (lambda: read_zones(str(path)), lambda: read_index(str(path), ["id", "geometry"])):
            try:
                read_it()
                read += 1
            except InputError:
                pass
    assert 0 < read < 200


# ---------------------------------------------------------------------- the tile index


def index(**changed: Any) -> Any:
    row = {"path": "s3://b/a.tiff", "year": 2024, "crs": "EPSG:32616"}
    row |= {"utm_west": 5e5, "utm_south": 4e6, "utm_east": 581920.0, "utm_north": 4081920.0}
    row |= {"wgs84_west": -87.0, "wgs84_south": 36.1, "wgs84_east": -86.0, "wgs84_north": 36.9}
    import pandas as pd

    return pd.DataFrame([row, row | {"path": "s3://b/b.tiff"} | changed])[list(INDEX_COLUMNS)]


EVERYWHERE = np.array([[-180.0, -90.0, 180.0, 90.0]])


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"wgs84_west": np.nan}, "b.tiff: bounds .* no place on Earth"),
        ({"wgs84_east": "east"}, "b.tiff: bounds .* no place on Earth"),
        ({"wgs84_north": 1e300}, "b.tiff: bounds .* no place on Earth"),
        ({"utm_west": None}, "b.tiff: bounds .* no place on Earth"),
        ({"utm_north": np.inf}, "b.tiff: bounds .* no place on Earth"),
        ({"path": None}, "1 tiles have no path"),
        ({"path": 7}, "1 tiles have no path"),
        ({"path": " "}, "1 tiles have no path"),
    ],
)
def test_an_index_row_without_a_place_or_a_path_is_an_error_and_never_passed_over(
    changed: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence):
        near(index(**changed), 2024, EVERYWHERE, "the index")


def test_an_index_of_text_is_read_as_the_numbers_that_it_holds() -> None:
    assert len(near(index().astype(str), 2024, EVERYWHERE, "the index")) == 2
    with pytest.raises(InputError, match=r"no tiles of 2020; it has 2024"):
        near(index(year="soon"), 2020, EVERYWHERE, "the index")


def test_a_path_of_the_index_does_not_lead_out_of_the_mirror(tmp_path: Path) -> None:
    catalog = Catalog.load(mirror=str(tmp_path))
    service = next(iter(catalog)).uri.split("annual")[0]
    with pytest.raises(InputError, match="would lead out of the mirror"):
        catalog.resolve(f"{service}../../../etc/passwd")


# ---------------------------------------------------------------------- YAML


def yaml(folder: Path, text: str | bytes) -> str:
    path = folder / "x.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def doubled(pair: str, levels: int) -> str:
    lines = [f"    x{n}: &x{n} " + pair.format(n - 1, n - 1) for n in range(1, levels)]
    return "\n".join(["storage_options:", "  s3:", "    x0: &x0 {k: v}", *lines])


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("state: !!python/object/apply:os.system [echo]", "could not determine a constructor"),
        ("state: !mine WA", "could not determine a constructor"),
        ("state: !!binary aGVsbG8=", "expected text"),
        ("!!binary aGVsbG8=: 1", "expected lines of 'key: value'"),
        ("? [a]\n: 1", "unhashable key"),
        (doubled("[*x{}, *x{}]", 40), "over 100,000 values"),
        (doubled("{{a: *x{}, b: *x{}}}", 40), "over 100,000 values"),
        (doubled("{{<<: [*x{}, *x{}]}}", 40), "over 100,000 values"),
        ("storage_options:\n  s3: &a {key: *a}", "refers to itself"),
        ("raster: &a [x, *a]", "refers to itself"),
        ("storage_options: &a\n  <<: *a", "refers to itself"),
        ("state: " + "[" * 100_000, "nested over 50 deep"),
        ("state: " + "{a: " * 5000, "nested over 50 deep"),
        ("state: W\0A", "ReaderError"),
        (b"state: \xe9", "UnicodeDecodeError"),
        ("state: WA".encode("utf-16"), "UnicodeDecodeError"),
        ("state: WA\n#" + "x" * 300_000, "over 256 KiB long"),
        ("year: " + "9" * 100_000, "ValueError"),
        ("state: WA\n---\nstate: OR", "another document"),
    ],
)  # fmt: skip
def test_hostile_yaml_is_one_sentence_in_little_time_and_memory(
    tmp_path: Path, text: str | bytes, sentence: str, little_memory: None
) -> None:
    path = yaml(tmp_path, text)
    with pytest.raises((UsageError, InputError), match=sentence) as caught:
        load(path)
    assert len(str(caught.value)) < 1000
    with pytest.raises(InputError):
        Catalog.load(path)


def test_a_long_word_is_not_told_in_full(tmp_path: Path, little_memory: None) -> None:
    for key in ("state", "year", "county", "stats", "cluster", "coverage"):
        with pytest.raises(UsageError) as caught:
            load(yaml(tmp_path, f"{key}: {'W' * 20_000}"))
        assert len(str(caught.value)) < 1000


def test_anchors_aliases_and_merge_keys_go_on_working(tmp_path: Path) -> None:
    text = "storage_options:\n  gs: &b {key: k, secret: s3cret}\n  s3: {<<: *b, anon: false}\nstate: &s WA\n"
    options = load(yaml(tmp_path, text)).storage_options
    assert options == {
        "gs": {"key": "k", "secret": "s3cret"},
        "s3": {"key": "k", "secret": "s3cret", "anon": False},
    }
    assert "s3cret" in {*secrets(options)}
    assert "s3cret" not in str(redacted(options))


def test_as_many_aliases_as_are_allowed_cost_little(tmp_path: Path) -> None:
    settings = load(yaml(tmp_path, doubled("{{a: *x{}, password: *x{}}}", 14)))
    start = time.process_time()
    assert "v" not in {*secrets(settings.storage_options)}  # too short to be one
    assert "***" in str(settings.public())
    assert time.process_time() - start < 5


# ---------------------------------------------------------------------- TIFF headers


def tiff(path: Path, order: str, big: bool, changed: dict[int, tuple[str, Any]], tail: int = 5000) -> Path:
    """One int8 block of 64 x 64; tags are (struct's letter, values or text)."""
    kinds = {"H": 3, "I": 4, "Q": 16, "d": 12, "s": 2, "B": 1}
    tags: dict[int, tuple[str, Any]] = {256: ("I", [64]), 257: ("I", [64]), 258: ("H", [8]), 259: ("H", [1])}
    tags |= {262: ("H", [1]), 277: ("H", [1]), 284: ("H", [1]), 322: ("I", [64]), 323: ("I", [64])}
    tags |= {324: ("I", [16]), 325: ("I", [4096]), 339: ("H", [2]), 33550: ("d", [10, 10, 0])}
    tags |= {
        33922: ("d", [0, 0, 0, 5e5, 5e6, 0]),
        34735: ("H", [1, 1, 0, 2, 1024, 0, 1, 1, 3072, 0, 1, 32616]),
    }
    tags |= changed
    start, lead, entry, room, offset = (16, "Q", "HHQ", 8, "Q") if big else (8, "H", "HHI", 4, "I")
    body, data = b"", b""
    size = struct.calcsize("=" + lead) + len(tags) * (struct.calcsize("=" + entry) + room) + room
    for code, (kind, values) in sorted(tags.items()):
        value = values if kind == "s" else struct.pack(f"{order}{len(values)}{kind}", *values)
        if len(value) > room:
            place = struct.pack(order + offset, start + size + len(data))
            data += value
            value = place
        body += struct.pack(order + entry, code, kinds[kind], len(values)) + value.ljust(room, b"\0")
    head = struct.pack(order + "HHHQ", 43, 8, 0, 16) if big else struct.pack(order + "HI", 42, 8)
    whole = (b"II" if order == "<" else b"MM") + head + struct.pack(order + lead, len(tags)) + body
    path.write_bytes(whole + bytes(room) + data + bytes(tail))
    return path


@pytest.mark.parametrize("big", [True, False])
@pytest.mark.parametrize("order", ["<", ">"])
def test_tiff_headers_that_ask_for_the_impossible_are_one_sentence(
    tmp_path: Path, order: str, big: bool, little_memory: None
) -> None:
    path = tmp_path / "x.tif"
    fine = Cog.open(str(tiff(path, order, big, {})))
    assert fine.decode(fine.fetch(0)).valid.all()
    many = [16] * 2**16
    for changed, sentence in (
        ({33550: ("d", [1e308, 1e308, 0])}, "pixels of"),
        ({33550: ("d", [5e-324, 5e-324, 0])}, "pixels of"),
        ({33922: ("d", [0, 0, 0, 1e308, -1e308, 0])}, "pixels of"),
        (
            {256: ("I", [30_000]), 257: ("I", [30_000]), 322: ("I", [30_000]), 323: ("I", [30_000])},
            "blocks of",
        ),
        (
            {256: ("I", [2**31 - 1]), 257: ("I", [2**31 - 1]), 322: ("I", [1]), 323: ("I", [1])},
            "blocks, expected",
        ),
        ({277: ("H", [2000]), 284: ("H", [2])}, "should hold 2000 entries"),
        ({324: ("I", many)}, "should hold 1 entries"),
        ({325: ("I", [2**32 - 1])}, "truncated"),
        ({42113: ("s", b"9" * 5000)}, "nodata value"),
        ({42113: ("s", b"1_0\0")}, "nodata value"),
        ({42112: ("s", b"<a>" + b"<b/>" * 1_200_000 + b"</a>")}, "too long"),
        ({42112: ("s", b'<a><Item sample="' + b"9" * 5000 + b'"/></a>')}, "cannot be read"),
        ({42112: ("s", b"<!DOCTYPE x []><a/>")}, "not plain XML"),
    ):
        refused(tiff(path, order, big, changed), sentence, Cog.open)


def test_tiff_nodata_that_no_integer_can_be_marks_no_pixel(tmp_path: Path) -> None:
    for text in (b"inf\0", b"1e400\0", b"-1e999\0", b"300\0"):
        cog = Cog.open(str(tiff(tmp_path / "x.tif", "<", False, {42113: ("s", text)})))
        assert cog.decode(cog.fetch(0)).valid.all()


def test_tiff_metadata_as_long_as_is_allowed_cost_little(tmp_path: Path) -> None:
    for text in (b"<a>" * 500_000 + b"</a>" * 500_000, b"<a>" + b"<b/>" * 900_000 + b"</a>"):
        path = tiff(tmp_path / "x.tif", "<", True, {42112: ("s", text)})
        tracemalloc.start()
        Cog.open(str(path))
        assert tracemalloc.get_traced_memory()[1] < 2**28
        tracemalloc.stop()


def test_tiff_chains_of_thousands_of_directories_end(tmp_path: Path) -> None:
    path = tiff(tmp_path / "x.tif", "<", False, {})
    raw = bytearray(path.read_bytes())
    after = 10 + 12 * int.from_bytes(raw[8:10], "little")
    raw[after : after + 4] = len(raw).to_bytes(4, "little")
    for _ in range(5000):
        raw += struct.pack("<HHHIII", 1, 300, 3, 1, 0, len(raw) + 18)
    path.write_bytes(raw)
    refused(path, "more than 64 directories", Cog.open)
