"""Files that are whole or absent: written beside their place, forced to disk, renamed.

Also JSON Lines in and out, with the line number in every complaint.
"""

from __future__ import annotations

import contextlib
import errno
import gzip
import hashlib
import io
import json
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Self, cast

from sanbai.foundation.errors import DataError, ResourceError


@contextlib.contextmanager
def explain_disk_errors(path: Path) -> Iterator[None]:
    """Turn a full disk, a quota or a missing permission into one clear line about `path`.

    Raises:
        ResourceError: in the place of the system's error.
    """
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise ResourceError(
                f"{path}: no space left on the disk; free some and run the same command again"
            ) from error
        if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
            raise ResourceError(f"{path}: may not be written ({error.strerror}); choose another --workspace") from error
        raise


def sync_folder(folder: Path) -> None:
    """Force a folder's own entries (names, renames) to disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file(path: Path) -> None:
    """Force a file's content to disk."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


@contextlib.contextmanager
def open_atomic(path: Path) -> Iterator[IO[bytes]]:
    """Open a file to be written so that a reader sees the old content or the new, never a part.

    Raises:
        ResourceError: no space or no permission.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with explain_disk_errors(path):
        try:
            with partial.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


def write_atomic(path: Path, content: bytes | str) -> None:
    """Write a file whole or not at all.

    Raises:
        ResourceError: no space or no permission.
    """
    with open_atomic(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def canonical_json(value: object) -> str:
    """Return JSON with sorted keys and no spaces: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def write_json_atomic(path: Path, value: object) -> None:
    """Write indented JSON atomically."""
    write_atomic(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        DataError: absent, not readable, not UTF-8, or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (PermissionError, IsADirectoryError, NotADirectoryError) as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"{path}: not JSON: {error}") from None


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's content in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line number from 1, line without its end) of a text file, `.gz` and `.zst` unpacked.

    Raises:
        DataError: absent, not readable, not UTF-8, or a damaged archive.
    """
    try:
        with _open_bytes(path) as file:
            for number, raw in enumerate(file, start=1):
                try:
                    yield number, raw.decode("utf-8").rstrip("\r\n")
                except UnicodeDecodeError as error:
                    raise DataError(
                        f"{path}:{number}: byte {error.start} of the line is not UTF-8; convert the file to UTF-8"
                    ) from None
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (PermissionError, IsADirectoryError, NotADirectoryError) as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path}: damaged gzip file: {error}") from None


def read_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line number from 1, object) of a JSON Lines file, blank lines skipped.

    Raises:
        DataError: the file cannot be read, or a line is no JSON object; named by its number.
    """
    for number, line in read_lines(path):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{path}:{number}: not JSON: {error.msg} at column {error.colno}") from None
        if not isinstance(row, dict):
            raise DataError(f"{path}:{number}: found {type(row).__name__}, wanted a JSON object a line")
        yield number, row


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the objects of a JSON Lines file, as `read_rows` without the numbers."""
    for _, row in read_rows(path):
        yield row


def _open_bytes(path: Path) -> IO[bytes]:
    if path.suffix == ".gz":
        return cast("IO[bytes]", gzip.open(path, "rb"))
    if path.suffix == ".zst":
        try:
            import zstandard  # noqa: PLC0415 - an extra, needed here alone
        except ImportError:
            raise DataError(f"{path}: zstd needs the package zstandard; pip install 'sanbai[zstandard]'") from None
        return io.BufferedReader(zstandard.ZstdDecompressor().stream_reader(path.open("rb"), closefd=True))
    return path.open("rb")


class JsonlWriter:
    """Writes JSON Lines, packed when the name ends in `.gz`; equal rows give equal bytes.

    A context manager. The file is not atomic by itself: stages write into a folder that becomes visible whole.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._raw = path.open("wb")
        self._file = cast(
            "IO[bytes]",
            gzip.GzipFile(filename="", fileobj=self._raw, mode="wb", compresslevel=5, mtime=0)
            if path.suffix == ".gz"
            else self._raw,
        )

    def write(self, row: object) -> None:
        """Append one row."""
        self._file.write(canonical_json(row).encode() + b"\n")

    def close(self) -> None:
        """Flush and close."""
        self._file.close()
        self._raw.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
