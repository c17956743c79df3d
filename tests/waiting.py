"""Waiting within bounds, for the tests outside of the crate."""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE = 30.0  # s that the service, a machine or a busy emulator gets for what it was asked


def until(condition: Callable[[], object], what: str, limit: float = PATIENCE) -> None:
    deadline = time.monotonic() + limit
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {limit:.0f} s: {what}")
        time.sleep(0.2)
