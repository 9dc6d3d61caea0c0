from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from builds import REPO
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from zonal.cluster.pods import TEMPLATE
from zonal.config.settings import Settings, settings_error
from zonal.config.states import STATES, find
from zonal.config.workflows import bundled, load, workflow_names
from zonal.credentials import without_credentials
from zonal.errors import InputError, UsageError, ZonalError


@pytest.fixture(autouse=True)
def _no_mirror(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ZONAL_MIRROR", raising=False)


def make(**values: Any) -> Settings:
    return load(overrides=values)


def sentence(**values: Any) -> str:
    with pytest.raises(UsageError) as caught:
        make(**values)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def workflow(folder: Path, text: str) -> Settings:
    file = folder / "x.yaml"
    file.write_text(text)
    return load(str(file))


def complaint(folder: Path, text: str, error: type[ZonalError] = UsageError) -> str:
    with pytest.raises(error) as caught:
        workflow(folder, text)
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(f"{folder}/", "")


# ---------------------------------------------------------------- states


@pytest.mark.parametrize(
    ("written", "codes"),
    [
        ("WA", ("WA",)),
        ("wa", ("WA",)),
        ("Washington", ("WA",)),
        ("new  york", ("NY",)),
        ("District of Columbia", ("DC",)),
        ("Washington D.C.", ("DC",)),
        ("D.C.", ("DC",)),
        (53, ("WA",)),
        ("53", ("WA",)),
        (6, ("CA",)),
        ("06", ("CA",)),
        ("WY, AL,wa", ("AL", "WA", "WY")),
        (["WA", "Oregon", 53], ("OR", "WA")),
        (["WA,OR", "6"], ("CA", "OR", "WA")),
        ("Puerto Rico", ("PR",)),
        ("U.S. Virgin Islands", ("VI",)),
    ],
)
def test_a_state_is_written_as_code_name_or_fips_and_kept_in_fips_order(
    written: object, codes: tuple[str, ...]
):
    assert make(state=written).state == codes


def test_all_means_the_50_states_and_dc_without_territories():
    codes = make(state="all").state
    assert len(codes) == 51
    assert "DC" in codes
    assert "PR" not in codes
    assert make(state="all,PR").state == (*codes, "PR")


def test_every_state_is_found_by_each_of_its_spellings():
    assert len(STATES) == 56
    assert [state.fips for state in STATES] == sorted(state.fips for state in STATES)
    for state in STATES:
        for text in (state.code, state.code.lower(), state.name, state.name.upper(), state.fips):
            assert find(text) is state


def test_an_unknown_state_is_named_with_the_nearest():
    assert sentence(state="Washingtn") == "state 'Washingtn': no such state; did you mean 'Washington'?"
    hint = "write a postal code, a name or a FIPS code"
    assert sentence(state="ZZ") == f"state 'ZZ': no such state; {hint}"
    assert sentence(state=3) == f"state '3': no such state; {hint}"
    assert sentence(state=True) == "state True: expected text or a whole number"


# ---------------------------------------------------------------- years, counties, box


@pytest.mark.parametrize(
    ("written", "years"),
    [
        (2020, (2020,)),
        ("2020", (2020,)),
        ("2018,2020-2022", (2018, 2020, 2021, 2022)),
        ("2018, 2020 - 2021", (2018, 2020, 2021)),
        ([2021, "2018-2019", 2021], (2018, 2019, 2021)),
    ],
)
def test_years_are_ranges_and_lists_ascending_and_unique(written: object, years: tuple[int, ...]):
    assert make(year=written).year == years


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("2024-2020", "year '2024-2020': the range runs backwards; write 2020-2024"),
        ("20", "year '20': expected a year such as 2020 or a range such as 2018-2024"),
        (20200, "year '20200': expected a year such as 2020 or a range such as 2018-2024"),
        ("0001-9999", "year '0001-9999': expected a year such as 2020 or a range such as 2018-2024"),
        (2020.5, "year 2020.5: expected text or a whole number"),
    ],
)
def test_a_wrong_year_is_one_sentence(written: object, message: str):
    assert sentence(year=written) == message


