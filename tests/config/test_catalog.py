from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import s3fs

from zonal.config.catalog import Catalog
from zonal.config.sources import RasterSource, ZoneSource
from zonal.config.states import STATES
from zonal.errors import InputError, UsageError

INDEX = "s3://us-west-2.opendata.source.coop/tge-labs/aef/v1/annual/aef_index.parquet"
BLOCKS = "https://www2.census.gov/geo/tiger/TIGER2025/TABBLOCK20/tl_2025_55_tabblock20.zip"
PATH_STYLE = {"s3": {"addressing_style": "path"}}

RASTER = """
mine:
  data_type: RasterTiles
  driver: rasterio
  uri: {uri}
  metadata: {{license: MIT}}
"""


def written(folder: Path, text: str) -> str:
    file = folder / "c.yaml"
    file.write_text(text)
    return str(file)


def complaint(folder: Path, text: str) -> str:
    with pytest.raises(InputError) as caught:
        Catalog.load(written(folder, text))
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(f"{folder}/", "")


# ---------------------------------------------------------------- the bundled catalog


def test_the_bundled_catalog_loads_outside_the_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    catalog = Catalog.load()
    assert catalog.names() == (
        "aef_annual", "census_blocks_2020", "census_block_groups_2020", "census_tracts_2020",
    )  # fmt: skip
    assert [source.name for source in catalog] == list(catalog.names())
    assert "aef_annual" in catalog
    assert "aef" not in catalog
    for source in catalog:
        assert source.license
        assert source.citation
        assert source.source_url
        assert source.description


def test_the_embeddings_are_described_as_they_are_served():
    aef = Catalog.load().raster("aef_annual")
    assert aef.uri == INDEX
    assert aef.driver == "cog"
    assert aef.bands == tuple(f"A{number:02d}" for number in range(64))
    assert (aef.dtype, aef.nodata, aef.rule) == ("int8", -128, "aef")
    assert (aef.resolution, aef.chunk, aef.south_up, aef.chunk_bytes) == (10, 1024, True, 40_000_000)
    assert aef.years == tuple(range(2017, 2026))
    assert aef.citation == (
        "The AlphaEarth Foundations Satellite Embedding dataset is produced by Google and Google DeepMind."
    )
    assert aef.license == "CC-BY-4.0"


def test_the_blocks_are_described_as_they_are_served():
    blocks = Catalog.load().zones("census_blocks_2020")
    assert blocks.url(state="WI") == BLOCKS
    assert (blocks.zone_id, blocks.state_column, blocks.county) == ("GEOID20", "STATEFP20", "COUNTYFP20")
    assert blocks.land_area == "ALAND20"
    assert blocks.vintage == "TIGER2025"
    assert blocks.crs == "EPSG:4269"
    assert {"GEOID20", "POP20", "HOUSING20", "UR20"} <= set(blocks.columns)
    assert len(blocks.columns) == 17


def test_tracts_and_block_groups_have_columns_without_a_suffix():
    catalog = Catalog.load()
    tracts, groups = catalog.zones("census_tracts_2020"), catalog.zones("census_block_groups_2020")
    assert tracts.url(state="CA") == "https://www2.census.gov/geo/tiger/TIGER2020/TRACT/tl_2020_06_tract.zip"
    assert groups.url(state="WA") == "https://www2.census.gov/geo/tiger/TIGER2020/BG/tl_2020_53_bg.zip"
    for source in (tracts, groups):
        assert (source.zone_id, source.land_area, source.county) == ("GEOID", "ALAND", "COUNTYFP")
        assert source.vintage == "TIGER2020"
    assert "BLKGRPCE" in groups.columns
    assert "BLKGRPCE" not in tracts.columns


def test_a_uri_is_filled_in_for_every_state():
    blocks = Catalog.load().zones("census_blocks_2020")
    assert blocks.per_state
    assert len({blocks.url(state=state.code) for state in STATES}) == 56
    with pytest.raises(UsageError) as caught:
        blocks.url()
    assert str(caught.value) == "census_blocks_2020 has one file a state: say which, for example --state WA"
    source = RasterSource(name="r", uri="s3://b/{year}/{state}.tif")
    assert source.url(year=2020, state="Washington") == "s3://b/2020/WA.tif"
    with pytest.raises(UsageError, match="r has one file a year"):
        source.url(state="WA")


