"""What the tests of this suite share: the target, requests, and waiting within bounds."""

from __future__ import annotations

import contextlib
import http.client
import json
import shlex
import socket
import ssl
import subprocess
import unittest
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from scripts.lib.https import any_certificate
from scripts.lib.ports import LOOPBACK
from scripts.lib.steps import Failure
from scripts.lib.target import FEATURES, Target
from tests.waiting import PATIENCE, until


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


def needs(*features: str) -> Callable[[Any], Any]:
    """Marks a test, or a class of tests, that a target without these features skips."""
    assert set(features) <= FEATURES.keys(), features

    def mark(marked: Any) -> Any:
        marked.features = (*getattr(marked, "features", ()), *features)
        return marked

    return mark


class Case(unittest.TestCase):
    target: ClassVar[Target]
    features: ClassVar[tuple[str, ...]] = ()

    def setUp(self) -> None:
        if not hasattr(self, "target"):
            raise Failure("these tests need a running service: start them by scripts/run … --check")
        method = getattr(self, self._testMethodName)
        for feature in (*self.features, *getattr(method, "features", ())):
            if feature not in self.target.features:
                self.skipTest(f"{self.target.name} lacks {feature}: {FEATURES[feature]}")

    # Over the network.

    def connect_in_clear(self) -> socket.socket:
        stream = socket.create_connection((LOOPBACK, self.target.clear_port), PATIENCE)
        self.addCleanup(stream.close)
        return stream

    def connect(self, context: ssl.SSLContext | None = None, name: str | None = None) -> ssl.SSLSocket:
        """Over TLS, whatever certificate is shown unless `context` says otherwise."""
        stream = socket.create_connection((LOOPBACK, self.target.port), PATIENCE)
        self.addCleanup(stream.close)
        secured = (context or any_certificate()).wrap_socket(stream, server_hostname=name)
        self.addCleanup(secured.close)
        return secured

    def ask(self, path: str, method: str = "GET", body: bytes | None = None, **headers: str) -> Answer:
        """One request on a connection of its own. Header names are written with _ for -."""
        port, context = self.target.port, any_certificate()
        return exchange(
            http.client.HTTPSConnection(LOOPBACK, port, timeout=PATIENCE, context=context), method, path, body, headers
        )

    def ask_in_clear(self, path: str, method: str = "GET", body: bytes | None = None, **headers: str) -> Answer:
        connection = http.client.HTTPConnection(LOOPBACK, self.target.clear_port, timeout=PATIENCE)
        return exchange(connection, method, path, body, headers)

    def raw(self, request: bytes, in_clear: bool = False) -> list[Answer]:
        """What the service answers to these bytes before it closes the connection."""
        with self.connect_in_clear() if in_clear else self.connect() as stream:
            # It may have heard enough before all is sent.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError, ssl.SSLError):
                stream.sendall(request)
            return list(answers(stream))

    def assert_problem(self, answer: Answer, status: int) -> None:
        """RFC 9457."""
        self.assertEqual(answer.status, status, answer.body)
        self.assertEqual(answer.headers.get("content-type"), "application/problem+json")
        self.assertEqual(answer.json()["status"], status)
        self.assertTrue(answer.json()["detail"])

    def is_healthy(self) -> bool:
        try:
            return self.ask("/health").status == 200
        except (OSError, http.client.HTTPException):
            return False

    # Beside the service.

    def run_there(self, command: str) -> subprocess.CompletedProcess[str]:
        assert self.target.shell
        return self.target.shell(command)

    def say_there(self, command: str) -> str:
        """The output of a command that must succeed."""
        done = self.run_there(command)
        self.assertEqual(done.returncode, 0, f"{command}: {done.stdout}{done.stderr}")
        return done.stdout.strip()

    def command(self, words: str) -> str:
        """A line that calls the service's own command with the target's configuration."""
        name, *rest = words.split(" ", 1)
        return " ".join((self.target.command, name, "--config", shlex.quote(self.target.config), *rest))

    def pid(self) -> int:
        return int(json.loads(self.say_there(f"cat {self.target.runtime_dir}/endpoints.json"))["pid"])

    def has_ended(self, pid: int) -> bool:
        # A zombie still has its directory, but no command line.
        return not self.run_there(f"cat /proc/{pid}/cmdline 2>/dev/null").stdout

    until = staticmethod(until)


def exchange(
    connection: http.client.HTTPConnection, method: str, path: str, body: bytes | None, headers: Mapping[str, str]
) -> Answer:
    with contextlib.closing(connection):
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, fields)
        return received(connection.getresponse())


def received(response: http.client.HTTPResponse) -> Answer:
    headers = {name.lower(): value for name, value in response.getheaders()}
    return Answer(response.status, headers, response.read())


def answers(stream: socket.socket) -> Iterator[Answer]:
    """Whole answers up to the end of the connection; one that breaks off is an error."""
    file = stream.makefile("rb")
    while True:
        try:
            if not file.peek(1):
                return
        except ConnectionResetError:
            return
        response = http.client.HTTPResponse(_Stream(file))  # type: ignore[arg-type]
        response.begin()
        yield received(response)


class _Stream:
    """HTTPResponse reads ahead in a file of its own; answers that follow one another need one file for all."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def makefile(self, _mode: str) -> Any:
        return _Unclosed(self._file)


class _Unclosed:
    def __init__(self, file: Any) -> None:
        self._file = file

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def close(self) -> None:
        pass
