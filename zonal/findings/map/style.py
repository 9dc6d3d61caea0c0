"""A QGIS style that colours a table's zones as the map does.

Knows principal components, their stretch and QGIS's XML; knows no file. The
colour is an expression over the table's own columns: no further column is needed.
"""

from __future__ import annotations

from collections.abc import Iterable
from xml.etree import ElementTree as Xml

import numpy as np

from zonal.findings.pca import Components, Stretch
from zonal.findings.table import Floats

DOCTYPE = "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"

EXPRESSION = 3
"""QGIS's number of a property that is an expression."""


def qml(components: Components, stretch: Stretch) -> str:
    """Write a layer style: each zone filled with the map's colour, without outline.

    A zone that lacks a feature is transparent. QGIS takes the file by itself where it
    lies beside the layer's file under the same name.

    Parameters
    ----------
    components : Components
    stretch : Stretch
        Of the first components, at most three.
    """
    root = Xml.Element("qgis", version="3.22", styleCategories="Symbology")
    renderer = Xml.SubElement(root, "renderer-v2", type="singleSymbol", symbollevels="0", enableorderby="0")
    symbols = Xml.SubElement(renderer, "symbols")
    symbol = Xml.SubElement(symbols, "symbol", type="fill", name="0", alpha="1", clip_to_extent="1")
    layer = Xml.SubElement(
        symbol, "layer", {"class": "SimpleFill", "enabled": "1", "locked": "0", "pass": "0"}
    )
    options = Xml.SubElement(layer, "Option", type="Map")
    for name, value in (("color", "128,128,128,255"), ("style", "solid"), ("outline_style", "no")):
        Xml.SubElement(options, "Option", type="QString", name=name, value=value)
    parent = Xml.SubElement(Xml.SubElement(layer, "data_defined_properties"), "Option", type="Map")
    Xml.SubElement(parent, "Option", type="QString", name="name", value="")
    properties = Xml.SubElement(parent, "Option", type="Map", name="properties")
    fill = Xml.SubElement(properties, "Option", type="Map", name="fillColor")
    Xml.SubElement(fill, "Option", type="bool", name="active", value="true")
    Xml.SubElement(fill, "Option", type="QString", name="expression", value=expression(components, stretch))
    Xml.SubElement(fill, "Option", type="int", name="type", value=str(EXPRESSION))
    Xml.SubElement(parent, "Option", type="QString", name="type", value="collection")
    Xml.SubElement(root, "layerGeometryType").text = "2"
    Xml.indent(root)
    return DOCTYPE + Xml.tostring(root, encoding="unicode") + "\n"


def expression(components: Components, stretch: Stretch) -> str:
    """Write a zone's colour as a QGIS expression over its columns.

    Each channel is linear in the features, rounded and cut to 0 to 255, as `Stretch.colours` does it.
    """
    weights = components.loadings[: len(stretch.low)] / components.scale
    offsets = -(weights @ components.mean)
    width = np.where(stretch.high > stretch.low, stretch.high - stretch.low, 1.0)
    channels = [
        _channel(components.features, 255 * weight / wide, float(255 * (offset - low) / wide))
        for weight, offset, low, wide in zip(weights, offsets, stretch.low, width, strict=True)
    ]
    shown = channels * 3 if len(channels) == 1 else [*channels, "0"][:3]
    return f"coalesce(color_rgb({', '.join(shown)}), color_rgba(0, 0, 0, 0))"


def _channel(features: Iterable[str], weights: Floats, offset: float) -> str:
    terms = "".join(
        f" {'+' if weight >= 0 else '-'} {abs(weight):.9g} * {_quoted(name)}"
        for name, weight in zip(features, weights, strict=True)
    )
    return f"clamp(0, round({offset:.9g}{terms}), 255)"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
