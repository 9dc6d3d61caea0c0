"""How long an evaluation takes, and its memory at the peak, for any number of rows.

    .venv/bin/python -m benchmarks.evaluation --rows 1000000

Rows are drawn when they are read and lie in no file: features of an embedding's size, census columns, places.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from zonal.config.analysis import EvaluationSettings
from zonal.findings.evaluation.assess import assess

BATCH = 10_000
NUMBERS = ("ALAND20", "AWATER20", "POP20", "HOUSING20")
TEXT = ("UR20", "STATEFP20", "COUNTYFP20")


@dataclass(frozen=True)
class Drawn:
    """A table whose batches are drawn anew, and alike, each time they are read."""

    rows: int
    features: int
    name: str = "drawn"
    zone_id: str | None = None
    geo: dict[str, Any] | None = None

    @property
    def schema(self) -> pa.Schema:
        features = [(f"A{n:03d}_mean", pa.float32()) for n in range(self.features)]
        numbers = [(name, pa.int64()) for name in NUMBERS]
        return pa.schema([*features, *numbers, *((name, pa.string()) for name in TEXT)])

    def read(self, columns: Sequence[str]) -> pa.Table:
        return pa.Table.from_batches([*self.batches(columns)])

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        for start in range(0, self.rows, BATCH):
            rng = np.random.default_rng(start)
            count = min(BATCH, self.rows - start)
            values = rng.standard_normal((count, self.features), np.float32)
            signal = values[:, 0] + rng.standard_normal(count)
            county = start // max(self.rows // 40, 1)
            made = {name: np.exp(signal + n).astype(np.int64) + 1 for n, name in enumerate(NUMBERS)}
            made["UR20"] = np.where(signal > 0, "U", "R")
            made["STATEFP20"] = np.full(count, "53")
            made["COUNTYFP20"] = np.full(count, f"{county:03d}")
            made |= {f"A{n:03d}_mean": values[:, n] for n in range(self.features)}
            yield pa.RecordBatch.from_pydict({name: made[name] for name in columns})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--features", type=int, default=128)
    parser.add_argument("--models", default="ols")
    parser.add_argument("--classes", default="urban", help="none: leave the classifications out")
    words = parser.parse_args()
    asked = {"models": words.models, "classes": () if words.classes == "none" else words.classes}
    started = time.perf_counter()

    def tell(event: Any) -> None:
        print(f"{time.perf_counter() - started:8.1f} s  {event.message}", flush=True)

    table = Drawn(words.rows, words.features)
    assess(table, EvaluationSettings.model_validate(asked), version="", notify=tell)
    seconds = round(time.perf_counter() - started, 1)
    peak = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)
    print(json.dumps({"rows": words.rows, "features": words.features, "seconds": seconds, "peak_GiB": peak}))


if __name__ == "__main__":
    main()
