# SPDX-License-Identifier: MIT
"""The init script under BusyBox, in a root and a process space of its own.

The ARM machine runs it with the real service; here a stand-in misbehaves on
request, so that the script's bad days are seen as well.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
import unittest
from pathlib import Path

HERE = Path(__file__).resolve().parent
SCRIPT = HERE.parents[1] / "meta-edgeweb" / "recipes-edgeweb" / "edgeweb" / "files" / "edgeweb.init"
USER, GROUP = 990, 991
# Shell functions for the scenarios: `x ARGUMENT` runs the script and prints its exit status.
PRELUDE = """
mount -t proc proc /proc || exit 99
x() { /etc/init.d/edgeweb "$@" 2>&1; echo "$* -> $?"; }
"""


def tool(name: str, package: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise AssertionError(f"{name} is not on the PATH; install the Debian package {package} and run this again")
    return path


class InitScriptTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        cls.busybox = tool("busybox", "busybox-static")
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.program = Path(folder.name) / "edgeweb"
        command = [tool("cc", "gcc"), "-static", "-o", str(cls.program), str(HERE / "fake_edgeweb.c")]
        subprocess.run(command, check=True, timeout=120)

    def setUp(self) -> None:
        self.assertEqual(os.geteuid(), 0, "chroot and a process space of its own need root; run this as root")
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = Path(folder.name)
        self.root.chmod(0o755)
        for name in ("bin", "usr/bin", "etc/init.d", "etc/default", "dev", "proc", "run", "var/lib", "behave"):
            (self.root / name).mkdir(parents=True)
        shutil.copy(self.busybox, self.root / "bin" / "busybox")
        applets = "cat chmod chown cut head id kill ls mkdir mount mv rm sh sleep start-stop-daemon stat touch tr"
        for applet in applets.split():
            (self.root / "bin" / applet).symlink_to("busybox")
        shutil.copy(self.program, self.root / "usr" / "bin" / "edgeweb")
        shutil.copy(SCRIPT, self.root / "etc" / "init.d" / "edgeweb")
        (self.root / "etc" / "default" / "edgeweb").write_text("START_TIMEOUT=2\nSTOP_TIMEOUT=1\n")
        (self.root / "etc" / "passwd").write_text(f"root:x:0:0::/:/bin/sh\nedgeweb:x:{USER}:{GROUP}::/:/bin/false\n")
        (self.root / "etc" / "group").write_text(f"root:x:0:\nedgeweb:x:{GROUP}:\n")
        null = self.root / "dev" / "null"
        null.touch()
        null.chmod(0o666)

    def behave(self, how: str) -> None:
        (self.root / "behave" / how).touch()

    def play(self, scenario: str) -> str:
        """Runs the scenario; when its shell ends, the kernel ends all that it started."""
        command = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "chroot", str(self.root), "/bin/sh", "-c"]
        process = subprocess.Popen(
            [*command, PRELUDE + scenario],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            output, _ = process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        return output

    def check(self, scenario: str, *expected: str) -> None:
        """Every expected pattern is found, one after the other."""
        output = self.play(scenario)
        position = 0
        for pattern in expected:
            found = re.compile(pattern, re.MULTILINE).search(output, position)
            self.assertIsNotNone(found, f"{pattern!r} is not (in this order) in:\n{output}")
            assert found is not None
            position = found.end()

    def test_a_good_day(self) -> None:
        self.check(
            "x start; x start; x status; cat /run/edgeweb/who; echo; x reload; sleep 0.3; ls /run/edgeweb;"
            " x restart; x status; x stop; x stop; x status; ls /run",
            r"^edgeweb: started \(pid \d+\)\nstart -> 0$",
            r"^edgeweb: already running .*\nstart -> 0$",
            r"^edgeweb: running \(pid \d+\), health ok\nstatus -> 0$",
            rf"^{USER}:{GROUP}$",
            r"^reload -> 0$",
            r"^reloaded$",
            r"^edgeweb: stopped\nedgeweb: started .*\nrestart -> 0$",
            r"^status -> 0$",
            r"^edgeweb: stopped\nstop -> 0$",
            r"^edgeweb: not running\nstop -> 0$",
            r"^edgeweb: not running\nstatus -> 3\nedgeweb\n\Z",
        )

    def test_directories(self) -> None:
        self.check(
            "x start; stat -c '%n %a %u:%g' /run/edgeweb /var/lib/edgeweb /run/edgeweb.pid",
            rf"^/run/edgeweb 755 {USER}:{GROUP}$",
            rf"^/var/lib/edgeweb 750 {USER}:{GROUP}$",
            r"^/run/edgeweb.pid 644 0:0$",
        )

    def test_usage(self) -> None:
        self.check("x; x --help; x strat", r"^Usage: .*\n -> 2$", r"^--help -> 0$", r"^strat -> 2$")

    def test_bad_configuration_prevents_start(self) -> None:
        self.behave("bad-config")
        self.check("x start; x status", r"http\.port: not a number$", r"^start -> 6$", r"^status -> 3$")

    def test_bad_configuration_takes_nothing_down(self) -> None:
        self.check(
            "x start; touch /behave/bad-config; x reload; x restart; ls /run/edgeweb; x status",
            r"http\.port: not a number$",
            r"^reload -> 6$",
            r"^restart -> 6\nhealthy\nwho$",
            r"^status -> 0$",
        )

    def test_dies_at_start(self) -> None:
        self.behave("dies")
        self.check("x start; x status", r"^edgeweb: stopped right after its start; .*\nstart -> 1$", r"^status -> 3$")

    def test_never_healthy(self) -> None:
        self.behave("slow")
        self.check(
            "x start; x status; rm /behave/slow; x restart",
            r"^edgeweb: started, but its health did not answer within 2 s; .*\nstart -> 1$",
            r"^status -> 4$",
            r"^restart -> 0$",
        )

    def test_does_not_drain(self) -> None:
        self.behave("deaf")
        self.check(
            "x start; x stop; x status",
            r"^edgeweb: did not drain within 1 s, killing pid \d+$",
            r"^stop -> 0$",
            r"-> 3$",
        )

    def test_killed(self) -> None:
        self.check(
            "x start; kill -KILL $(cat /run/edgeweb.pid); sleep 0.3; x status; x start; x status",
            r"^edgeweb: dead, but /run/edgeweb.pid exists\nstatus -> 1$",
            r"^start -> 0$",
            r"^status -> 0$",
        )

    def test_somebody_elses_pid(self) -> None:
        # 1 is this scenario's shell: were it signalled, the lines after it would be missing.
        self.check(
            "echo 1 > /run/edgeweb.pid; x status; x stop; echo junk > /run/edgeweb.pid; x status; x reload; x start",
            r"^status -> 1$",
            r"^stop -> 0$",
            r"^status -> 1$",
            r"^reload -> 7$",
            r"^start -> 0$",
        )

    def test_program_replaced_while_running(self) -> None:
        self.check(
            "x start; rm /usr/bin/edgeweb; x stop; x start; x reload",
            r"^edgeweb: stopped\nstop -> 0$",
            r"^edgeweb: /usr/bin/edgeweb is missing .*\nstart -> 5$",
            r"^reload -> 5$",
        )

    def test_no_user(self) -> None:
        (self.root / "etc" / "passwd").write_text("root:x:0:0::/:/bin/sh\n")
        self.check("x start", r"^edgeweb: there is no user edgeweb .*\nstart -> 5$")

    def test_not_root(self) -> None:
        (self.root / "bin" / "su").symlink_to("busybox")
        self.check(
            "su -s /bin/sh edgeweb -c '/etc/init.d/edgeweb stop' 2>&1; echo stop -\\> $?; x start;"
            " su -s /bin/sh edgeweb -c '/etc/init.d/edgeweb status'; echo status -\\> $?",
            r"^edgeweb: only root may stop .*\nstop -> 4$",
            r"^start -> 0$",
            r"^status -> 0$",
        )


if __name__ == "__main__":
    unittest.main()
