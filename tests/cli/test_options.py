from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import typer.main
from typer.core import TyperOption

from zonal.cli.app import app
from zonal.cli.options import spread
from zonal.config.analysis import EvaluationSettings, MapSettings
from zonal.config.settings import Settings

COMMANDS: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]


def called(words: str) -> Any:
    """The context of a command that has read its words, but has not begun."""
    command, *rest = words.split()
    return COMMANDS[command].make_context(command, rest)


def help_texts(command: Any) -> dict[str, tuple[str, str]]:
    options = (param for param in command.params if isinstance(param, TyperOption))
    return {param.name: (param.metavar, param.help) for param in options}


def described(fields: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """What fields say of their options."""
    options = ((name, field) for name, field in fields.items() if field.json_schema_extra)
    return {
        name: (field.json_schema_extra["metavar"], field.description.split("\n")[0])
        for name, field in options
    }


def test_each_setting_is_an_option_of_run_as_its_field_says_and_in_that_order() -> None:
    options = help_texts(called("run").command)
    settings = described(Settings.model_fields)
    assert {*Settings.model_fields} - {*settings} == {
        *("storage_options", "cache_gb", "part_zones", "part_chunks", "unit_chunks", "pca", "evaluate")
    }
    assert {name: options[name] for name in settings} == settings
    assert [name for name in options if name in settings] == [*settings]
    assert [name for name in options if name not in settings] == [
        "state_index",
        "fresh",
        "quiet",
        "json_logs",
    ]
    assert [*options][:2] == ["state", "state_index"]


@pytest.mark.parametrize(("command", "model"), [("pca", MapSettings), ("evaluate", EvaluationSettings)])
def test_each_setting_of_a_finding_is_an_option_of_its_command(command: str, model: Any) -> None:
    options = help_texts(called(f"{command} table.parquet").command)
    assert described(model.model_fields).items() <= options.items()
    assert {*described(model.model_fields)} == {*model.model_fields}


def test_a_plan_and_the_catalog_say_of_a_setting_what_run_says() -> None:
    run = help_texts(called("run").command)
    plan = help_texts(called("plan").command)
    del plan["headers"]
    assert plan.items() < run.items()
    for command in (COMMANDS["catalog"], *COMMANDS["catalog"].commands.values()):
        shared = {name: said for name, said in help_texts(command).items() if name in ("catalog", "mirror")}
        assert shared and shared.items() <= run.items()


def test_options_have_the_types_of_their_fields() -> None:
    words = "run --raster a.tif b.tif --county 033 061 --state WA --year 2018,2020 --bbox 1 2 3 4 --workers 2"
    params = called(f"{words} --patience 1.5 --keep-water --stats mean,std mine.yaml").params
    assert {name: value for name, value in params.items() if value not in (None, (), [], False)} == {
        "workflow": "mine.yaml",
        "state": ["WA"],
        "county": ["033", "061"],
        "raster": ["a.tif", "b.tif"],
        "year": "2018,2020",
        "bbox": (1, 2, 3, 4),
        "workers": 2,
        "patience": 1.5,
        "keep_water": True,
        "stats": "mean,std",
    }
    params = called("pca table.parquet --percentiles 1 99 --no-standardize").params
    assert (params["percentiles"], params["standardize"]) == ((1.0, 99.0), False)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--raster a.tif b.tif --year 2020", "--raster a.tif --raster b.tif --year 2020"),
        ("--state WA OR --quiet", "--state WA --state OR --quiet"),
        ("washington-2020 --county 033 061", "washington-2020 --county 033 --county 061"),
        ("--state WA seattle-bellevue", "--state WA seattle-bellevue"),
        ("--raster a.tif my.yaml --fresh", "--raster a.tif my.yaml --fresh"),
        ("--raster a.tif --raster b.tif c.tif", "--raster a.tif --raster b.tif --raster c.tif"),
        ("--bbox -122.4 47.4 -122 47.7 demo", "--bbox -122.4 47.4 -122 47.7 demo"),
        ("--state WA OR", "--state WA --state OR"),
        ("-- --state a b", "-- --state a b"),
    ],
)
def test_options_of_several_values_take_them_one_after_the_other(words: str, expected: str) -> None:
    assert spread(words.split(), {"--raster", "--state", "--county"}) == expected.split()


def test_an_option_of_one_value_leaves_the_next_word_to_the_command() -> None:
    check = COMMANDS["catalog"].commands["check"]
    params = check.make_context("check", ["--state", "WI", "census_blocks_2020"]).params
    assert (params["state"], [*params["names"]]) == ("WI", ["census_blocks_2020"])
