"""Coverage-guided fuzzing: ``python tests/fuzz/run.py tiff|workflow FOLDER [flags of libFuzzer]``.

FOLDER keeps the corpus, and what made a target fail.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["zonal", "yaml"]):
    import targets


def main() -> None:
    name, folder, *flags = sys.argv[1:]
    corpus = Path(folder) / name
    corpus.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="zonal-fuzz-") as scratch:
        where = Path(scratch)
        seeds = targets.tiff_seeds(where) if name == "tiff" else targets.yaml_seeds()
        for number, seed in enumerate(seeds):
            (corpus / f"seed-{number}").write_bytes(seed)
        target = targets.TARGETS[name]
        atheris.Setup(
            [
                sys.argv[0],
                str(corpus),
                f"-artifact_prefix={folder}/{name}-",
                "-rss_limit_mb=4096",
                f"-timeout={2 * targets.SECONDS}",
                "-max_len=65536",
                *flags,
            ],
            lambda raw: target(raw, where) and None,
        )
        atheris.Fuzz()


main()
