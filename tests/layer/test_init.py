# SPDX-License-Identifier: MIT
"""The init script of edgeweb-service.bbclass under BusyBox, in a root and a process space of its own.

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

from scripts.lib import service_files
from tests.layer.support import tool

HERE = Path(__file__).resolve().parent
USER, GROUP = 990, 991
# Shell functions for the scenarios: `x ARGUMENT` runs the script and prints its exit status.
PRELUDE = """
mount -t proc proc /proc || exit 99
x() { /etc/init.d/edgeweb "$@" 2>&1; echo "$* -> $?"; }
"""


class Root(unittest.TestCase):
    """A root with the script in it."""

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
        directories = "bin usr/bin etc/init.d etc/default dev proc run var/lib var/log behave"
        for name in directories.split():
            (self.root / name).mkdir(parents=True)
        shutil.copy(self.busybox, self.root / "bin" / "busybox")
        applets = "cat chmod chown cut date head id kill ls mkdir mount mv rm rmdir sh sleep start-stop-daemon stat"
        for applet in f"{applets} grep readlink touch tr wc".split():
            (self.root / "bin" / applet).symlink_to("busybox")
        shutil.copy(self.program, self.root / "usr" / "bin" / "edgeweb")
        self.write_script()
        (self.root / "etc" / "default" / "edgeweb").write_text("START_TIMEOUT=2\nSTOP_TIMEOUT=1\n")
        (self.root / "etc" / "passwd").write_text(f"root:x:0:0::/:/bin/sh\nedgeweb:x:{USER}:{GROUP}::/:/bin/false\n")
        (self.root / "etc" / "group").write_text(f"root:x:0:\nedgeweb:x:{GROUP}:\n")
        null = self.root / "dev" / "null"
        null.touch()
        null.chmod(0o666)

    def write_script(self, **changed: str) -> None:
        """The script of the edgeweb recipe, or of one that sets the class's variables otherwise."""
        path = self.root / "etc" / "init.d" / "edgeweb"
        path.write_text(service_files.render("service.init.in", service_files.settings(systemd=False, **changed)))
        path.chmod(0o755)

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
            # Longer than the script waits for a lock, so that its own words are seen.
            output, _ = process.communicate(timeout=120)
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


