"""Sweeps: many runs of a config, planned, run, searched and reported."""
