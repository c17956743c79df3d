"""The log on the target: another program's output, what is read back, and what outlives a crash."""

from __future__ import annotations

import json
import shlex
import uuid
from typing import Any

from tests.blackbox.case import Case, needs


@needs("shell")
class Log(Case):
    def logs(self, options: str) -> list[dict[str, Any]]:
        said = self.say_there(self.command(f"logs --json {options}"))
        return [json.loads(line) for line in said.splitlines()]

    def say(self, line: str) -> None:
        """As a program whose output goes into the log."""
        self.say_there(self.command(f"logpipe --tag probe -- printf '%s\\n' {shlex.quote(line)}"))

    def wait_for(self, word: str, options: str) -> dict[str, Any]:
        found: list[dict[str, Any]] = []

        def seen() -> bool:
            found[:] = [entry for entry in self.logs(options) if word in entry["message"]]
            return bool(found)

        self.until(seen, f"{word} in edgeweb logs {options}")
        return found[0]

    def metric(self, name: str) -> int:
        for line in self.ask("/metrics").body.decode().splitlines():
            if line.startswith(f"{name} "):
                return int(line.split(" ")[1])
        raise AssertionError(f"{name} is not among the metrics")

    def test_another_programs_output_is_in_memory_and_in_the_journal(self) -> None:
        word = uuid.uuid4().hex
        self.say(f"[ERR] the pump stopped {word}")
        entry = self.wait_for(word, "--target probe")
        self.assertEqual((entry["severity"], entry["target"]), ("error", "probe"))
        self.assertEqual(entry["message"], f"the pump stopped {word}")
        self.assertEqual(self.metric("edgeweb_log_journal_up"), 1)
        self.wait_for(word, "--boot 0 --severity error")

    def test_its_own_records_can_be_read(self) -> None:
        own = [entry["message"] for entry in self.logs("--target edgeweb --severity info --limit 1000")]
        self.assertTrue(own, "a service that was started has said so")
        self.assertEqual(self.ask("/api/user/logs").status, 401)

    @needs("start", "config")
    def test_an_error_outlives_the_kill_of_the_service(self) -> None:
        assert self.target.start
        word = uuid.uuid4().hex
        self.say(f"[CRIT] the pump burns {word}")
        self.wait_for(word, "--boot 0")
        pid = self.pid()
        self.say_there(f"kill -KILL {pid}")
        self.until(lambda: self.has_ended(pid), "the end after SIGKILL")
        if not self.is_healthy():
            self.target.start()
        self.until(self.is_healthy, "the service is there again")
        self.assertEqual(self.wait_for(word, "--boot 0")["severity"], "critical")
