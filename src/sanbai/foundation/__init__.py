"""The ground floor: errors, recipes, seeds, files, artifacts, runs and progress; everything above imports it."""
