"""Files that are whole or not there, and never somewhere else: symbolic links are refused."""

from __future__ import annotations

import os
import stat
from pathlib import Path


class RegistryError(Exception):
    """The registry cannot do it; the message says what is wrong and where."""


def real(directory: Path) -> bool:
    """A directory that is not a symbolic link."""
    try:
        return stat.S_ISDIR(os.lstat(directory).st_mode)
    except FileNotFoundError:
        return False


def read_text(path: Path, limit: int) -> str:
    """A small regular file's text; empty when there is none. Symbolic links are refused."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise RegistryError(f"{path} cannot be read: {error.strerror}") from None
    with os.fdopen(descriptor, "rb") as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise RegistryError(f"{path} is larger than {limit} bytes")
    return content.decode("utf-8", errors="replace")


def write(path: Path, text: str) -> None:
    """The file with this text, on disk when this returns."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags, 0o644), "wb") as file:
        file.write(text.encode())
        file.flush()
        os.fsync(file.fileno())


def flush(path: Path) -> None:
    """A file or directory, forced to disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def flush_tree(directory: Path) -> None:
    """A directory with all that is in it, forced to disk. RegistryError when it holds a symbolic link."""
    for item in sorted(directory.rglob("*")):
        if item.is_symlink():
            raise RegistryError(f"{item} is a symbolic link")
        flush(item)
    flush(directory)
