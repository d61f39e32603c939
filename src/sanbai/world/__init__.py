"""The tiny world: a village that a program can check, and what the project ships instead of a data set."""
