"""Disks with an ext4 file system, made without being root."""

from __future__ import annotations

from pathlib import Path

from scripts.lib.steps import capture


def make(path: Path, size: int, label: str, content: Path | None = None) -> None:
    """A disk of so many bytes, whole or not at all. With what is in `content`, all of which belongs to root there."""
    new = path.with_name(f".{path.name}.new")
    try:
        with new.open("wb") as file:
            file.truncate(size)
        command = ["/sbin/mkfs.ext4", "-q", "-F", "-L", label, "-m", "0"]
        # fakeroot: an ordinary user's files become root's.
        capture(["fakeroot", *command, "-d", content, new] if content else [*command, new])
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)
