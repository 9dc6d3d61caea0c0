"""Numbers: coverage and moments. Knows no I/O."""
