"""Finding the files that a recipe names, inside the data folder and nowhere else."""

from __future__ import annotations

from pathlib import Path

from sanbai.foundation.errors import DataError


def find_files(folder: Path, pattern: str) -> list[Path]:
    """Return the files below `folder` that a path or glob names, in the order of their names.

    Raises:
        DataError: the path leads out of the folder, or names nothing.
    """
    if Path(pattern).is_absolute() or ".." in Path(pattern).parts:
        raise DataError(f"{pattern}: leads out of the data folder; wanted a path relative to {folder}")
    files = sorted(path for path in folder.glob(pattern) if path.is_file())
    if not files:
        raise DataError(f"{folder / pattern}: no such file")
    return files
