"""What anybody sees who reaches the service over HTTPS."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import re

from scripts.lib.https import any_certificate
from scripts.lib.ports import LOOPBACK
from tests.blackbox.case import Case, received
from tests.waiting import PATIENCE


class Health(Case):
    def test_health(self) -> None:
        answer = self.ask("/health")
        self.assertEqual((answer.status, answer.body), (200, b'{"status":"ok"}'))
        self.assertEqual(answer.headers["content-type"], "application/json")

    def test_head_of_health(self) -> None:
        answer = self.ask("/health", "HEAD")
        self.assertEqual((answer.status, answer.body), (200, b""))
        self.assertEqual(answer.headers["content-length"], "15")

    def test_ready(self) -> None:
        answer = self.ask("/health/ready")
        self.assertEqual((answer.status, answer.json()["status"]), (200, "ok"))
        self.assertIn({"name": "lifecycle", "status": "pass"}, answer.json()["checks"])
        self.assertEqual(answer.headers["cache-control"], "no-store")

    def test_about(self) -> None:
        about = self.ask("/api/public/about").json()
        self.assertEqual(about["name"], "edgeweb")
        self.assertRegex(about["version"], r"^\d+\.\d+\.\d+")
        self.assertRegex(about["target"], r"^\w+-.*linux")
        first = about["uptime"]
        self.until(lambda: self.ask("/api/public/about").json()["uptime"] > first, "an uptime that grows")


class Pages(Case):
    def test_start_page(self) -> None:
        for path in ("/", "/index.html"):
            answer = self.ask(path)
            self.assertEqual((answer.status, answer.headers["content-type"]), (200, "text/html; charset=utf-8"))
            self.assertIn(b"<!doctype html", answer.body[:200].lower())

    def test_everything_that_the_page_loads_is_there(self) -> None:
        page = self.ask("/").body.decode()
        loaded = re.findall(r'(?:src|href)="/?([^"/:#][^":#]*)"', page)
        self.assertGreater(len(loaded), 1, page)
        for name in loaded:
            self.assertEqual(self.ask(f"/{name}").status, 200, name)

    def test_encodings(self) -> None:
        plain = self.ask("/", accept_encoding="identity")
        zipped = self.ask("/", accept_encoding="gzip")
        brotli = self.ask("/", accept_encoding="gzip, br")
        self.assertNotIn("content-encoding", plain.headers)
        self.assertEqual(zipped.headers["content-encoding"], "gzip")
        self.assertEqual(gzip.decompress(zipped.body), plain.body)
        self.assertEqual(brotli.headers["content-encoding"], "br")
        self.assertLess(len(brotli.body), len(plain.body))
        tags = {answer.headers["etag"] for answer in (plain, zipped, brotli)}
        self.assertEqual(len(tags), 3)
        self.assertEqual(plain.headers["vary"], "accept-encoding")

    def test_what_the_client_has_is_not_sent_again(self) -> None:
        tag = self.ask("/").headers["etag"]
        self.assertRegex(tag, r'^"[0-9a-f]+"$')
        again = self.ask("/", if_none_match=tag)
        self.assertEqual((again.status, again.body, again.headers["etag"]), (304, b"", tag))
        self.assertEqual(self.ask("/", if_none_match='"other"').status, 200)

    def test_nothing_above_the_pages(self) -> None:
        for path in (
            *("/../etc/passwd", "/..%2fetc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/.%2e/etc/passwd"),
            *("//etc/passwd", "/%2fetc/passwd", "/a/../../etc/passwd", "/..%5c..%5cetc/passwd"),
            *("/%252e%252e/etc/passwd", "/index.html%00.txt", "/.hidden", "/%ff"),
        ):
            with self.subTest(path):
                self.assert_problem(self.ask(path), 404)


class Refusals(Case):
    def test_nothing_there(self) -> None:
        for path in ("/nowhere", "/api/public/nowhere", "/api/users"):
            self.assert_problem(self.ask(path), 404)

    def test_wrong_method(self) -> None:
        for method, path in (("DELETE", "/health"), ("POST", "/index.html"), ("PUT", "/api/public/about")):
            answer = self.ask(path, method)
            self.assert_problem(answer, 405)
            self.assertIn("GET", answer.headers["allow"])

    def test_routes_of_users_and_administrators(self) -> None:
        for path in (
            *("/api/user", "/api/user/x", "/api/admin/config", "/api/admin/", "/api/admin/users?a=b"),
            *("/api/%61dmin/config", "/%61pi/user/x", "/api/user%2fx", "/api%2fadmin"),
        ):
            with self.subTest(path):
                answer = self.ask(path)
                self.assert_problem(answer, 401)
                self.assertEqual(answer.headers["www-authenticate"], "Bearer")
                self.assertEqual(self.ask(path, "POST", b"{}").status, 401)

    def test_header_too_large(self) -> None:
        (answer,) = self.raw(b"GET /health HTTP/1.1\r\nhost: localhost\r\nx: " + b"x" * 40_000 + b"\r\n\r\n")
        self.assert_problem(answer, 431)
        self.assertEqual(self.ask("/health", x="x" * 8000).status, 200)

    def test_body_too_large(self) -> None:
        (answer,) = self.raw(b"POST /health HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9999999999\r\n\r\n")
        self.assert_problem(answer, 413)

    def test_requests_that_are_none(self) -> None:
        for request in (
            b"GET / HTTP/1.1\r\n\r\n",
            b"GET / HTTP/1.1\r\nhost: localhost\r\nhost: b\r\n\r\n",
            b"NO SUCH THING\r\n\r\n",
            b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: +5\r\n\r\nhello",
            b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        ):
            with self.subTest(request):
                self.assertEqual([answer.status for answer in self.raw(request)], [400])
        self.assertTrue(self.is_healthy())


class Connections(Case):
    def test_keep_alive(self) -> None:
        port, context = self.target.port, any_certificate()
        connection = http.client.HTTPSConnection(LOOPBACK, port, timeout=PATIENCE, context=context)
        with contextlib.closing(connection):
            for _ in range(5):
                connection.request("GET", "/health")
                self.assertEqual(received(connection.getresponse()).status, 200)
                self.assertIsNotNone(connection.sock, "the service closed the connection")
                own = connection.sock.getsockname()[1]
            self.assertEqual(connection.sock.getsockname()[1], own)

    def test_several_requests_at_once(self) -> None:
        request = b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n"
        last = b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
        self.assertEqual([answer.status for answer in self.raw(request * 5 + last)], [200] * 6)
