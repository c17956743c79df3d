"""Writes cpio archives in the "newc" form that the kernel unpacks, without being root."""

from __future__ import annotations

import stat
from pathlib import Path, PurePosixPath

ALIGNMENT = 4


class Archive:
    """Files, directories, links, device files: owned by root unless said otherwise, no dates, same in, same out."""

    def __init__(self) -> None:
        self._chunks: list[bytes] = []
        self._inode = 0
        self._directories: set[PurePosixPath] = {PurePosixPath(".")}

    def directory(self, path: str, mode: int = 0o755, owner: int = 0) -> None:
        self._parents(path)
        self._directories.add(PurePosixPath(path))
        self._entry(path, stat.S_IFDIR | mode, owner=owner)

    def file(self, path: str, data: bytes, mode: int = 0o644) -> None:
        self._parents(path)
        self._entry(path, stat.S_IFREG | mode, data)

    def copy(self, path: str, source: Path, mode: int | None = None) -> None:
        """A file's content; its mode is its own (as git keeps it: executable or not) unless given."""
        if mode is None:
            mode = 0o755 if source.stat().st_mode & 0o100 else 0o644
        self.file(path, source.read_bytes(), mode)

    def link(self, path: str, target: str) -> None:
        self._parents(path)
        self._entry(path, stat.S_IFLNK | 0o777, target.encode())

    def character_device(self, path: str, major: int, minor: int, mode: int) -> None:
        self._parents(path)
        self._entry(path, stat.S_IFCHR | mode, device=(major, minor))

    def bytes(self) -> bytes:
        end = Archive()
        end._entry("TRAILER!!!", 0)
        return b"".join(self._chunks + end._chunks)

    def _parents(self, path: str) -> None:
        parent = PurePosixPath(path).parent
        if parent not in self._directories:
            self.directory(str(parent))

    def _entry(self, path: str, mode: int, data: bytes = b"", owner: int = 0, device: tuple[int, int] = (0, 0)) -> None:
        self._inode += 1
        name = path.encode() + b"\0"
        links = 2 if stat.S_ISDIR(mode) else 1
        fields = (self._inode, mode, owner, owner, links, 0, len(data), 0, 0, *device, len(name), 0)
        header = b"070701" + b"".join(b"%08X" % field for field in fields)
        self._chunks.append(_padded(header + name) + _padded(data))


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % ALIGNMENT)
