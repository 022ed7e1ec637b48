"""Run directories: the facts of a run, its checkpoints and its metrics."""
