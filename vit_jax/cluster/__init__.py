"""The processes of a run: joining, watching each other, preemption, and how arrays lie on their devices."""