def test_a_wrong_name_is_told_the_nearest_of_its_kind():
    catalog = Catalog.load()
    with pytest.raises(UsageError) as caught:
        catalog.raster("aef_anual")
    assert str(caught.value) == (
        "raster 'aef_anual': neither a file nor in the catalog, which has aef_annual; "
        "did you mean 'aef_annual'?"
    )
    with pytest.raises(UsageError, match=r"did you mean 'census_tracts_2020'\?"):
        catalog.zones("census_tract_2020")
    with pytest.raises(UsageError) as caught:
        catalog.raster("census_blocks_2020")
    assert str(caught.value) == "raster 'census_blocks_2020' is a zone source of the catalog, not a raster"
    with pytest.raises(UsageError, match="is a raster source of the catalog, not a zone source"):
        catalog.zones("aef_annual")


# ---------------------------------------------------------------- a user's own catalog


def test_a_relative_uri_counts_from_the_catalogs_folder(tmp_path: Path):
    file = written(tmp_path, RASTER.format(uri="tiles/index.parquet"))
    assert Catalog.load(file).raster("mine").uri == f"{tmp_path}/tiles/index.parquet"
    file = written(tmp_path, RASTER.format(uri="/data/index.parquet"))
    assert Catalog.load(file).raster("mine").uri == "/data/index.parquet"
    file = written(tmp_path, RASTER.format(uri="s3://b/index.parquet"))
    assert Catalog.load(file).raster("mine").uri == "s3://b/index.parquet"


def test_a_small_catalog_needs_little(tmp_path: Path):
    file = written(
        tmp_path,
        RASTER.format(uri="a.tif") + "z: {data_type: GeoDataFrame, uri: z.gpkg, metadata: {zone_id: id}}",
    )
    catalog = Catalog.load(file)
    raster = catalog.raster("mine")
    assert (raster.bands, raster.rule, raster.nodata, raster.license) == ((), "linear", None, "MIT")
    zones = catalog.zones("z")
    assert zones.zone_id == "id"
    assert not zones.per_state


def test_a_catalog_without_services_has_the_bundled_ones(tmp_path: Path):
    mine = RASTER.format(uri="a.tif")
    assert Catalog.load(written(tmp_path, mine), mirror="/m").resolve(BLOCKS).startswith("/m/geo/")
    other = "services: {lab: https://lab.example/data}\n" + mine
    catalog = Catalog.load(written(tmp_path, other), mirror="/m")
    assert catalog.resolve("https://lab.example/data/x.tif") == "/m/x.tif"
    assert catalog.resolve(BLOCKS) == BLOCKS


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "m: {data_type: RasterTiles, uri: a, metadata: {nodta: 3}}",
            "catalog c.yaml: source 'm': unknown key 'nodta' in metadata; did you mean 'nodata'?",
        ),
        (
            "m: {data_type: RasterTiles, url: a}",
            "catalog c.yaml: source 'm': unknown key 'url'; did you mean 'uri'?",
        ),
        (
            "m: {data_type: RasterTile, uri: a}",
            "catalog c.yaml: source 'm': data_type 'RasterTile': expected RasterTiles or GeoDataFrame; "
            "did you mean 'RasterTiles'?",
        ),
        (
            "m: {data_type: RasterTiles, driver: gdal, uri: a}",
            "catalog c.yaml: source 'm': driver 'gdal': expected 'cog' or 'rasterio'",
        ),
        ("m: {data_type: RasterTiles}", "catalog c.yaml: source 'm': key 'uri' is missing"),
        ("m: {data_type: GeoDataFrame, uri: a}", "catalog c.yaml: source 'm': key 'zone_id' is missing"),
        (
            "m: {data_type: GeoDataFrame, uri: 'a_{fps}', metadata: {zone_id: id}}",
            "{fps} is unknown; expected {year}, {fips}, {state}",
        ),
        (
            "m: {data_type: GeoDataFrame, uri: a, metadata: {zone_id: GEOID, columns: [GEOID20]}}",
            "catalog c.yaml: source 'm': zone_id 'GEOID' is not among columns; did you mean 'GEOID20'?",
        ),
        (
            "m: {data_type: RasterTiles, uri: a, metadata: {rule: aef, dtype: uint8}}",
            "catalog c.yaml: source 'm': rule 'aef' reads int8 codes; dtype is uint8",
        ),
        (
            "m: {data_type: RasterTiles, uri: a, metadata: {years: 2025-2017}}",
            "the range runs backwards; write 2017-2025",
        ),
        (
            "m: 3",
            "catalog c.yaml: source 'm': expected the keys data_type, driver, uri, storage_options, metadata",
        ),
        (
            "services: {a: [b]}",
            "catalog c.yaml: services: a: expected a list of URL prefixes such as https://host/",
        ),
        ("m: [", "catalog c.yaml: not valid YAML at line 1"),
        ("- m", "catalog c.yaml: expected lines of 'key: value'"),
    ],
)
def test_a_wrong_catalog_names_file_source_and_key(tmp_path: Path, text: str, message: str):
    assert message in complaint(tmp_path, text)


