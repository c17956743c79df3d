"""The journal under power cuts: an ARM machine is killed again and again while a program writes its log.

    scripts/test --power-cut

Each round boots the machine, which is the one of `scripts/run`: the service must start, with the journal as the cut
before left it. Then service/examples/log_writer takes the service's place and says on the console which critical
records are on the storage, until the machine is killed at a random moment and its disk loses what was not flushed.
What is on the disk then is read here: each record that was ever acknowledged must be there, and none may be garbled.

EDGEWEB_CUTS is how many cuts (50), EDGEWEB_SEED what the random moments come from; both are printed.
"""

from __future__ import annotations

import json
import os
import random
import re
import secrets
import shutil
import subprocess
import tempfile
import unittest
import zlib
from pathlib import Path

from scripts.lib import armroot, debian_armhf, ports, ssh_keys
from scripts.lib.machine import BOOT_LIMIT, Machine, Setup
from scripts.lib.newc import Archive
from scripts.lib.run import CACHE
from scripts.lib.steps import MIB
from tests.device.support import BINARY, ROOT, machines_in
from tests.power_cut.disk import Disk

WRITER = BINARY.with_name("log_writer")
READER = ROOT / "service" / "target" / "debug" / "edgeweb"
CUTS = int(os.environ.get("EDGEWEB_CUTS", "50"))
SEED = int(os.environ.get("EDGEWEB_SEED", "0")) or secrets.randbelow(1_000_000) + 1
DISK_SIZE = 256 * MIB
JOURNAL = "/var/lib/edgeweb/journal"
CONFIGURATION = "log.journal.max_bytes = 1073741824\n"  # the oldest records are looked for, too
WRITES_FOR = 4.0  # s at most from the first acknowledged record to the cut
AMIDST = 0.5  # the share of the cuts that come in the middle of a write or flush, as none does by chance
REQUESTS = 400  # until such a cut, at most
BOOTS_FOR = 12.0  # s at most from power-on to a cut of the boot itself; the service starts in about 8
BOOT_CUT_EVERY = 5  # rounds
EAGER = ("dirty_writeback_centisecs", "dirty_expire_centisecs", "dirty_background_bytes")
LIMIT = 120.0  # s that a host program or the writer's first record gets; mostly others' work on the same machine

ACKNOWLEDGED = re.compile(rb"^ok (\d+) (\d+)\r?\n", re.MULTILINE)
RECORD = re.compile(r"(\d+) (\d+) ([0-9a-f]{8}) ([a-z]+)")
DAMAGED = re.compile(r"edgeweb: .*: (\d+) records are damaged or sealed for somebody else\n")

Records = set[tuple[int, int]]


def setUpModule() -> None:
    for program in ([], ["--example", "log_writer"]):
        subprocess.run([ROOT / "scripts" / "build-arm", "--quick", *program], check=True, timeout=3600)
    subprocess.run(["cargo", "build", "--locked", "--quiet"], cwd=ROOT / "service", check=True, timeout=3600)


