"""The country benchmark, on few zones: it counts what it made and leaves nothing behind."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from builds import REPO


def test_a_small_country_is_staged_and_planned_and_gone(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.country", "--states", "9", "--scale", "0.0005"]
    ran = subprocess.run([*command, "--folder", str(tmp_path)], cwd=REPO, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    figures = json.loads(ran.stdout.splitlines()[-1])
    assert abs(figures["zones"] - 4050) <= 9
    assert 0.9 * figures["zones"] < figures["zones_kept"] < figures["zones"]  # some are all water
    assert 25 < figures["vertices_a_zone"] < 35 and figures["repaired"] == 0
    assert figures["parts"] >= 9 and figures["units"] >= figures["tiles"] >= 9
    assert figures["staged_bytes"] > 0 and figures["graph_bytes"] > figures["of_headers_bytes"]
    assert not list(tmp_path.iterdir())
