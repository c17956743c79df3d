"""What the tests of the machine and of `scripts/run` share."""

from __future__ import annotations

import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BINARY = ROOT / "build" / "armv7" / "edgeweb"
LONG = 600  # s; nothing here may take longer, save the build


def build_binary() -> None:
    """Nothing to do when it is current."""
    subprocess.run([ROOT / "scripts" / "build-arm"], check=True, timeout=3600)


def machines_in(directory: Path) -> list[int]:
    """The QEMU processes that use files of this directory."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if words[0].endswith(b"qemu-system-arm") and any(str(directory).encode() in word for word in words):
            found.append(int(path.parent.name))
    return found
