"""A table drawn as a map."""
