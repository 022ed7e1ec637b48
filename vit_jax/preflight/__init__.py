"""What a run would be, found out without running it."""
