"""TLS and the device's identity, the listener in clear, and what stands around every answer."""

from __future__ import annotations

import json
import re
import socket
import ssl
import subprocess
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

from scripts.lib.https import any_certificate
from scripts.lib.ports import LOOPBACK
from tests.blackbox.case import Answer, Case, needs
from tests.waiting import PATIENCE

REQUEST = b"GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
# With every answer (OWASP Secure Headers Project). No other server's value is like it by accident.
HEADERS = {
    "content-security-policy": r"default-src 'self'; .*frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "permissions-policy": r".*camera=\(\).*geolocation=\(\)",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-embedder-policy": "require-corp",
}


def only(version: ssl.TLSVersion) -> ssl.SSLContext:
    """A client that speaks this version alone, however old it is."""
    context = any_certificate()
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = version
    return context


class Tls(Case):
    def test_versions(self) -> None:
        for version, name in ((ssl.TLSVersion.TLSv1_2, "TLSv1.2"), (ssl.TLSVersion.TLSv1_3, "TLSv1.3")):
            with self.connect(only(version)) as stream:
                self.assertEqual(stream.version(), name)
                stream.sendall(REQUEST)
                self.assertTrue(stream.recv(100).startswith(b"HTTP/1.1 200 "))
        for version in (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1):
            # It is the service that refuses, not this client.
            with self.assertRaisesRegex(ssl.SSLError, "ALERT_(PROTOCOL_VERSION|HANDSHAKE_FAILURE)"):
                self.connect(only(version))

    def test_protocols(self) -> None:
        for offered, chosen in ((["h2", "http/1.1"], "h2"), (["http/1.1"], "http/1.1")):
            context = any_certificate()
            context.set_alpn_protocols(offered)
            self.assertEqual(self.connect(context).selected_alpn_protocol(), chosen)

    def test_what_is_no_tls_costs_nobody_anything(self) -> None:
        with socket.create_connection((LOOPBACK, self.target.port), PATIENCE) as stream:
            stream.sendall(REQUEST)
            self.assertNotIn(b"HTTP/1.1 200", stream.recv(1000))
        self.assertTrue(self.is_healthy())