def test_a_missing_catalog_is_an_input_error(tmp_path: Path):
    with pytest.raises(InputError) as caught:
        Catalog.load(str(tmp_path / "none.yaml"))
    assert str(caught.value) == f"catalog {tmp_path}/none.yaml: no such file"


def test_a_source_does_not_show_its_options():
    source = ZoneSource(name="z", uri="s3://b/z.parquet", zone_id="id", storage_options={"secret": "hush"})
    assert "hush" not in repr(source)
    catalog = Catalog.load(storage_options={"s3": {"secret": "hush"}})
    assert "hush" not in repr(catalog)


# ---------------------------------------------------------------- mirrors


@pytest.mark.parametrize(
    ("base", "shown"),
    [
        ("/data/mirror", "/data/mirror"),
        ("/data/mirror/", "/data/mirror"),
        ("file:///data/mirror/", "file:///data/mirror"),
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("http://127.0.0.1:8000/", "http://127.0.0.1:8000"),
        ("s3://bucket/some/prefix//", "s3://bucket/some/prefix"),
        ("memory://m", "memory://m"),
    ],
)
def test_a_mirror_answers_for_both_services(base: str, shown: str):
    catalog = Catalog.load(mirror=base)
    tail = "tge-labs/aef/v1/annual/aef_index.parquet"
    for prefix in (
        "s3://us-west-2.opendata.source.coop/",
        "https://data.source.coop/",
        "https://s3.us-west-2.amazonaws.com/us-west-2.opendata.source.coop/",
        "s3://us-west-2.opendata.source.coop//",
    ):
        assert catalog.resolve(prefix + tail) == f"{shown}/{tail}"
    assert catalog.resolve(BLOCKS) == f"{shown}/geo/tiger/TIGER2025/TABBLOCK20/tl_2025_55_tabblock20.zip"
    assert catalog.resolve(catalog.resolve(BLOCKS)) == catalog.resolve(BLOCKS)
    for url in ("https://www2.census.gov.example/geo/x", "s3://other/x", "/data/x", "x.tif"):
        assert catalog.resolve(url) == url


def test_a_mirror_folder_counts_from_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    catalog = Catalog.load(mirror="mirror/")
    monkeypatch.chdir("/")
    assert catalog.resolve(BLOCKS).startswith(f"{tmp_path}/mirror/geo/tiger/")


@pytest.mark.parametrize("base", [None, "", " "])
def test_without_a_mirror_nothing_moves(base: str | None):
    assert Catalog.load(mirror=base).resolve(BLOCKS) == BLOCKS


def test_a_mirror_inside_a_service_is_applied_once():
    catalog = Catalog.load(mirror="s3://us-west-2.opendata.source.coop/copy")
    moved = "s3://us-west-2.opendata.source.coop/copy/tge-labs/x"
    assert catalog.resolve("s3://us-west-2.opendata.source.coop/tge-labs/x") == moved
    assert catalog.resolve(moved) == moved


def test_no_url_leads_out_of_the_mirror():
    with pytest.raises(InputError, match="would lead out of the mirror"):
        Catalog.load(mirror="/m").resolve("https://www2.census.gov/geo/../../etc/passwd")


# ---------------------------------------------------------------- storage options


