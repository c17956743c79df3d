"""The ARM binary, the quick machine's state, and deploys to both machines; what it serves is for tests/blackbox to see.

    python3 -m unittest -v tests.device.test_arm

One machine serves all tests of a class; they leave it as they found it. Ports are free ones, files are in a
temporary directory, and whatever takes time is polled within bounds.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

from scripts.lib import armroot, debian_armhf, debian_systemd, ports, ssh_keys
from scripts.lib.machine import Machine, Setup
from scripts.lib.run import CACHE, SYSTEMD_CACHE
from tests.device.support import BINARY, LONG, ROOT, build_binary, machines_in

DEPLOY = ROOT / "scripts" / "deploy"


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


class Deploying(unittest.TestCase):
    """What holds on every machine."""

    directory: Path
    machine: Machine

    @classmethod
    def setup_of(cls, parts: debian_armhf.Parts, initrd: Path, authorized_key: str, host_key: bytes) -> Setup:
        raise NotImplementedError

    @classmethod
    def setUpClass(cls) -> None:
        cls.directory = Path(tempfile.mkdtemp(prefix="edgeweb-arm-"))
        cls.addClassCleanup(shutil.rmtree, cls.directory)
        keys = ssh_keys.make_keys(cls.directory)
        cls.machine = Machine(cls.setup_of(debian_armhf.fetch(CACHE), cls.directory / "initrd", *keys))
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
        return int(json.loads(self.ask("cat /run/edgeweb/endpoints.json"))["pid"])

    def deploy(self, binary: Path) -> subprocess.CompletedProcess[str]:
        argv = [DEPLOY, "--binary", binary, "-F", self.directory / "ssh_config", ssh_keys.HOST_ALIAS]
        return subprocess.run(argv, capture_output=True, text=True, timeout=LONG, check=False)

    def script(self, text: str) -> Path:
        path = self.directory / "script"
        path.write_text(f"#!/bin/sh\n{text}\n")
        return path

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
        # -l: where /bin is /usr/bin, the shell itself is in use there.
        self.addCleanup(self.ask, "umount -l /usr/bin && rm -rf /usr/bin.ro")
        result = self.deploy(BINARY)
        self.assertEqual(result.returncode, 1)
        self.assertIn("read-only root file system", result.stderr)


class OnTheMachine(Deploying):
    @classmethod
    def setup_of(cls, parts: debian_armhf.Parts, initrd: Path, authorized_key: str, host_key: bytes) -> Setup:
        disk = cls.directory / "state.ext4"
        armroot.write_root(initrd, parts, BINARY, authorized_key, host_key)
        armroot.make_state_disk(disk, fresh=True)
        return Setup(cls.directory, parts.kernel, initrd, ports.forwards({}, any_free=True), disk)

    def test_state_survives_a_power_off(self) -> None:
        self.ask("echo kept > /var/lib/edgeweb/kept && echo lost > /etc/lost")
        self.assertTrue(self.machine.stop(), "the machine had to be killed")
        self.assertEqual(machines_in(self.directory), [])
        type(self).machine = Machine(self.machine.setup)
        self.machine.start()
        self.machine.wait_until_healthy()
        self.assertEqual(self.ask("cat /var/lib/edgeweb/kept").strip(), "kept")
        self.assertNotEqual(self.machine.ssh("test -e /etc/lost").returncode, 0)
        self.assertEqual(self.ask("stat -c %U /var/lib/edgeweb").strip(), "edgeweb")


class OnTheMachineWithSystemd(Deploying):
    @classmethod
    def setup_of(cls, parts: debian_armhf.Parts, initrd: Path, authorized_key: str, host_key: bytes) -> Setup:
        disk = cls.directory / "systemd.ext4"
        debian_systemd.make_disk(disk, debian_systemd.fetch(SYSTEMD_CACHE), BINARY, authorized_key, host_key)
        armroot.write_image_loader(initrd, parts, None)
        forwards = ports.forwards({}, any_free=True)
        return Setup(cls.directory, parts.kernel, initrd, forwards, disk, kernel_arguments="quiet rdinit=/edgeweb/init")


del Deploying  # only what is built on it is to be run


if __name__ == "__main__":
    unittest.main()
