"""A workspace: one folder with all that was made, `artifacts/`, `runs/` and the embedded database."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sanbai.foundation.artifacts import ID_DIGITS, MANIFEST, Artifact, load_artifact
from sanbai.foundation.errors import UnknownNameError
from sanbai.foundation.files import explain_disk_errors


@dataclass(frozen=True)
class Workspace:
    """Where artifacts, runs and rows live.

    `database` overrides the embedded SQLite file with the URL of another database.
    """

    root: Path
    database: str = ""

    @property
    def artifacts(self) -> Path:
        """Folder of the finished artifacts."""
        return self.root / "artifacts"

    @property
    def runs(self) -> Path:
        """Folder of the runs: logs, metrics, checkpoints."""
        return self.root / "runs"

    @property
    def database_url(self) -> str:
        """SQLAlchemy URL of the feedback store."""
        return self.database or f"sqlite:///{self.root.absolute() / 'sanbai.db'}"

    def create(self) -> None:
        """Make the folders.

        Raises:
            ResourceError: no permission or no space.
        """
        with explain_disk_errors(self.root):
            self.artifacts.mkdir(parents=True, exist_ok=True)
            self.runs.mkdir(parents=True, exist_ok=True)

    def find(self, kind: str, identity: str) -> Artifact | None:
        """Return the artifact of this kind and full id if it is finished.

        Raises:
            ArtifactError: its folder has lost its manifest.
        """
        path = self.artifacts / f"{kind}-{identity[:ID_DIGITS]}"
        return load_artifact(path) if path.exists() else None

    def load(self, name: str) -> Artifact:
        """Open an artifact by its folder's name; any unambiguous beginning will do.

        Raises:
            UnknownNameError: none or several begin so.
            ArtifactError: the folder is damaged.
        """
        names = [path.name for path in self.artifacts.glob("[!.]*") if path.name.startswith(name)]
        if len(names) != 1 and name not in names:
            found = "several: " + ", ".join(sorted(names)) if names else "none"
            raise UnknownNameError(
                f"{name}: no such artifact in {self.artifacts} (found {found}); see `sanbai model list`"
            )
        return load_artifact(self.artifacts / (name if name in names else names[0]))

    def sources(self, artifact: Artifact) -> dict[str, Artifact]:
        """Return an artifact and all that it was made from, by name; what has been deleted since is left out."""
        found: dict[str, Artifact] = {}
        waiting = [artifact]
        while waiting:
            made = waiting.pop()
            if made.name not in found:
                found[made.name] = made
                parents = (self.artifacts / str(name) for name in made.manifest["parents"].values())
                waiting += [load_artifact(path) for path in parents if path.exists()]
        return found

    def list(self, kind: str = "") -> list[Artifact]:
        """Return the finished artifacts, oldest first; only those of `kind` where one is named."""
        found = [load_artifact(path.parent) for path in self.artifacts.glob(f"[!.]*/{MANIFEST}")]
        chosen = [artifact for artifact in found if not kind or artifact.kind == kind]
        return sorted(chosen, key=lambda artifact: (str(artifact.manifest.get("finished", "")), artifact.name))
