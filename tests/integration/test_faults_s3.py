"""An S3 store that fails one request in five, for what is read and for what is written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from faults import ANY, BODY, RANGE, TILE, WRITE, Faults, faulty_s3
from processes import zonal_run
from seam import Seam, workflow
from servers import S3Server


def test_the_table_is_right_to_the_last_byte_with_a_failing_s3_store_for_input_and_output(
    seam: Seam, s3: S3Server, tmp_path: Path, s3_seed: int, record_property: Callable[[str, object], None]
) -> None:
    mirror, results = f"seam-{s3_seed}", f"results-{s3_seed}"
    s3.upload(seam.mirror, mirror)
    s3.filesystem().makedirs(results, exist_ok=True)
    faults = Faults(s3_seed, seam.mirror, stall=1.5)
    words = [workflow(tmp_path, f"s3://{mirror}"), "--output", f"s3://{results}/out", "--stall", 0.5]
    words += ["--workers", 2, "--threads", 4]
    with (
        faulty_s3(s3, faults) as store,
        zonal_run(*words, folder=tmp_path, **store.environment) as driver,
    ):
        assert driver.ended(180) == 0, driver.said
    assert s3.filesystem().cat_file(f"{results}/out/stats.parquet") == seam.reference.bytes
    assert s3.keys(results) == ["out/manifest.json", "out/stats.parquet"]
    assert {*faults.injected} == {*ANY, *BODY, *RANGE, TILE, WRITE}, "every kind of fault was there"
    assert faults.injected.total() > 0.15 * faults.attempts.total()
    record_property("faults", faults.injected.total())
