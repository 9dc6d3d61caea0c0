"""A table's rows merged into larger areas."""
