"""Asks the service over HTTPS, whatever certificate it shows: a device's first one is signed by nobody but itself."""

from __future__ import annotations

import http.client
import json
import ssl
from dataclasses import dataclass

from scripts.lib.ports import LOOPBACK

LIMIT = 5.0  # s for a connection, and for each piece of an answer


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes


def any_certificate() -> ssl.SSLContext:
    """A client's settings that prove nothing about who answers."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def ask(port: int, path: str) -> Answer:
    """What the service behind a port of this machine answers to a GET."""
    connection = http.client.HTTPSConnection(LOOPBACK, port, timeout=LIMIT, context=any_certificate())
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return Answer(response.status, response.read())
    finally:
        connection.close()


def is_healthy(port: int) -> bool:
    try:
        answer = ask(port, "/health")
        return answer.status == 200 and json.loads(answer.body) == {"status": "ok"}
    except (OSError, http.client.HTTPException, ValueError):
        return False


def can_be_claimed(port: int) -> bool:
    """Whether the device waits for its first administrator, and has shown the code for that."""
    try:
        answer = ask(port, "/api/public/claim")
        return answer.status == 200 and json.loads(answer.body)["open"] is True
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
        return False