def test_counties_have_3_or_5_digits():
    assert make(county="033, 53061").county == ("033", "53061")
    assert make(county=["53033", 101]).county == ("101", "53033")
    assert sentence(county="33") == "county '33': expected FIPS codes of 3 or 5 digits, as 033 or 53033"
    assert sentence(county="99001") == "county '99001': no state has the FIPS code 99"


def test_a_county_of_another_state_is_a_contradiction():
    assert make(state="WA", county="53033").county == ("53033",)
    assert sentence(state="OR", county="53033") == "county 53033 lies in WA, not in OR"


def test_a_box_is_a_list_or_text():
    box = (-122.44, 47.49, -122.07, 47.73)
    assert make(bbox=list(box)).bbox == box
    assert make(bbox="-122.44 47.49 -122.07 47.73").bbox == box
    assert make(bbox="-122.44,47.49, -122.07,47.73").bbox == box


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ([-122.07, 47.49, -122.44, 47.73], "bbox: west -122.07 >= east -122.44; the order is W S E N"),
        ([-122.44, 47.73, -122.07, 47.49], "bbox: south 47.73 >= north 47.49; the order is W S E N"),
        ([47.49, -122.44, 47.73, -122.07], "bbox: south -122.44 is outside -90 to 90; the order is W S E N"),
        ("1 2 3", "bbox '1 2 3': expected four numbers in the order W S E N, in degrees"),
        ("1 2 3 x", "bbox '1 2 3 x': expected four numbers in the order W S E N, in degrees"),
        (["nan", 0, 1, 1], "bbox: west nan is outside -180 to 180; the order is W S E N"),
        (7, "bbox 7: expected four numbers in the order W S E N, in degrees"),
    ],
)
def test_a_wrong_box_is_one_sentence(written: object, message: str):
    assert sentence(bbox=written) == message


# ---------------------------------------------------------------- the rest


def test_defaults_are_the_census_blocks_and_the_annual_embeddings():
    settings = Settings()
    assert settings.zones == "census_blocks_2020"
    assert settings.raster == ("aef_annual",)
    assert settings.stats == ("mean", "std")
    assert settings.coverage == "fractional"
    assert settings.max_land_km2 is None


def test_stats_keep_their_order_and_come_once():
    assert make(stats="std, mean,std").stats == ("std", "mean")
    assert make(stats=["count", "Mean,min"]).stats == ("count", "mean", "min")
    assert sentence(stats="meen") == (
        "stats 'meen': expected some of mean, std, min, max, sum, count; did you mean 'mean'?"
    )
    assert sentence(stats=",") == "stats: expected at least one of mean, std, min, max, sum, count"


def test_paths_may_be_path_objects_and_hold_commas(tmp_path: Path):
    settings = make(zones=tmp_path / "a,b.gpkg", raster=[tmp_path / "x.tif", "y,z.tif"], output=tmp_path)
    assert settings.zones == f"{tmp_path}/a,b.gpkg"
    assert settings.raster == (f"{tmp_path}/x.tif", "y,z.tif")
    assert settings.output == str(tmp_path)
    assert make(raster="one.tif").raster == ("one.tif",)
    assert sentence(raster=["x.tif", "x.tif"]) == "raster 'x.tif' is named twice"
    assert sentence(raster=[3]) == "raster 3: expected a name, a path or a URL"


def test_exactextract_has_no_centre_rule():
    assert make(engine="exactextract").engine == "exactextract"
    assert sentence(engine="exactextract", coverage="center") == (
        "engine 'exactextract' has no coverage 'center'; use engine 'native'"
    )


@pytest.mark.parametrize(
    "address", ["tcp://10.0.0.1:8786", "tls://scheduler.dask.svc:8786", "tcp://[::1]:8786"]
)
def test_a_cluster_is_local_or_an_address(address: str):
    assert make(cluster=address).cluster == address
    assert make(cluster="local", workers=2, threads=1).workers == 2


@pytest.mark.parametrize(
    "address", ["locl", "tcp://host", "http://host:80", "tcp//host:1", "tcp://host:x", ""]
)
def test_another_word_for_a_cluster_is_refused(address: str):
    assert sentence(cluster=address) == (
        f"cluster {address!r}: expected 'local', 'kubernetes' or an address such as tcp://host:8786"
    )


