"""The QGIS style: its expression, worked out here as QGIS does it, gives the map's colours."""

from __future__ import annotations

import math
import re
from typing import Any
from xml.etree import ElementTree as Xml

import numpy as np
import pytest

from zonal.findings.gram import Gram
from zonal.findings.map.style import qml
from zonal.findings.pca import Components, Stretch, components_of

ONE, TWO = chr(34), chr(34) * 2


def style_of(names: list[str], values: np.ndarray, count: int = 3) -> tuple[str, Components, Stretch]:
    components = components_of(Gram.of(values), names, components=count)
    stretch = Stretch.of(components.scores(values), (2, 98))
    return qml(components, stretch), components, stretch


def expression_of(style: str) -> str:
    (fill,) = Xml.fromstring(style).iterfind(".//Option[@name='fillColor']")
    found = {option.get("name"): option.get("value") for option in fill}
    assert (found["active"], found["type"]) == ("true", "3")
    return str(found["expression"])


def worked_out(expression: str, row: dict[str, float | None]) -> tuple[float, ...]:
    """QGIS's meaning of the few functions used; null in, null out, and its `round` goes away from 0."""

    class Null(Exception):
        pass

    def value(name: str) -> float:
        if row[name] is None:
            raise Null
        return float(row[name])  # type: ignore[arg-type]

    names: dict[str, Any] = {
        "value": value,
        "round": lambda x: math.copysign(math.floor(abs(x) + 0.5), x),
        "clamp": lambda low, x, high: min(max(low, x), high),
        "color_rgb": lambda r, g, b: (r, g, b, 255),
        "color_rgba": lambda *rgba: rgba,
    }
    wanted, _, otherwise = expression.removeprefix("coalesce(").removesuffix(")").rpartition(", color_rgba")
    code = re.sub(r'"((?:[^"]|"")*)"', lambda m: f"value({m[1].replace(TWO, ONE)!r})", wanted)
    try:
        return eval(code, {"__builtins__": {}}, names)
    except Null:
        return eval(f"color_rgba{otherwise}", {"__builtins__": {}}, names)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_expression_gives_the_maps_colours(count: int) -> None:
    rng = np.random.default_rng(count)
    names = ["A00_mean", 'odd "name" & <more>', "B2"]
    values = (rng.standard_normal((200, 3)) * (0.1, 5, 1) + (0.2, 300, -1)).astype(np.float32)
    style, components, stretch = style_of(names, values, count)
    expression = expression_of(style)
    expected = stretch.colours(components.scores(values))
    found = [worked_out(expression, dict(zip(names, map(float, row), strict=True))) for row in values]
    # Nine digits of each weight: a score that is all but half-way between two shades may take the other.
    assert np.abs(np.array(found)[:, :3] - expected).max() <= 1
    assert (np.array(found)[:, :3] == expected).mean() > 0.99


def test_a_zone_that_lacks_a_feature_is_transparent() -> None:
    values = np.random.default_rng(0).standard_normal((50, 2)).astype(np.float32)
    style, *_ = style_of(["a", "b"], values)
    assert worked_out(expression_of(style), {"a": 0.1, "b": None}) == (0, 0, 0, 0)


def test_two_styles_of_one_table_are_the_same_text() -> None:
    values = np.random.default_rng(1).standard_normal((50, 4)).astype(np.float32)
    assert style_of(list("abcd"), values)[0] == style_of(list("abcd"), values)[0]