class InitScriptTest(Root):
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
            rf"^/var/lib/edgeweb 700 {USER}:{GROUP}$",
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

    def test_health_that_hangs(self) -> None:
        self.check(
            "x start; touch /behave/mute; x status; grep -l ^/usr/bin/edgeweb /proc/[0-9]*/cmdline | wc -l",
            r"^edgeweb: running \(pid \d+\), but its health does not answer\nstatus -> 4\n1$",
        )

    def test_does_not_drain(self) -> None:
        self.behave("deaf")
        self.check(
            "x start; x stop; x status",
            r"^edgeweb: did not end within 1 s, killing pid \d+$",
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

    def test_read_only_state_directory(self) -> None:
        # A read-only root: the directory is there and cannot be changed. The service runs and forgets.
        self.check(
            "mount -t tmpfs -o ro none /var/lib; x start; x status; x stop",
            r"^edgeweb: /var/lib/edgeweb cannot be written; .*\nedgeweb: started .*\nstart -> 0$",
            r"^status -> 0$",
            r"^stop -> 0$",
        )

    def test_a_service_without_health_check_or_reload(self) -> None:
        self.write_script(CHECK="", HEALTH="", RELOAD="")
        self.behave("slow")
        self.check(
            "x start; x status; x reload; kill -KILL $(cat /run/edgeweb.pid); sleep 0.3; x status; x monitor; x status",
            r"^edgeweb: started \(pid \d+\)\nstart -> 0$",
            r"^edgeweb: running \(pid \d+\)\nstatus -> 0$",
            r"^edgeweb: this service cannot reload .*\nreload -> 3$",
            r"^status -> 1$",
            r"^monitor -> 0$",
            r"^status -> 0$",
        )

    def console(self) -> Path:
        """A stand-in: a file that only root may write."""
        path = self.root / "dev" / "console"
        path.touch(0o600)
        return path

    def test_output_on_the_console(self) -> None:
        console = self.console()
        for applet in ("", "setsid"):
            if applet:
                (self.root / "bin" / applet).symlink_to("busybox")
            # It is handed on: none but root may open it, and nothing else of the service's gets there.
            self.check(
                "x start; x status; cat /run/edgeweb/who; echo;"
                " for fd in 0 1 2; do readlink /proc/$(cat /run/edgeweb.pid)/fd/$fd; done;"
                " x restart; x status; x monitor; x stop; x status",
                r"^edgeweb: started \(pid \d+\)\nstart -> 0$",
                rf"^status -> 0\n{USER}:{GROUP}\n/dev/null\n/dev/console\n/dev/null$",
                r"^restart -> 0$",
                r"^status -> 0\nmonitor -> 0$",
                r"^edgeweb: stopped\nstop -> 0$",
                r"^status -> 3$",
            )
            # Each start empties what is no device.
            self.assertEqual(console.read_text(), "who may see this?\n")

    def test_output_on_the_console_with_bad_days(self) -> None:
        self.console()
        self.behave("dies")
        self.check("x start; x status", r"^edgeweb: stopped right after its start; .*\nstart -> 1$", r"^status -> 3$")

    def test_output_of_others_is_not_on_the_console(self) -> None:
        console = self.console()
        self.write_script(STDOUT_CONSOLE="0")
        self.check("x start; x status; x stop", r"^start -> 0$", r"^status -> 0$", r"^stop -> 0$")
        self.assertEqual(console.read_text(), "")

    def test_output_in_the_log(self) -> None:
        # The process is the service's own, and a running edgeweb is not taken for it.
        shutil.copy(self.program, self.root / "usr" / "bin" / "tankd")
        self.write_script(LOGPIPE="1", STDOUT_CONSOLE="0", COMMAND="/usr/bin/tankd serve --depth 3")
        self.check(
            "mkdir -m 777 /run/edgeweb; /usr/bin/edgeweb serve & sleep 0.3; rm /run/edgeweb/*; x start; x start;"
            " cat /run/edgeweb/tag; echo; tr '\\0' ' ' < /proc/$(cat /run/edgeweb.pid)/cmdline; echo;"
            " x status; x restart; x reload; x stop; x status",
            r"^edgeweb: started \(pid \d+\)\nstart -> 0$",
            r"^edgeweb: already running \(pid \d+\)\nstart -> 0\nedgeweb\n/usr/bin/tankd serve --depth 3 $",
            r"^edgeweb: running \(pid \d+\), health ok\nstatus -> 0$",
            r"^restart -> 0$",
            r"^reload -> 0$",
            r"^edgeweb: stopped\nstop -> 0$",
            r"^status -> 3$",
        )

    def test_output_in_the_log_on_a_slow_device(self) -> None:
        # What is about to become the service is ours: it is waited for, and stopped.
        self.behave("pipeless")
        self.write_script(LOGPIPE="1", STDOUT_CONSOLE="0")
        self.check(
            "x start; x status; x stop",
            r"^edgeweb: started, but its health did not answer within 2 s; .*\nstart -> 1$",
            r"^edgeweb: running \(pid \d+\), but its health does not answer\nstatus -> 4$",
            r"^edgeweb: stopped\nstop -> 0$",
        )

    def test_output_in_the_log_without_what_puts_it_there(self) -> None:
        (self.root / "usr" / "bin" / "edgeweb").rename(self.root / "usr" / "bin" / "tankd")
        self.write_script(LOGPIPE="1", STDOUT_CONSOLE="0", CHECK="", HEALTH="", COMMAND="/usr/bin/tankd serve")
        self.check("x start; x status", r"^edgeweb: .*\nstart -> 1$", r"^status -> 3$")


class MonitorTest(Root):
    """What cron calls each minute."""

    LOG = "cat /var/log/edgeweb-monitor.log"
    STAMP = r"^20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ edgeweb: "

    def test_all_well(self) -> None:
        self.check("x start; x monitor; ls /var/log /run", r"^monitor -> 0\n/run:$", r"^/var/log:\n\Z")

    def test_stopped_on_purpose(self) -> None:
        self.check("x start; x stop; x monitor; x status", r"^monitor -> 0\nedgeweb: not running\nstatus -> 3\n\Z")

    def test_never_started(self) -> None:
        self.check("x monitor; x status", r"\Amonitor -> 0\nedgeweb: not running\nstatus -> 3\n\Z")

    def test_killed_is_restarted(self) -> None:
        self.check(
            f"x start; kill -KILL $(cat /run/edgeweb.pid); sleep 0.3; x monitor; x status; x monitor; {self.LOG}",
            r"^monitor -> 0$",
            r"^status -> 0\nmonitor -> 0$",
            self.STAMP + r"was not running; restarted: edgeweb: started \(pid \d+\)\n\Z",
        )

    def test_silent_is_restarted(self) -> None:
        self.check(
            f"x start; rm /run/edgeweb/healthy; x status; x monitor; x status; {self.LOG}",
            r"^status -> 4$",
            r"^monitor -> 0$",
            r"^status -> 0$",
            self.STAMP
            + r"did not answer its health check three times \(pid \d+\); restarted: .*started \(pid \d+\)\n\Z",
        )

    def test_failed_start_is_tried_again(self) -> None:
        self.behave("dies")
        self.check(
            f"x start; x monitor; rm /behave/dies; x monitor; x status; {self.LOG}",
            r"^start -> 1$",
            r"^monitor -> 1$",
            r"^monitor -> 0$",
            r"^status -> 0$",
            self.STAMP + r"was not running; the restart failed: edgeweb: stopped right after its start; .*\n",
            self.STAMP + r"was not running; restarted: .*\n\Z",
        )

    def test_wrong_configuration_is_said(self) -> None:
        self.check(
            f"x start; kill -KILL $(cat /run/edgeweb.pid); sleep 0.3; touch /behave/bad-config; x monitor; {self.LOG};"
            " rm /behave/bad-config; x monitor; x status",
            r"^monitor -> 6$",
            self.STAMP + r"was not running; the restart failed: .*http\.port: not a number",
            r"^monitor -> 0$",
            r"^status -> 0$",
        )

    def test_log_is_bounded(self) -> None:
        (self.root / "var/log/edgeweb-monitor.log").write_bytes(b"x" * 65536)
        self.check(
            "x start; kill -KILL $(cat /run/edgeweb.pid); sleep 0.3; x monitor; wc -c /var/log/edgeweb-monitor.log.1;"
            f" {self.LOG}",
            r"^65536 ",
            self.STAMP,
        )

    def test_one_at_a_time(self) -> None:
        # A monitor that comes while somebody starts it leaves the start alone; a start waits for another one.
        self.behave("slow")
        self.check(
            "x start & sleep 0.5; x monitor; x status; wait; ls /run; x stop",
            r"^monitor -> 0$",
            r"^status -> 4$",
            r"^start -> 1$",
            r"^edgeweb\nedgeweb.pid\nedgeweb.wanted$",
            r"^stop -> 0$",
        )

    def test_a_lock_left_behind(self) -> None:
        self.check(
            "mkdir /run/edgeweb.lock; x start;"
            " mkdir /run/edgeweb.lock; echo 999999 > /run/edgeweb.lock/pid; x stop; ls /run",
            r"^start -> 0$",
            r"^stop -> 0\nedgeweb\n\Z",
        )

    def test_not_root(self) -> None:
        (self.root / "bin" / "su").symlink_to("busybox")
        self.check(
            "su -s /bin/sh edgeweb -c '/etc/init.d/edgeweb monitor' 2>&1; echo -\\> $?",
            r"^edgeweb: only root may monitor .*\n-> 4$",
        )


if __name__ == "__main__":
    unittest.main()