@pytest.mark.parametrize("place", ["127.0.0.1:0", "0.0.0.0:8787", "host.name:65535"])
def test_a_dashboard_listens_on_a_host_and_a_port(place: str):
    assert make(dashboard=place).dashboard == place
    assert "dashboard" not in make(dashboard=place).numbers()


@pytest.mark.parametrize(
    "place", ["8787", ":8787", "host:65536", "h:1,h:2", "http://h:1", "h:x", "me:pw@h:1", ""]
)
def test_another_word_for_a_dashboard_is_refused(place: str):
    told = sentence(dashboard=place)
    assert told.startswith("dashboard '") and told.endswith("': expected host:port, such as 127.0.0.1:8787")


def test_a_dashboard_makes_no_sense_on_a_cluster_that_exists():
    assert sentence(cluster="tcp://h:1", dashboard="0.0.0.0:8787") == (
        "dashboard is for cluster local, not for tcp://h:1; leave it out"
    )


def test_workers_make_no_sense_on_a_cluster_that_exists():
    assert sentence(cluster="tcp://h:1", workers=2) == (
        "workers is for cluster local or kubernetes, not for tcp://h:1; leave it out"
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"cache": "s3://bucket/c"}, "cache 's3://bucket/c': expected a folder of this machine"),
        ({"attempts": 0}, "attempts 0: should be greater than 0"),
        ({"verify": "thrice"}, "verify 'thrice': expected 'once' or 'twice'"),
        ({"max_land_km2": -1}, "max_land_km2 -1: should be greater than 0"),
        ({"max_land_km2": "inf"}, "max_land_km2 'inf': should be a finite number"),
        ({"workers": 0}, "workers 0: should be greater than 0"),
        ({"workers": True}, "workers: True: expected a number"),
        (
            {"part_zones": "many"},
            "part_zones 'many': should be a valid integer, unable to parse string as an integer",
        ),
        ({"coverage": "centre"}, "coverage 'centre': expected 'fractional' or 'center'"),
        ({"keep_water": "maybe"}, "keep_water 'maybe': should be a valid boolean, unable to interpret input"),
        ({"zones": ""}, "zones '': expected a name, a path or a URL"),
        ({"staet": "WA"}, "unknown setting 'staet'; did you mean 'state'?"),
    ],
)
def test_a_wrong_value_is_one_sentence_without_pydantics_dump(values: dict[str, Any], message: str):
    assert sentence(**values) == message


def test_settings_made_in_python_offer_the_same_sentence():
    with pytest.raises(ValidationError) as caught:
        Settings(statte="WA")
    error = settings_error(caught.value)
    assert isinstance(error, UsageError)
    assert error.exit_code == 2
    assert str(error) == "unknown setting 'statte'; did you mean 'state'?"


def test_settings_do_not_change():
    with pytest.raises(ValidationError):
        Settings().state = ("WA",)  # type: ignore[misc]


# ---------------------------------------------------------------- what is kept of them


def test_numbers_hold_what_changes_numbers_and_nothing_else():
    one = make(state="WA", year=2020, bbox="1 2 3 4", raster="a.tif")
    two = make(
        state=53, year="2020", bbox=[1, 2, 3, 4], raster=["a.tif"], workers=3, output="elsewhere", mirror="m",
        part_zones=7, unit_chunks=9, storage_options={"s3": {"key": "k"}},
    )  # fmt: skip
    assert one.numbers() == two.numbers()
    assert json.loads(json.dumps(one.numbers())) == one.numbers()
    assert list(one.numbers()) == [
        "state", "year", "county", "bbox", "zones", "zone_id", "raster", "max_land_km2", "keep_water",
        "stats", "coverage", "engine",
    ]  # fmt: skip
    assert make(coverage="center").numbers() != make().numbers()


