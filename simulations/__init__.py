"""Worlds made from one seed in which the code of `node` and `protocol` runs unchanged."""
