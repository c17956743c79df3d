"""`scripts/run --check`: what somebody outside sees of the service."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable
from typing import Protocol

from scripts.lib.machine import Answer


class Service(Protocol):
    def get(self, path: str) -> Answer: ...


def _health(service: Service) -> str | None:
    answer = service.get("/health")
    if answer.status != 200:
        return f"status {answer.status} instead of 200"
    if json.loads(answer.body) != {"status": "ok"}:
        return f"{answer.body[:80]!r} instead of {{'status': 'ok'}}"
    return None


def _page(service: Service) -> str | None:
    answer = service.get("/")
    if answer.status != 200:
        return f"status {answer.status} instead of 200"
    if answer.content_type != "text/html":
        return f"type {answer.content_type} instead of text/html"
    if b"<!doctype html" not in answer.body[:200].lower():
        return "no HTML document"
    return None


CHECKS: dict[str, Callable[[Service], str | None]] = {"GET /health": _health, "GET /": _page}


def report(service: Service) -> int:
    """Prints a line for each check and returns the exit status."""
    failed = 0
    for name, checked in CHECKS.items():
        try:
            reason = checked(service)
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = str(error) or type(error).__name__
        print(f"{'FAILED' if reason else 'ok'}: {name}{f': {reason}' if reason else ''}", flush=True)
        failed += reason is not None
    return 1 if failed else 0