def test_secrets_are_shown_nowhere():
    settings = make(
        storage_options={"s3": {"key": "AKIA-1", "secret": "hush", "client_kwargs": {"verify": "hush"}}},
        zones="https://ann:hush@host/z.zip?layer=2&X-Amz-Signature=hush&X-Amz-Expires=60",
        raster=["https://store/a.tif?sv=hush&st=hush&sig=hush", "b.tif"],
        mirror="https://token:hush@mirror/base",
        output="s3://bucket/out",
    )
    shown = [repr(settings), str(settings), json.dumps(settings.public()), json.dumps(settings.numbers())]
    for text in shown:
        assert "hush" not in text
        assert "AKIA" not in text
    public = settings.public()
    assert set(public) == set(Settings.model_fields)
    assert public["zones"] == "https://host/z.zip?layer=2"
    assert public["raster"] == ["https://store/a.tif", "b.tif"]
    assert public["mirror"] == "https://mirror/base"
    assert public["storage_options"] == {
        "s3": {"key": "***", "secret": "***", "client_kwargs": {"verify": "***"}}
    }
    assert settings.storage_options["s3"]["secret"] == "hush"


def test_a_wrong_secret_is_not_quoted():
    assert "hush" not in sentence(storage_options={"s3": "hush"})
    assert "hush" not in sentence(cluster="tcp://ann:hush@host:1")
    with pytest.raises(ValidationError) as caught:
        Settings(storage_options={"s3": "hush"})
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "clean"),
    [
        ("data/a@b?c=d.tif", "data/a@b?c=d.tif"),
        ("s3://bucket/a@b.tif", "s3://bucket/a@b.tif"),
        ("https://host/q?state=WA&st=1&page=2", "https://host/q?state=WA&st=1&page=2"),
        ("https://host/q?access_token=x#part", "https://host/q#part"),
        ("zip://a.shp::https://u:p@host/z.zip?sig=x", "zip://a.shp::https://host/z.zip"),
        ("https://u:p@ss@host/", "https://host/"),
    ],
)
def test_credentials_leave_a_url_and_the_rest_stays(url: str, clean: str):
    assert without_credentials(url) == clean


# ---------------------------------------------------------------- workflow files


def test_keys_are_spelt_with_hyphens_or_underscores(tmp_path: Path):
    settings = workflow(tmp_path, "max-land-km2: 25\nkeep_water: yes\nstats: mean,max\n")
    assert settings.max_land_km2 == 25
    assert settings.keep_water is True
    assert settings.stats == ("mean", "max")


@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        ("state: NE", "state", ("NE",)),
        ("state: 53", "state", ("WA",)),
        ("state: 06", "state", ("CA",)),
        ("state: 08", "state", ("CO",)),
        ("state: 53,41", "state", ("OR", "WA")),
        ("state: [OR, 53]", "state", ("OR", "WA")),
        ("year: 2018,2020", "year", (2018, 2020)),
        ("year: 2018-2020", "year", (2018, 2019, 2020)),
        ("county: 033", "county", ("033",)),  # YAML 1.1 would read 27
        ("county: 01001", "county", ("01001",)),  # and 513
        ("bbox: -122.44 47.49 -122.07 47.73", "bbox", (-122.44, 47.49, -122.07, 47.73)),
        ("bbox: [-1, .5, 1e0, 2.]", "bbox", (-1.0, 0.5, 1.0, 2.0)),
        ("part_zones: 20_000", "part_zones", 20_000),
        ("max_land_km2:", "max_land_km2", None),
        ("max_land_km2: null\nyear: 2020", "max_land_km2", None),
        ("state:", "state", ()),
        ("", "state", ()),
    ],
)
def test_yaml_means_what_it_looks_like(tmp_path: Path, text: str, field: str, value: object):
    assert getattr(workflow(tmp_path, text), field) == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sttae: WA", "workflow x.yaml: unknown key 'sttae'; did you mean 'state'?"),
        ("max-land-km: 3", "workflow x.yaml: unknown key 'max_land_km'; did you mean 'max_land_km2'?"),
        ("qwertz: 1", "workflow x.yaml: unknown key 'qwertz'"),
        ("qwertz:", "workflow x.yaml: unknown key 'qwertz'"),
        ("coverage: centre", "workflow x.yaml: coverage 'centre': expected 'fractional' or 'center'"),
        (
            "state: NO",
            "workflow x.yaml: state 'NO': no such state; write a postal code, a name or a FIPS code",
        ),
        ("state: {a: b}", "workflow x.yaml: state {'a': 'b'}: expected text or a whole number"),
        ("keep-water: true\nkeep_water: true", "workflow x.yaml: the key 'keep_water' comes twice"),
    ],
)
def test_a_wrong_workflow_is_a_usage_error_of_one_sentence(tmp_path: Path, text: str, message: str):
    assert complaint(tmp_path, text) == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "state: [WA",
            "workflow x.yaml: not valid YAML at line 1: expected ',' or ']', but got '<stream end>'",
        ),
        ("state: WA\nstate: OR", "workflow x.yaml: not valid YAML at line 2: the key 'state' comes twice"),
        ("- WA", "workflow x.yaml: expected lines of 'key: value', such as 'state: WA'"),
        ("WA", "workflow x.yaml: expected lines of 'key: value', such as 'state: WA'"),
        ("1: 2", "workflow x.yaml: expected lines of 'key: value', such as 'state: WA'"),
        ("[" * 5000, "workflow x.yaml: not valid YAML at line 1: nested over 50 deep"),
    ],
)
def test_a_file_that_is_no_mapping_is_an_input_error(tmp_path: Path, text: str, message: str):
    assert complaint(tmp_path, text, InputError) == message


