"""Staging: what holds over all files of a run, and what the staged files hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import shapely

from zonal.config.catalog import Catalog
from zonal.engine.work import Reader
from zonal.errors import InputError
from zonal.geo.pieces import Pieces
from zonal.io.store.folder import Folder
from zonal.io.table.table import TableColumns
from zonal.planning.inputs import RasterInput, ZoneFile, ZoneInput
from zonal.planning.stage import EVERY_YEAR, Batch, Stage, write_batch, zone_table
from zonal.planning.staging import stage
from zonal.planning.zones import Filters, ZoneColumns


def frame_of(ids: list[Any], first: int = 0) -> gpd.GeoDataFrame:
    west = np.arange(len(ids)) * 0.01 - 87 + first * 0.1
    return gpd.GeoDataFrame({"id": ids}, geometry=shapely.box(west, 40, west + 0.01, 40.01), crs="EPSG:4269")


def staged(folder: Path, *frames: gpd.GeoDataFrame, part_zones: int = 10) -> Stage:
    catalog = Catalog.load(None)
    raster = RasterInput(catalog, None, Reader("rasterio", "linear"), None, "", None, (), "EPSG:5070")
    files = tuple(ZoneFile(f"S{n}", f"file {n}", "", frame=frame) for n, frame in enumerate(frames))
    table = TableColumns("id", ("red",), ("mean",), narrow=False)
    return stage(
        Folder(str(folder)), ZoneInput(files, ZoneColumns("id"), None), raster, Filters(), [], table,
        key="k", part_zones=part_zones,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("first", "third"), [(["a", "b", "c"], ["x", "b"]), ([1, 2, 3], [9, 2]), ([1, 2, 3], [9.0, 2.0])]
)
def test_an_id_that_is_in_two_files_is_an_error(tmp_path: Path, first: Any, third: Any) -> None:
    second = ["d", "e"] if isinstance(first[0], str) else [4, 5]
    with pytest.raises(InputError, match=r"file 2: zone ('b'|2|2\.0) is in another file too"):
        staged(tmp_path, frame_of(first), frame_of(second, 1), frame_of(third, 2))


def test_ids_that_only_share_a_hash_are_different_zones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zonal.planning.staging.hashes_of", lambda ids: np.full(len(ids), 7, np.uint64))
    result = staged(tmp_path, frame_of(["a", "b"]), frame_of(["c"], 1))
    assert [batch.zones for batch in result.batches] == [2, 1]
    with pytest.raises(InputError, match="file 2: zone 'c' is in another file too"):
        staged(tmp_path / "other", frame_of(["a", "b"]), frame_of(["c"], 1), frame_of(["c"], 2))


def test_the_hash_is_of_the_content_and_not_of_row_groups_or_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [f"{n:05d}" for n in range(3_000)]
    one = staged(tmp_path / "one", frame_of(ids), part_zones=1_000)
    monkeypatch.setattr("zonal.geo.crs.THREADS", 1)
    assert staged(tmp_path / "two", frame_of(ids), part_zones=70).hash == one.hash
    assert staged(tmp_path / "three", frame_of(ids[1:]), part_zones=70).hash != one.hash


def test_planning_and_work_see_the_same_pieces(tmp_path: Path) -> None:
    result = staged(tmp_path, frame_of([*"abcde"]), frame_of([*"fgh"], 1), part_zones=2)
    assert result.row_groups.bounds.tolist() == [0, 2, 4, 5, 7, 8]
    everywhere = (-1e9, -1e9, 1e9, 1e9)
    for batch, groups in enumerate([(0, 1, 2), (3, 4)]):
        outlines = result.outlines(batch, 2024)
        pieces, _, _ = result.pieces(groups, epsg=0, year=2024, bounds=everywhere)
        rows = np.arange(len(pieces))
        assert shapely.equals_identical(outlines.polygons(rows), pieces.geometry).all()
        assert np.array_equal(outlines.bounds, shapely.bounds(pieces.geometry))
        assert {*outlines.row_group.tolist()} == {*groups}


def test_polygons_are_read_when_they_are_asked_for(tmp_path: Path) -> None:
    """By row group: of pieces of a year, of zones without pieces, in any order, some of them twice."""
    frame = frame_of([f"{n:02d}" for n in range(12)])
    shapes = frame.geometry.to_numpy()
    few = np.array([0, 1, 1, 2, 6, 7, 11])  # none of zones 3 to 5: a row group without pieces
    every = Pieces(few, np.full(7, 32616, np.int32), shapes[few])
    other = Pieces(np.array([1, 8]), np.full(2, 32617, np.int32), shapes[[1, 8]])
    folder = Folder(str(tmp_path))
    zones, areas, pieces = zone_table(frame), np.ones(12), {EVERY_YEAR: every, 2024: other}
    _, hashes = write_batch(
        folder, 0, zones, areas, pieces, crs="EPSG:4269", first_zone=0, first_piece=0, size=3
    )
    assert hashes.keys() == {EVERY_YEAR, 2024}
    result = Stage(folder, "k", "h", "EPSG:4269", "id", (Batch("zones", 12, 3),), {}, {"files": []})
    for year, zones in ((2023, few), (2024, np.array([0, 1, 1, 1, 2, 6, 7, 8, 11]))):
        found = result.outlines(0, year)
        assert found.row_group.tolist() == (zones // 3).tolist()
        rows = np.array([len(zones) - 1, 0, 2, 2, 4])
        assert shapely.equals_identical(found.polygons(rows), shapes[zones[rows]]).all()
