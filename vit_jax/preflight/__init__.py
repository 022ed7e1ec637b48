"""Checks of a run before it starts: what it would do, and the memory, traffic and time it would need."""