def test_yaml_tags_build_no_objects(tmp_path: Path):
    text = f"state: !!python/object/apply:os.mkdir ['{tmp_path}/made']"
    assert "could not determine a constructor" in complaint(tmp_path, text, InputError)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    "text", ["!!bool x: 1", "!!timestamp x: 1", "state: !!int ''", "!!float x", "? [a]\n: b"]
)
def test_odd_tags_and_keys_are_an_input_error(tmp_path: Path, text: str):
    assert "workflow x.yaml: " in complaint(tmp_path, text, InputError)


def test_bytes_that_are_no_text_are_an_input_error(tmp_path: Path):
    (tmp_path / "x.yaml").write_bytes(b"\xff\xfe\x00state")
    with pytest.raises(InputError, match="not valid YAML"):
        load(str(tmp_path / "x.yaml"))


def test_aliases_of_aliases_stay_small(tmp_path: Path):
    lines = ["a0: &a0 [x, x]"] + [f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 60)]
    with pytest.raises(InputError, match="over 100,000 values"):
        workflow(tmp_path, "\n".join([*lines, "state: *a59"]))


@given(st.text(max_size=200))
def test_any_text_is_settings_or_a_clear_error(tmp_path_factory: pytest.TempPathFactory, text: str):
    file = tmp_path_factory.getbasetemp() / "any.yaml"
    file.write_text(text, encoding="utf-8", errors="replace")
    try:
        load(str(file))
    except ZonalError as error:
        assert len(str(error)) < 2000


@given(
    st.dictionaries(
        st.sampled_from(sorted(Settings.model_fields)),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
            lambda inner: (
                st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
            ),
        ),
    )
)
def test_any_values_are_settings_or_a_clear_error(values: dict[str, Any]):
    try:
        settings = load(overrides=values)
    except UsageError as error:
        assert str(error)
    else:
        json.dumps(settings.public())


def test_flags_win_over_the_workflow(tmp_path: Path):
    file = tmp_path / "x.yaml"
    file.write_text("state: WA\nyear: 2020\nraster: [a.tif]\nworkers: 4\n")
    settings = load(str(file), {"state": "OR", "year": None, "raster": [], "keep-water": True})
    assert settings.state == ("OR",)
    assert settings.year == (2020,)
    assert settings.raster == ("a.tif",)
    assert settings.keep_water is True
    assert settings.workers == 4


def test_a_flag_for_a_cluster_drops_the_workflows_local_workers(tmp_path: Path):
    file = tmp_path / "x.yaml"
    file.write_text("workers: 4\nthreads: 1\ndashboard: 0.0.0.0:8787\n")
    settings = load(str(file), {"cluster": "tcp://h:1"})
    assert settings.dashboard == Settings().dashboard
    assert settings.workers is None
    assert settings.threads is None


def test_the_mirror_comes_from_flag_then_workflow_then_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("ZONAL_MIRROR", "env")
    assert load().mirror == "env"
    assert Settings().mirror == "env"
    file = tmp_path / "x.yaml"
    file.write_text("mirror: file\n")
    assert load(str(file)).mirror == "file"
    assert load(str(file), {"mirror": "flag"}).mirror == "flag"
    monkeypatch.setenv("ZONAL_MIRROR", "")
    assert load().mirror is None


