"""Everything that a user, a file or a network can get wrong, as one short tree.

    SanbaiError              exit 1: the work failed
    ├── UsageError           exit 2: the request cannot be understood
    │   ├── RecipeError          a recipe names an unknown key or a value out of range
    │   └── UnknownNameError     no such model, round, run or account
    ├── ArtifactError        an artifact is missing, truncated or altered
    ├── CheckpointError      a run's saved state does not fit what asks for it
    ├── DataError            a record or a text file is not what its format says
    ├── ModelError           weights or configuration do not fit the architecture
    ├── StoreError           the feedback database refuses or is not ours
    ├── ResourceError        no space, no port, no permission
    └── Interrupted          exit 0: asked to stop, the state is saved, the same command continues

A message names the thing, what was found, what was wanted and the next step, in one line.
"""

from __future__ import annotations


class SanbaiError(Exception):
    """Root of every error that is meant for the person at the keyboard."""

    exit_code = 1


class UsageError(SanbaiError):
    """The request itself cannot be understood."""

    exit_code = 2


class RecipeError(UsageError):
    """A recipe holds an unknown key, a missing value or one out of its range."""


class UnknownNameError(UsageError):
    """No model, round, run or account has the given name."""


class ArtifactError(SanbaiError):
    """An artifact is missing, truncated or altered."""


class CheckpointError(SanbaiError):
    """A saved training state does not fit the run that asks for it."""


class DataError(SanbaiError):
    """A record or a text file is not what its format says."""


class ModelError(SanbaiError):
    """Weights or configuration do not fit the architecture."""


class StoreError(SanbaiError):
    """The feedback database refuses, or was made by another program or version."""


class ResourceError(SanbaiError):
    """The machine lacks something: space, a free port, a permission."""


class Interrupted(SanbaiError):  # noqa: N818 - not an error: the state is saved
    """The process was asked to stop; the state is saved and the same command continues."""

    exit_code = 0
