"""The families of tasks, one file each, and what they share."""