def client(options: dict[str, Any]) -> Any:
    fs = s3fs.S3FileSystem(skip_instance_cache=True, **options)
    fs.connect()
    return fs.s3


def test_the_public_bucket_is_read_anonymously_at_its_own_address():
    catalog = Catalog.load()
    options = catalog.storage_options(INDEX, catalog.raster("aef_annual"))
    assert options == {
        "anon": True,
        "endpoint_url": "https://s3.us-west-2.amazonaws.com",
        "config_kwargs": PATH_STYLE,
    }
    tile = "s3://us-west-2.opendata.source.coop/tge-labs/aef/v1/annual/2024/16N/x.tiff"
    assert catalog.storage_options(tile) == options  # without a source, the one on the same service


def test_the_public_options_serve_no_other_protocol():
    catalog = Catalog.load()
    assert catalog.storage_options("https://data.source.coop/x.tiff", catalog.raster("aef_annual")) == {}
    assert catalog.storage_options("/data/x.tiff", catalog.raster("aef_annual")) == {}
    assert catalog.storage_options(BLOCKS) == {}
    assert catalog.storage_options("s3://mine/x.tif") == {}


@pytest.mark.parametrize("base", ["/m", "http://127.0.0.1:8000", "s3://mirror/base", "memory://m"])
def test_a_source_that_the_mirror_moved_loses_its_own_options(base: str):
    catalog = Catalog.load(mirror=base)
    aef = catalog.raster("aef_annual")
    assert catalog.storage_options(INDEX, aef) == {}
    assert catalog.storage_options(catalog.resolve(INDEX), aef) == {}
    assert catalog.storage_options("s3://mirror/base/tge-labs/x.tiff") == {}


def test_a_mirror_in_a_private_bucket_takes_the_users_options():
    private = {"s3": {"endpoint_url": "http://127.0.0.1:9000", "key": "k", "secret": "s"}}
    catalog = Catalog.load(mirror="s3://mirror", storage_options=private)
    assert catalog.storage_options(INDEX, catalog.raster("aef_annual")) == private["s3"]


def test_the_users_credentials_do_not_go_to_the_public_bucket():
    private = {
        "s3": {
            "endpoint_url": "http://127.0.0.1:9000",
            "key": "k",
            "secret": "s",
            "config_kwargs": {"max_pool_connections": 50},
        }
    }
    catalog = Catalog.load(storage_options=private)
    assert catalog.storage_options(INDEX, catalog.raster("aef_annual")) == {
        "anon": True,
        "endpoint_url": "https://s3.us-west-2.amazonaws.com",
        "config_kwargs": PATH_STYLE | {"max_pool_connections": 50},
    }
    assert catalog.storage_options("s3://mine/out") == private["s3"]
    assert catalog.storage_options("s3a://mine/out") == private["s3"]
    assert catalog.storage_options("gs://mine/out") == {}


def test_the_users_options_win_over_those_of_a_private_source(tmp_path: Path):
    options = "storage_options: {key: a, client_kwargs: {x: 1, y: 2}}"
    text = f"m: {{data_type: RasterTiles, uri: 's3://b/i.parquet', {options}}}"
    user = {"s3": {"key": "b", "client_kwargs": {"y": 3}}}
    catalog = Catalog.load(written(tmp_path, text), storage_options=user)
    assert catalog.storage_options("s3://b/t.tif", catalog.raster("m")) == {
        "key": "b",
        "client_kwargs": {"x": 1, "y": 3},
    }


def test_a_bucket_with_dots_is_addressed_by_path():
    assert Catalog.load().storage_options("s3://my.own.bucket/x") == {"config_kwargs": PATH_STYLE}


def test_the_endpoint_of_the_environment_is_for_private_stores_only(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9000")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "k")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    catalog = Catalog.load()
    public = client(catalog.storage_options(INDEX, catalog.raster("aef_annual")))
    assert public.meta.endpoint_url == "https://s3.us-west-2.amazonaws.com"
    private = client(catalog.storage_options("s3://mine/out"))
    assert private.meta.endpoint_url == "http://127.0.0.1:9000"
    mirrored = Catalog.load(mirror="s3://mirror")
    assert client(mirrored.storage_options(INDEX)).meta.endpoint_url == "http://127.0.0.1:9000"
