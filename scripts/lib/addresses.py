"""What a person is told of a service that has started: where it answers, and the code that makes it theirs."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

from scripts.lib import https

CODE = re.compile(r"claim code: ((?:[0-9A-Z]{4}-){2}[0-9A-Z]{4})")
CODE_LIMIT = 10.0  # s until the code is shown; the service answers a moment before


def claim_code(port: int, said: Callable[[], str]) -> str | None:
    """The last code among what the service `said`; None when it needs none."""
    if not https.can_be_claimed(port):
        return None
    deadline = time.monotonic() + CODE_LIMIT
    while not (codes := CODE.findall(said())) and time.monotonic() < deadline:
        time.sleep(0.1)
    return codes[-1] if codes else None


def describe(port: int, clear_port: int, code: str | None) -> None:
    print(f"  page     https://localhost:{port}/ (signed by the device itself: a browser asks once, curl wants -k)")
    print(f"  health   https://localhost:{port}/health, or in clear http://localhost:{clear_port}/health")
    if code:
        print(f'  claim    {code} makes the first administrator; see "Who may do what" in README.md')
