"""Who may do what: the claim of a new device, log-in, roles, log-out, and what the log says of it."""

from __future__ import annotations

import json
import secrets
from typing import Any

from scripts.lib.addresses import CODE
from tests.blackbox.case import Answer, Case, needs

PASSWORD = "seven blue herons at dusk"


class AuthCase(Case):
    def call(self, method: str, path: str, value: object = None, token: str = "", **headers: str) -> Answer:
        body = None if value is None else json.dumps(value).encode()
        if body is not None:
            headers["content_type"] = "application/json"
        if token:
            headers["authorization"] = f"Bearer {token}"
        return self.ask(path, method, body, **headers)

    def log_in(self, name: str, password: str = PASSWORD) -> str:
        answer = self.call("POST", "/api/public/session", {"username": name, "password": password})
        self.assertEqual(answer.status, 200, answer.body)
        return str(answer.json()["token"])

    def user(self, role: str) -> str:
        """Somebody new, until the end of the test."""
        name = f"probe-{secrets.token_hex(4)}"
        self.say_there(f"echo {PASSWORD} | {self.command(f'user add {name} --role {role}')}")
        self.addCleanup(self.say_there, self.command(f"user remove {name}"))
        return name

    def audit(self, word: str) -> list[dict[str, Any]]:
        said = self.say_there(self.command("logs --json --limit 200 --target edgeweb::audit"))
        return [entry for entry in map(json.loads, said.splitlines()) if word in json.dumps(entry)]


@needs("shell", "start", "console")
class Claim(AuthCase):
    def setUp(self) -> None:
        """Nobody has claimed the device. Those who had come back at the end."""
        super().setUp()
        self.addCleanup(self.restart, "rm -f auth.json*; for f in kept/*; do mv $f .; done; rmdir kept")
        self.restart("mkdir -m 700 kept; for f in auth.json*; do mv $f kept/; done")

    def restart(self, change: str) -> None:
        """Changes the state while the service is down."""
        assert self.target.start
        self.before = set(self.codes())
        if self.is_healthy():
            pid = self.pid()
            self.say_there(self.how_to_stop(pid))
            self.until(lambda: self.has_ended(pid), "the end of the service")
        self.run_there(f"cd {self.target.state_dir} && {{ {change}; }}")
        self.target.start()
        self.until(self.is_healthy, "health after the start")

    def how_to_stop(self, pid: int) -> str:
        if "systemd" in self.target.features:
            return "systemctl stop edgeweb"
        return "/etc/init.d/edgeweb stop" if "sysvinit" in self.target.features else f"kill -TERM {pid}"

    def codes(self) -> list[str]:
        assert self.target.said
        return CODE.findall(self.target.said())

    def code(self) -> str:
        self.until(lambda: set(self.codes()) - self.before, "a claim code on the console")
        return (set(self.codes()) - self.before).pop()

    def claim(self, code: str, password: str = PASSWORD) -> Answer:
        value = {"code": code, "username": "owner", "password": password}
        return self.call("POST", "/api/public/claim", value)

    def test_the_first_who_has_the_code_is_the_administrator(self) -> None:
        self.assertEqual(self.call("GET", "/api/public/claim").json(), {"open": True})
        code = self.code()
        # Nothing else is possible.
        self.assert_problem(self.call("POST", "/api/public/session", {"username": "admin", "password": "admin"}), 401)
        self.assert_problem(self.claim("0000-0000-0000"), 403)
        self.assert_problem(self.claim(code, "short"), 400)
        self.assert_problem(self.ask_in_clear("/api/public/claim", "POST", b"{}"), 403)
        claimed = self.claim(code)
        self.assertEqual((claimed.status, claimed.json()["role"]), (201, "admin"), claimed.body)
        self.assertEqual(self.call("GET", "/api/admin/users", token=claimed.json()["token"]).status, 200)
        self.assertEqual(self.call("GET", "/api/admin/users", token=self.log_in("owner")).status, 200)
        # Once.
        self.assert_problem(self.claim(code), 409)
        self.assertEqual(self.call("GET", "/api/public/claim").json(), {"open": False})
        self.until(lambda: [e for e in self.audit("claim") if "owner" in json.dumps(e)], "a record of the claim")