class Identity(Case):
    """The certificate that the device made for itself, unless somebody gave it another one."""

    def certificate(self) -> str:
        der = self.connect().getpeercert(binary_form=True)
        assert der
        return ssl.DER_cert_to_PEM_cert(der)

    def shown(self, *options: str) -> str:
        argv = ["openssl", "x509", "-noout", *options]
        return subprocess.run(argv, input=self.certificate(), capture_output=True, text=True, check=True).stdout

    def test_is_for_a_server_and_for_no_more(self) -> None:
        text = self.shown("-text")
        self.assertIn("TLS Web Server Authentication", text)
        self.assertNotIn("TLS Web Client Authentication", text)
        self.assertNotIn("CA:TRUE", text)
        self.assertIn("Subject Alternative Name", text)

    @needs("shell")
    def test_names_the_device(self) -> None:
        names = set(re.findall(r"(?:DNS|IP Address):([^,\s]+)", self.shown("-ext", "subjectAltName")))
        host = self.say_there("cat /proc/sys/kernel/hostname").lower()
        self.assertIn(host, names)
        # The addresses that the kernel takes for its own, save the loopback's.
        tree = self.say_there("cat /proc/net/fib_trie")
        own = re.findall(r"\|-- (\S+)\n\s+/32 host LOCAL", tree)
        for address in {address for address in own if not address.startswith("127.")}:
            self.assertIn(address, names)

    @needs("shell")
    def test_a_client_that_has_seen_it_once_knows_it_again(self) -> None:
        """Pinned: nothing else is trusted, and the name is checked."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "device.crt"
            path.write_text(self.certificate())
            pinned = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            pinned.load_verify_locations(path)
            host = self.say_there("cat /proc/sys/kernel/hostname").lower()
            self.assertEqual(self.connect(pinned, host).version(), "TLSv1.3")
            with self.assertRaises(ssl.SSLCertVerificationError):
                self.connect(pinned, "device.elsewhere")
        with self.assertRaises(ssl.SSLCertVerificationError):
            self.connect(ssl.create_default_context(), "localhost")

    @needs("shell", "start")
    def test_stays_the_same_over_a_restart(self) -> None:
        assert self.target.start
        before, pid = self.certificate(), self.pid()
        self.say_there(f"kill -TERM {pid}")
        self.until(lambda: self.has_ended(pid), "the end after SIGTERM")
        if not self.is_healthy():
            self.target.start()
        self.until(self.is_healthy, "the service is there again")
        self.assertEqual(self.certificate(), before)

    @needs("shell")
    def test_the_key_is_for_the_service_alone(self) -> None:
        owner = self.say_there(f"stat -c %U {self.target.state_dir}/.")
        for path, mode in (("", "700"), ("/tls", "700"), ("/tls/device.key", "600")):
            self.assertEqual(self.say_there(f"stat -c '%U %a' {self.target.state_dir}{path}"), f"{owner} {mode}", path)

    @needs("own-user")
    def test_what_is_put_there_for_the_service_is_for_nobody_else(self) -> None:
        self.assertEqual(self.say_there("stat -c '%U:%G %a' /etc/edgeweb/tls"), "root:edgeweb 750")


class InClear(Case):
    def test_health(self) -> None:
        answer = self.ask_in_clear("/health")
        self.assertEqual((answer.status, answer.body), (200, b'{"status":"ok"}'))
        self.assertEqual(self.ask_in_clear("/health/ready").status, 200)

    def test_the_rest_is_led_to_https(self) -> None:
        for path in ("/", "/index.html", "/api/public/about?a=b", "/nowhere", "/api/admin/config", "/metrics"):
            for method in ("GET", "HEAD"):
                answer = self.ask_in_clear(path, method, host="localhost:80")
                self.assertEqual((answer.status, answer.body), (308, b""), path)
                self.assertRegex(answer.headers["location"], rf"^https://localhost:\d+{re.escape(path)}$")

    @needs("shell")
    def test_it_is_led_to_the_port_where_https_is(self) -> None:
        there = json.loads(self.say_there(f"cat {self.target.runtime_dir}/endpoints.json"))["endpoints"]
        (port,) = {endpoint["port"] for endpoint in there if endpoint["scheme"] == "https"}
        location = self.ask_in_clear("/", host="127.0.0.1").headers["location"]
        self.assertEqual(location, f"https://127.0.0.1:{port}/")

    def test_what_was_sent_in_clear_is_not_led_on(self) -> None:
        for method in ("POST", "PUT", "DELETE"):
            self.assert_problem(self.ask_in_clear("/api/public/session", method, b"{}"), 403)

    def test_nobody_is_led_to_a_name_that_is_not_the_devices(self) -> None:
        answer = self.ask_in_clear("/", host="device.elsewhere")
        self.assert_problem(answer, 421)
        self.assertNotIn("location", answer.headers)

    def test_tls_in_clear(self) -> None:
        with self.connect_in_clear() as stream:
            stream.sendall(bytes.fromhex("160301 0005 010000 0100"))
            self.assertNotIn(b" 200 ", stream.recv(1000))
        self.assertTrue(self.is_healthy())


class Names(Case):
    """A page of elsewhere that lets its own name point to the device is told by that name (DNS rebinding)."""

    def test_addresses_and_own_names(self) -> None:
        for host in ("localhost", "LOCALHOST:1", "127.0.0.1", "192.0.2.1:8443", "[::1]", "[2001:db8::1]:8443"):
            self.assertEqual(self.ask("/health", host=host).status, 200, host)

    @needs("shell")
    def test_the_host_name(self) -> None:
        host = self.say_there("cat /proc/sys/kernel/hostname")
        for name in (host, host.upper(), f"{host}:8443", f"{host}.local"):
            self.assertEqual(self.ask("/", host=name).status, 200, name)

    def test_other_names(self) -> None:
        for host in ("device.elsewhere", "localhost.elsewhere", "127.0.0.1.elsewhere", "elsewhere:8443"):
            for path in ("/", "/health", "/api/public/about", "/api/user/session"):
                self.assert_problem(self.ask(path, host=host), 421)

    def test_what_is_no_name(self) -> None:
        for host in ("", "a b", "localhost:port", "user@localhost", "[::1"):
            self.assertEqual(self.ask("/health", host=host).status, 400, host)


class Headers(Case):
    def answers(self) -> Iterator[tuple[str, Answer]]:
        """Of every kind that there is."""
        for path in ("/", "/style.css", "/health", "/metrics", "/nowhere", "/api/user/x", "/api/admin/x"):
            yield path, self.ask(path)
        yield "304", self.ask("/", if_none_match=self.ask("/").headers["etag"])
        yield "405", self.ask("/health", "DELETE")
        yield "421", self.ask("/", host="device.elsewhere")
        for request in (b"NO SUCH THING\r\n\r\n", b"GET / HTTP/1.1\r\nhost: a\r\nx: " + b"x" * 40_000 + b"\r\n\r\n"):
            (answer,) = self.raw(request)
            yield str(answer.status), answer

    def assert_all(self, headers: Mapping[str, str], what: str) -> None:
        for name, pattern in HEADERS.items():
            self.assertRegex(headers.get(name, ""), rf"^{pattern}", f"{name} of {what}")

    def test_with_every_answer(self) -> None:
        for what, answer in self.answers():
            with self.subTest(what):
                self.assert_all(answer.headers, what)
                self.assertNotIn("unsafe", answer.headers["content-security-policy"])
                self.assertRegex(answer.headers["strict-transport-security"], r"^max-age=[1-9]\d{7,}")
                self.assertNotIn("server", answer.headers)
                self.assertNotIn("x-powered-by", answer.headers)

    def test_in_clear(self) -> None:
        for what, answer in (
            ("health", self.ask_in_clear("/health")),
            ("308", self.ask_in_clear("/")),
            ("403", self.ask_in_clear("/", "POST", b"")),
            ("421", self.ask_in_clear("/", host="device.elsewhere")),
        ):
            with self.subTest(what):
                self.assert_all(answer.headers, what)
                # RFC 6797, section 7.2: never in clear.
                self.assertNotIn("strict-transport-security", answer.headers)
                self.assertNotIn("server", answer.headers)
