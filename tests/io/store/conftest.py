from __future__ import annotations

from pathlib import Path

import pytest

from zonal.io.store.folder import Folder


@pytest.fixture(params=["disk", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    """The same promises on a disk and on a store (fsspec's own, in memory)."""
    if request.param == "disk":
        return Folder(str(tmp_path / "out"))
    return Folder(f"memory://{tmp_path.name}/out")