@needs("shell")
class Users(AuthCase):
    def test_log_in_and_log_out(self) -> None:
        name = self.user("user")
        token = self.log_in(name)
        session = self.call("GET", "/api/user/session", token=token)
        self.assertEqual((session.json()["username"], session.json()["role"]), (name, "user"))
        self.assertEqual(self.call("GET", "/api/user/logs", token=token).status, 200)
        self.assert_problem(self.call("GET", "/api/admin/users", token=token), 403)
        self.assertEqual(self.call("DELETE", "/api/user/session", token=token).status, 204)
        self.assert_problem(self.call("GET", "/api/user/session", token=token), 401)
        self.until(lambda: self.audit(name), "records of what somebody did")

    def test_an_administrator(self) -> None:
        token = self.log_in(self.user("admin"))
        users = self.call("GET", "/api/admin/users", token=token)
        self.assertEqual(users.status, 200)
        self.assertNotIn(b"argon2", users.body)
        certificate = self.call("GET", "/api/admin/certificate", token=token).json()
        self.assertEqual(certificate["source"], "own")
        request = self.call("POST", "/api/admin/certificate/request", {}, token)
        self.assertIn(b"BEGIN CERTIFICATE REQUEST", request.body)

    def test_a_wrong_password_and_nobody_are_answered_alike(self) -> None:
        name = self.user("user")
        answers = [
            self.call("POST", "/api/public/session", {"username": who, "password": "x" * 20})
            for who in (name, "nobody-of-that-name")
        ]
        for answer in answers:
            self.assert_problem(answer, 401)
        self.assertEqual(answers[0].body, answers[1].body)

    def test_a_browsers_cookie(self) -> None:
        name = self.user("user")
        value = {"username": name, "password": PASSWORD, "cookie": True}
        answer = self.call("POST", "/api/public/session", value)
        self.assertNotIn("token", answer.json())
        cookie, *attributes = answer.headers["set-cookie"].split("; ")
        self.assertTrue(cookie.startswith("__Host-"), cookie)
        self.assertLessEqual({"Path=/", "Secure", "HttpOnly", "SameSite=Strict"}, set(attributes))
        self.assertEqual(self.ask("/api/user/session", cookie=cookie).status, 200)
        # A page of elsewhere cannot change anything with it.
        self.assert_problem(self.ask("/api/user/session", "DELETE", cookie=cookie), 403)
        own = {"x_requested_with": "page", "sec_fetch_site": "same-origin"}
        self.assert_problem(self.ask("/api/user/session", "DELETE", cookie=cookie, sec_fetch_site="cross-site"), 403)
        self.assertEqual(self.ask("/api/user/session", "DELETE", cookie=cookie, **own).status, 204)
        self.assertEqual(self.ask("/api/user/session", cookie=cookie).status, 401)

    def test_tokens_that_are_none(self) -> None:
        for token in ("x", "a.b.c", "eyJhbGciOiJub25lIn0.e30.", "."):
            self.assert_problem(self.call("GET", "/api/user/session", token=token), 401)
        # Nor is one looked for in the address.
        token = self.log_in(self.user("user"))
        self.assertEqual(self.call("GET", f"/api/user/session?token={token}&access_token={token}").status, 401)

    def test_the_file_is_for_the_service_alone(self) -> None:
        self.user("user")
        owner = self.say_there(f"stat -c %U {self.target.state_dir}/.")
        self.assertEqual(self.say_there(f"stat -c '%U %a' {self.target.state_dir}/auth.json"), f"{owner} 600")
        # The password itself is nowhere.
        self.assertNotEqual(self.run_there(f"grep -r '{PASSWORD}' {self.target.state_dir}").returncode, 0)
