"""The processes of a run: joining, heartbeats, preemption, and how arrays are sharded over their devices."""
