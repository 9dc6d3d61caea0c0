from __future__ import annotations

import pytest

from zonal.text import human


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (38_500_000, "38.5 MB"),
        (2.5e12, "2.5 TB"),
        (3e15, "3000.0 TB"),
    ],
)
def test_bytes_are_in_decimal_units(size: float, text: str) -> None:
    assert human(size) == text
