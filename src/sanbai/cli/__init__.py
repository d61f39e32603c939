"""The command line: one command, nouns in the order of the pipeline; each command reads a recipe, calls, prints."""