def test_an_unknown_workflow_lists_the_bundled_ones():
    with pytest.raises(UsageError) as caught:
        load("washingtn-2020")
    assert str(caught.value) == (
        "workflow 'washingtn-2020': not a YAML file and no bundled workflow (all-states, demo, "
        "seattle-bellevue, washington-2020); did you mean 'washington-2020'?"
    )
    with pytest.raises(UsageError, match="no bundled workflow"):
        load("kustomization")


def test_a_missing_file_is_an_input_error():
    with pytest.raises(InputError) as caught:
        load("nowhere/x.yaml")
    assert str(caught.value) == "workflow nowhere/x.yaml: no such file"
    with pytest.raises(InputError, match="cannot be read"):
        load("/tmp/../")


# ---------------------------------------------------------------- bundled files


def test_every_bundled_workflow_loads_outside_the_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert workflow_names() == ("all-states", "demo", "seattle-bellevue", "washington-2020")
    for name in workflow_names():
        assert load(name) == load(str(bundled(f"workflows/{name}.yaml")))


def test_washington_has_the_posts_filters():
    settings = load("washington-2020")
    assert settings.state == ("WA",)
    assert settings.year == (2020,)
    assert settings.max_land_km2 == 25
    assert settings.coverage == "center"
    assert settings.keep_water is False
    assert load("seattle-bellevue").bbox == (-122.44, 47.49, -122.07, 47.73)


def test_the_config_map_holds_every_workflow():
    content = yaml.safe_load(bundled("workflows/kustomization.yaml").read_text())
    files = content["configMapGenerator"][0]["files"]
    assert files == [f"{name}.yaml" for name in workflow_names()]


def test_the_wheel_carries_the_catalog_the_workflows_and_the_template_of_a_cluster():
    if not (REPO / "pyproject.toml").exists():
        pytest.skip("not in a checkout")
    project = tomllib.loads((REPO / "pyproject.toml").read_text())
    mapped = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    names = ("data_catalog.yaml", TEMPLATE, "workflows")
    assert mapped == {name: f"zonal/_data/{name}" for name in names}
    assert all((REPO / name).exists() for name in names)


def test_a_file_that_is_not_bundled_is_an_input_error():
    with pytest.raises(InputError, match=r"workflows/none\.yaml is not bundled"):
        bundled("workflows/none.yaml")


def test_one_state_of_several_is_taken_by_its_number_in_the_order_of_fips_codes() -> None:
    settings = Settings(state="WA,AL", year=2020)
    assert [settings.of_state(number).state for number in (0, 1)] == [("AL",), ("WA",)]
    for number in (-1, 2):
        with pytest.raises(UsageError, match="there are 2 states"):
            settings.of_state(number)
    with pytest.raises(UsageError, match="county 53033 lies in WA, not in AL"):
        Settings(state="WA,AL", year=2020, county="53033").of_state(0)


def test_an_output_with_a_gap_needs_what_fills_it() -> None:
    assert Settings(state="WA", year=2020, output="/o/{state}-{year}").output == "/o/{state}-{year}"
    for words in ({"output": "/o/{state}"}, {"state": "WA", "output": "/o/{year}"}):
        with pytest.raises(ValidationError, match="to fill in"):
            Settings(**words)


def test_fewer_pods_than_are_waited_for_and_a_template_without_pods_are_refused() -> None:
    assert Settings(cluster="kubernetes", workers=4, min_workers=4).min_workers == 4
    with pytest.raises(ValidationError, match="min_workers 5 > workers 4"):
        Settings(cluster="kubernetes", workers=4, min_workers=5)
    with pytest.raises(ValidationError, match="cluster_template is for cluster kubernetes, not for local"):
        Settings(cluster_template="x.yaml")


def test_a_template_in_the_settings_is_not_shown() -> None:
    settings = Settings(cluster="kubernetes", cluster_template={"spec": {"env": "hush"}})
    assert settings.public()["cluster_template"] == "given"
    assert "hush" not in repr(settings)