def quietly(*command: str | Path, accepted: tuple[int, ...] = (0,)) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
    if done.returncode not in accepted:
        raise AssertionError(f"{command[0]} ended with {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout


def checked(message: str) -> tuple[int, int]:
    """The run and number of a record that is as it was written."""
    parts = RECORD.fullmatch(message)
    if not parts or int(parts[3], 16) != zlib.crc32(f"{parts[1]} {parts[2]} {parts[4]}".encode()):
        raise AssertionError(f"a garbled record: {message!r}")
    return int(parts[1]), int(parts[2])


class PowerCuts(unittest.TestCase):
    """On ext4 as it comes, where file contents are on the disk before the length that makes them visible."""

    mkfs_options: tuple[str, ...] = ()
    cuts = CUTS - CUTS // 2

    def setUp(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="edgeweb-power-cut-"))
        self.done = False
        self.addCleanup(self.clean_up)
        self.dice = random.Random(f"{SEED} {self.mkfs_options}")
        image = self.directory / "state.ext4"
        image.touch()
        os.truncate(image, DISK_SIZE)
        quietly("/sbin/mkfs.ext4", "-q", "-F", "-m", "0", image)
        if self.mkfs_options:
            quietly("/sbin/tune2fs", *self.mkfs_options, image)
        self.disk = Disk(image, self.directory / "disk.sock")
        self.addCleanup(self.disk.close)
        # Another build may replace it while the test lasts.
        self.reader = shutil.copy(READER, self.directory)
        self.identity = self.directory / "identity"
        quietly(self.reader, "logs", "keygen", self.identity)
        parts = debian_armhf.fetch(CACHE)
        initrd = self.directory / "initrd"
        armroot.write_root(initrd, parts, BINARY, *ssh_keys.make_keys(self.directory))
        # The kernel unpacks one archive after another.
        more = Archive()
        more.copy("usr/bin/log_writer", WRITER, 0o755)
        more.file("etc/edgeweb/edgeweb.toml", CONFIGURATION.encode())
        initrd.write_bytes(initrd.read_bytes() + more.bytes())
        self.parts = parts
        self.acknowledged: Records = set()
        self.torn = 0
        self.machine: Machine | None = None
        self.addCleanup(self.end)

    def clean_up(self) -> None:
        """What a failed test leaves is worth a look: disk, its copy, console."""
        if self.done:
            shutil.rmtree(self.directory)
        else:
            print(f"the disk and the console are kept in {self.directory}", flush=True)

    def end(self) -> None:
        """No machine is left, however the test ends."""
        if self.machine:
            self.machine.kill()
            self.machine.stop()
        self.assertEqual(machines_in(self.directory), [])

    def power_on(self) -> Machine:
        forward = ports.Forward("https", ports.take("https", 0), 8443)
        setup = Setup(self.directory, self.parts.kernel, self.directory / "initrd", (forward,), self.disk.address)
        self.disk.plug()
        self.disk.fall_silent(0)
        self.machine = Machine(setup)
        self.machine.start()
        return self.machine

    def boot(self) -> Machine:
        """The service must start, and count what the cut tore off."""
        machine = self.power_on()
        machine.wait_until_healthy(BOOT_LIMIT)
        metrics = machine.get("/metrics").body.decode()
        self.assertRegex(metrics, r"(?m)^edgeweb_log_journal_up 1$", "the service runs, its journal does not")
        self.torn += int(re.search(r"(?m)^edgeweb_log_journal_torn_bytes_total (\d+)$", metrics)[1])
        return machine

    def ask(self, machine: Machine, command: str) -> str:
        """The output of a command that must succeed; the service may be well before the console has its shell."""
        result = machine.shell(command)
        self.assertEqual(result.returncode, 0, f"{command}: {result.stdout}{result.stderr}")
        return result.stdout

    def write(self, machine: Machine, run: int) -> None:
        """Starts the writer, which goes on until the machine ends."""
        # The writer takes the service's place, under its user: a journal has one writer.
        prepare = "/etc/init.d/edgeweb stop"
        if run % 2 == 0:
            # The kernel then writes files out while they are being written; by itself it waits for 30 s.
            prepare += "".join(f" && echo 1 > /proc/sys/vm/{name}" for name in EAGER)
        self.ask(machine, prepare)
        machine.console.send(f"su -s /bin/sh edgeweb -c 'exec log_writer {JOURNAL} {run}'\n")
        if not machine.console.wait_for(rf"\nok {run} \d+\r", LIMIT):
            self.fail(f"run {run}: no record was acknowledged; the console: {machine.console.text()[-2000:]}")

    def cut(self, machine: Machine, seconds: float) -> tuple[int, int]:
        """The power fails in so many seconds. Says what the disk lost, and learns what was acknowledged."""
        self.disk.is_silent.wait(seconds)
        self.assertTrue(machine.is_alive(), f"the machine ended by itself: {machine.console.text()[-2000:]}")
        machine.kill()
        machine.stop()
        self.assertNotIn("log_writer:", machine.console.text())
        # Whole lines only: of the last number a part may be missing.
        said = machine.console_log.read_bytes()
        self.acknowledged |= {(int(run), int(number)) for run, number in ACKNOWLEDGED.findall(said)}
        return self.disk.cut(self.dice)

    def on_the_disk(self) -> tuple[Records, int]:
        """Every record that the disk has now, and how many places are damaged."""
        copy, directory = self.directory / "copy.ext4", self.directory / "journal"
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir()
        quietly("cp", "--sparse=always", self.disk.image, copy)
        # Replays the file system's own journal; 1 and 2: it did, or it found more to put in order.
        quietly("/sbin/e2fsck", "-fy", copy, accepted=(0, 1, 2))
        quietly("/sbin/debugfs", "-R", f"rdump journal {directory}", copy)
        done = subprocess.run(
            [self.reader, "logs", "decrypt", "--json", "--identity", self.identity, directory / "journal"],
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )
        damaged = DAMAGED.fullmatch(done.stderr)
        if done.returncode != (1 if damaged else 0):
            self.fail(f"edgeweb logs decrypt ended with {done.returncode}: {done.stderr}")
        lines = map(json.loads, done.stdout.splitlines())
        found = {checked(line["message"]) for line in lines if line["target"] == "log_writer"}
        return found, int(damaged[1]) if damaged else 0

    def all_is_there(self) -> tuple[int, int]:
        """How many records there are, and how many damaged places."""
        found, damaged = self.on_the_disk()
        missing = sorted(self.acknowledged - found)
        self.assertEqual(
            missing[:10],
            [],
            f"{len(missing)} of {len(self.acknowledged)} acknowledged records are missing (run, number)",
        )
        return len(found), damaged

    def shown_by_the_service(self, machine: Machine, run: int) -> None:
        """The end of the boot before must be in what the service answers."""
        said = self.ask(machine, "edgeweb logs --boot -1 --limit 20 --json")
        shown = [checked(json.loads(line)["message"]) for line in said.splitlines()]
        last = max(number for of, number in self.acknowledged if of == run)
        self.assertIn((run, last), shown, said)

    def test_acknowledged_records_outlive_power_cuts(self) -> None:
        print(f"\n{self.cuts} power cuts, EDGEWEB_SEED={SEED}, ext4 {' '.join(self.mkfs_options)}", flush=True)
        boot_cuts = damaged = 0
        for run in range(1, self.cuts + 1):
            if run % BOOT_CUT_EVERY == 0:
                # The power comes, and goes again before all is up.
                self.cut(self.power_on(), self.dice.uniform(0, BOOTS_FOR))
                boot_cuts += 1
            machine = self.boot()
            if run > 1:
                self.shown_by_the_service(machine, run - 1)
            self.write(machine, run)
            before = len(self.acknowledged)
            if self.dice.random() < AMIDST:
                self.disk.fall_silent(self.dice.randint(1, REQUESTS))
            waiting, lucky = self.cut(machine, self.dice.uniform(0, WRITES_FOR))
            there, damaged = self.all_is_there()
            print(
                f"cut {run:>2}: {len(self.acknowledged) - before:>4} acknowledged; the disk kept {lucky:>4} of"
                f" {waiting:>4} sectors; {there} records, {damaged} damaged places, {self.torn} torn bytes so far",
                flush=True,
            )
        machine = self.boot()
        self.shown_by_the_service(machine, self.cuts)
        self.assertTrue(machine.stop(), "the machine had to be killed")
        self.disk.power_off()
        there, damaged = self.all_is_there()
        print(
            f"{self.cuts} cuts under the writer and {boot_cuts} while booting: all of {len(self.acknowledged)}"
            f" acknowledged records are there, {there} records in all, none garbled, {damaged} damaged places,"
            f" {self.torn} torn bytes cut off, {self.disk.flushes} flushes",
            flush=True,
        )
        self.done = True


class PowerCutsWithoutOrder(PowerCuts):
    """On ext4 that may show what was never written: only fsync keeps order."""

    mkfs_options = ("-o", "journal_data_writeback")
    cuts = CUTS // 2


if __name__ == "__main__":
    unittest.main()
