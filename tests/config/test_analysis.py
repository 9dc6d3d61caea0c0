from __future__ import annotations

from pathlib import Path

import pytest

from zonal.config.settings import STEPS, Settings
from zonal.config.workflows import load
from zonal.errors import UsageError


def loaded(tmp_path: Path, text: str) -> Settings:
    workflow = tmp_path / "mine.yaml"
    workflow.write_text(text)
    return load(str(workflow))


def test_a_run_takes_every_step_unless_told_otherwise(tmp_path: Path) -> None:
    assert Settings().steps == STEPS == ("stats", "pca", "evaluate", "report")
    assert loaded(tmp_path, "steps: [report, stats]").steps == ("stats", "report")
    assert load(None, {"steps": "pca"}).steps == ("pca",)


def test_sections_of_a_workflow_are_read_as_people_write_them(tmp_path: Path) -> None:
    text = """
    pca: {percentiles: [1, 99], crs: EPSG:5070}
    evaluate:
      targets: population, log(rent), log1p(a,b)
      models: [ols, ridge]
      spatial: grid
      block-km: 5
      seed:
    """
    asked = loaded(tmp_path, text)
    assert asked.pca.percentiles == (1.0, 99.0)
    assert asked.pca.crs == "EPSG:5070"
    assert asked.evaluate.targets == ("population", "log(rent)", "log1p(a,b)")
    assert asked.evaluate.models == ("ols", "ridge")
    assert (asked.evaluate.spatial, asked.evaluate.block_km, asked.evaluate.seed) == ("grid", 5.0, 0)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("steps: stat", "steps 'stat': expected some of stats, pca, evaluate, report; did you mean 'stats'?"),
        ("pca: {resolution: -1}", "resolution -1: should be greater than 0"),
        ("pca: {percentiles: [98, 2]}", "percentiles 98 2: expected 0 <= low < high <= 100"),
        ("evaluate: {fold: 5}", "unknown key 'fold'; did you mean 'folds'?"),
        ("evaluate: {folds: 1}", "folds 1: should be greater than or equal to 2"),
        ("evaluate: {models: [olx]}", "models 'olx': expected 'ols', 'ridge' or 'boosting'"),
        ("evaluate: {on: GEOID}", "on is the key column of attributes; give both, or neither"),
        (
            "evaluate: {spatial: tract, block_km: 3}",
            "block_km is the size of a grid cell; the folds are by tract",
        ),
    ],
)
def test_what_is_wrong_in_a_section_is_said_in_one_sentence(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(UsageError) as error:
        loaded(tmp_path, text)
    assert str(error.value).endswith(says)


def test_neither_the_table_nor_the_manifest_depends_on_a_secret_of_the_attributes() -> None:
    plain = Settings()
    asked = load(None, {"evaluate": {"attributes": "https://user:word@host/rent.csv?sig=abc"}})
    assert plain.numbers() == asked.numbers()
    assert "word" not in str(asked.public()) and "abc" not in str(asked.public())
    assert "word" not in repr(asked) and "abc" not in repr(asked)
