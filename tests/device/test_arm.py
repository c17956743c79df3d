"""The service on an ARM machine in QEMU: what a device maker gets, seen from outside and from its own shell.

    python3 -m unittest -v tests.device.test_arm

One machine serves all tests of `OnTheMachine`; they leave it as they found it. Ports are free ones, files are in a
temporary directory, and whatever takes time is polled within bounds.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

from scripts.lib import armroot, debian_armhf, ports, ssh_keys
from scripts.lib.machine import Machine, Setup
from scripts.lib.run import CACHE
from tests.device.support import BINARY, LONG, ROOT, build_binary, machines_in, until

DEPLOY = ROOT / "scripts" / "deploy"
INIT = "/etc/init.d/edgeweb"


def setUpModule() -> None:
    build_binary()


class TheBinary(unittest.TestCase):
    """It must run on any ARMv7 device, whatever libraries that has."""

    def test_is_static_hard_float_arm_and_stripped(self) -> None:
        said = subprocess.run(["file", "-b", BINARY], capture_output=True, text=True, check=True).stdout
        for expected in ("ELF 32-bit LSB executable", "ARM, EABI5", "statically linked", "stripped"):
            self.assertIn(expected, said)
        self.assertNotIn("not stripped", said)
        header = subprocess.run(["readelf", "-h", BINARY], capture_output=True, text=True, check=True).stdout
        self.assertIn("hard-float ABI", header)

    def test_needs_no_shared_library(self) -> None:
        said = subprocess.run(["readelf", "-d", "-l", BINARY], capture_output=True, text=True, check=True).stdout
        self.assertIn("There is no dynamic section", said)
        self.assertNotIn("NEEDED", said)
        self.assertNotIn("INTERP", said)


class OnTheMachine(unittest.TestCase):
    directory: Path
    machine: Machine
    setup_: Setup

    @classmethod
    def setUpClass(cls) -> None:
        cls.directory = Path(tempfile.mkdtemp(prefix="edgeweb-arm-"))
        cls.addClassCleanup(shutil.rmtree, cls.directory)
        parts = debian_armhf.fetch(CACHE)
        initrd, disk = cls.directory / "initrd", cls.directory / "state.ext4"
        armroot.write_root(initrd, parts, BINARY, *ssh_keys.make_keys(cls.directory))
        armroot.make_state_disk(disk, fresh=True)
        cls.setup_ = Setup(cls.directory, parts.kernel, initrd, ports.forwards({}, any_free=True), disk)
        cls.machine = Machine(cls.setup_)
        cls.addClassCleanup(cls.stop_machine)
        cls.machine.start()
        cls.machine.wait_until_healthy()

    @classmethod
    def stop_machine(cls) -> None:
        """Whichever it is by then: one test replaces it."""
        cls.machine.stop()

    def ask(self, command: str) -> str:
        """The output of a command on the machine that must succeed."""
        result = self.machine.ssh(command)
        self.assertEqual(result.returncode, 0, f"{command}: {result.stdout}{result.stderr}")
        return result.stdout

    def pid(self) -> int:
        return int(self.ask("cat /run/edgeweb.pid"))

    def log(self) -> str:
        """What the service told syslog."""
        return self.machine.ssh("grep 'edgeweb\\[' /var/log/messages").stdout

    def deploy(self, binary: Path) -> subprocess.CompletedProcess[str]:
        argv = [DEPLOY, "--binary", binary, "-F", self.directory / "ssh_config", ssh_keys.HOST_ALIAS]
        return subprocess.run(argv, capture_output=True, text=True, timeout=LONG, check=False)

    def script(self, text: str) -> Path:
        path = self.directory / "script"
        path.write_text(f"#!/bin/sh\n{text}\n")
        return path

    def test_answers_with_its_health(self) -> None:
        answer = self.machine.get("/health")
        self.assertEqual((answer.status, answer.body), (200, b'{"status":"ok"}'))

    def test_answers_with_a_page(self) -> None:
        answer = self.machine.get("/")
        self.assertEqual((answer.status, answer.content_type), (200, "text/html"))
        self.assertIn(b"<!doctype html", answer.body.lower())

    def test_runs_as_its_own_user(self) -> None:
        self.assertEqual(self.ask(f"stat -c %U /proc/{self.pid()}").strip(), "edgeweb")

    def test_writes_to_the_machines_syslog(self) -> None:
        self.assertRegex(self.log(), r"daemon\.info edgeweb\[\d+\]: ")

    def test_init_script_says_the_status(self) -> None:
        self.assertIn(f"running (pid {self.pid()})", self.ask(f"{INIT} status"))

    def test_init_script_restarts(self) -> None:
        before = self.pid()
        self.ask(f"{INIT} restart")
        self.assertNotEqual(self.pid(), before)
        self.assertTrue(self.machine.is_healthy())

    def test_init_script_reloads_in_the_same_process(self) -> None:
        before, lines = self.pid(), len(self.log().splitlines())
        self.ask(f"{INIT} reload")
        said = "the new configuration is in force"
        until(lambda: any(said in line for line in self.log().splitlines()[lines:]), "a log line about the reload")
        self.assertEqual(self.pid(), before)
        until(self.machine.is_healthy, "health after the reload")

    def test_init_script_stops_and_starts(self) -> None:
        self.addCleanup(self.machine.ssh, f"{INIT} start")
        self.ask(f"{INIT} stop")
        self.assertFalse(self.machine.is_healthy())
        self.assertEqual(self.machine.ssh(f"{INIT} status").returncode, 3)
        self.ask(f"{INIT} start")
        self.assertTrue(self.machine.is_healthy())

    def test_drains_on_sigterm_and_says_so(self) -> None:
        self.addCleanup(self.machine.ssh, f"{INIT} restart")
        pid, lines = self.pid(), len(self.log().splitlines())
        self.ask(f"kill -TERM {pid}")
        until(lambda: self.machine.ssh(f"test -e /proc/{pid}").returncode, "the end after SIGTERM", 12)
        said = "\n".join(self.log().splitlines()[lines:])
        self.assertIn("SIGTERM", said)
        self.assertIn("stopped", said)

    def test_starts_again_after_it_was_killed(self) -> None:
        self.ask(f"kill -KILL {self.pid()}")
        until(lambda: self.machine.ssh(f"{INIT} status").returncode == 1, "a status that says dead")
        self.ask(f"{INIT} start")
        self.assertTrue(self.machine.is_healthy())

    def test_state_survives_a_power_off(self) -> None:
        self.ask("echo kept > /var/lib/edgeweb/kept && echo lost > /etc/lost")
        self.assertTrue(self.machine.stop(), "the machine had to be killed")
        self.assertEqual(machines_in(self.directory), [])
        type(self).machine = Machine(self.setup_)
        self.machine.start()
        self.machine.wait_until_healthy()
        self.assertEqual(self.ask("cat /var/lib/edgeweb/kept").strip(), "kept")
        self.assertNotEqual(self.machine.ssh("test -e /etc/lost").returncode, 0)
        self.assertEqual(self.ask("stat -c %U /var/lib/edgeweb").strip(), "edgeweb")

    def test_deploy_swaps_a_good_binary(self) -> None:
        # The same program with a byte behind it: it runs, and it can be told apart.
        other = self.directory / "other"
        other.write_bytes(BINARY.read_bytes() + b"\n")
        before = self.pid()
        result = self.deploy(other)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual(int(self.ask("wc -c < /usr/bin/edgeweb")), other.stat().st_size)
        self.assertEqual(int(self.ask("wc -c < /usr/bin/edgeweb.previous")), BINARY.stat().st_size)
        self.assertNotEqual(self.pid(), before)
        self.assertTrue(self.machine.is_healthy())
        self.assertEqual(self.deploy(BINARY).returncode, 0)

    def refuse(self, binary: Path, reason: str) -> None:
        """The device must be as it was after a deploy of this binary."""
        before = self.ask("sha256sum < /usr/bin/edgeweb")
        result = self.deploy(binary)
        self.assertEqual(result.returncode, 1, result.stdout + result.stderr)
        self.assertIn(reason, result.stderr)
        self.assertEqual(self.ask("sha256sum < /usr/bin/edgeweb"), before)
        self.assertEqual(self.ask("ls /usr/bin | grep -c 'edgeweb.new' || true").strip(), "0")
        self.assertTrue(self.machine.is_healthy())

    def test_deploy_refuses_what_does_not_run_there(self) -> None:
        pid = self.pid()
        self.refuse(self.script("exit 1"), "does not run on the device")
        self.assertEqual(self.pid(), pid)

    def test_deploy_puts_the_old_one_back_when_the_new_one_ends(self) -> None:
        ends = self.script("case $1 in version | check-config) exit 0 ;; esac; exit 1")
        self.refuse(ends, "the old one is back and healthy")

    def test_deploy_puts_the_old_one_back_when_the_new_one_is_not_healthy(self) -> None:
        sick = self.script("case $1 in serve) exec sleep 600 ;; health) exit 1 ;; esac")
        self.refuse(sick, "the old one is back and healthy")

    def test_deploy_explains_a_read_only_root(self) -> None:
        self.ask("mkdir /usr/bin.ro && cp -a /usr/bin/. /usr/bin.ro/")
        self.ask("mount --bind /usr/bin.ro /usr/bin && mount -o remount,bind,ro /usr/bin")
        self.addCleanup(self.machine.ssh, "umount /usr/bin; rm -rf /usr/bin.ro")
        result = self.deploy(BINARY)
        self.assertEqual(result.returncode, 1)
        self.assertIn("read-only root file system", result.stderr)


if __name__ == "__main__":
    unittest.main()
