"""Python environments below build/, made anew when what is wanted in them has changed."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from scripts.lib.steps import capture, step


def make(directory: Path, wanted: str) -> Path:
    """The environment's python. `wanted` is a file of requirements, as pip reads it."""
    python, requirements = directory / "bin" / "python", directory / "requirements.txt"
    # Written last: an environment that was not finished has none.
    if python.exists() and requirements.exists() and requirements.read_text() == wanted:
        return python
    shutil.rmtree(directory, ignore_errors=True)
    with step(f"installing Python packages in {os.path.relpath(directory)}"):
        capture([sys.executable, "-m", "venv", directory])
        new = directory / ".requirements.new"
        new.write_text(wanted)
        capture([python, "-m", "pip", "install", "--quiet", "-r", new])
    new.rename(requirements)
    return python
