"""One ARM machine in QEMU: started, asked over its forwarded ports, driven over its serial console, stopped."""

from __future__ import annotations

import contextlib
import functools
import re
import secrets
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from scripts.lib import https, ssh_keys
from scripts.lib.console import Console
from scripts.lib.ports import LOOPBACK, Forward
from scripts.lib.steps import DYING_WITH_US, Failure

PROGRAM = "qemu-system-arm"
HARDWARE = ("-M", "virt", "-cpu", "cortex-a15", "-m", "256")
BOOT_LIMIT = 180.0  # s; it takes about 8, but not on a machine that compiles at the same time
POWER_OFF_LIMIT = 15.0  # s
ESCAPES = re.compile(r"\x1b(\[[0-9;?]*[A-Za-z]|[78])")  # shells ask the terminal for its size behind their prompt
LOGIN_LIMIT = 20.0  # s until a shell is found at the console
ASK_AGAIN = 2.0  # s between requests to power off, for what is typed during boot is lost


@dataclass(frozen=True)
class Setup:
    """What a machine is made of. `directory` takes its logs and ssh files."""

    directory: Path
    kernel: Path
    initrd: Path
    forwards: tuple[Forward, ...]
    disk: Path | str | None = None  # a file, or the address of a disk that QEMU reaches otherwise
    keep_disk: bool = True  # False: what the machine writes to the disk is forgotten
    kernel_arguments: str = "quiet"
    known_host_key: bool = True  # False: somebody's image, which has a key of its own


class Machine:
    """From `start` to `stop`, which leaves no process behind."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.ports = {forward.name: forward.host for forward in setup.forwards}
        self.console_log = setup.directory / "console.log"
        self._qemu_log = setup.directory / "qemu.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._console: Console | None = None
        self._started = 0.0

    @property
    def console(self) -> Console:
        if self._console is None:
            raise RuntimeError("the machine was never started")
        return self._console

    def is_alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        self.setup.directory.mkdir(parents=True, exist_ok=True)
        self._started = time.monotonic()
        if not shutil.which(PROGRAM):
            raise Failure(f"{PROGRAM} is not installed; type: sudo apt-get install qemu-system-arm")
        with self._qemu_log.open("wb") as log:
            # A session of its own: ctrl-C is for us, we ask the machine to power off first.
            self._process = subprocess.Popen(
                [*DYING_WITH_US, *self._arguments()],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        assert self._process.stdout and self._process.stdin
        self._console = Console(self._process.stdout, self._process.stdin, self.console_log)
        if "ssh" in self.ports:
            ssh_keys.write_ssh_config(self.setup.directory, self.ports["ssh"], self.setup.known_host_key)

    def _arguments(self) -> list[str]:
        setup = self.setup
        network = "user,id=net" + "".join(f",hostfwd=tcp:{LOOPBACK}:{f.host}-:{f.guest}" for f in setup.forwards)
        arguments = [PROGRAM, *HARDWARE, "-nodefaults", "-display", "none"]
        arguments += ["-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"]
        arguments += ["-kernel", str(setup.kernel), "-initrd", str(setup.initrd)]
        arguments += ["-append", f"console=ttyAMA0 {setup.kernel_arguments}"]
        arguments += ["-netdev", network, "-device", "virtio-net-device,netdev=net", "-device", "virtio-rng-device"]
        if setup.disk:
            # In QEMU's option lists a comma in a file's name is written twice.
            name, snapshot = str(setup.disk).replace(",", ",,"), "off" if setup.keep_disk else "on"
            arguments += ["-drive", f"if=none,id=disk,format=raw,file={name},snapshot={snapshot}"]
            arguments += ["-device", "virtio-blk-device,drive=disk"]
        return arguments

    def get(self, path: str) -> https.Answer:
        """Asks the service from outside, over the forwarded port."""
        return https.ask(self.ports["https"], path)

    def is_healthy(self) -> bool:
        return https.is_healthy(self.ports["https"])

    def wait_until_healthy(self, limit: float = BOOT_LIMIT) -> float:
        """Returns the seconds since power-on."""
        deadline = time.monotonic() + limit
        while not self.is_healthy():
            if not self.is_alive():
                raise Failure(f"the machine ended while starting: {self._last_words()}")
            if self._has_panicked():
                raise Failure(f"the machine's kernel gave up; see {self.console_log}")
            if time.monotonic() > deadline:
                port = self.ports["https"]
                raise Failure(f"the service does not answer on port {port} after {limit:.0f} s; see {self.console_log}")
            time.sleep(0.1)
        return time.monotonic() - self._started

    def ssh(self, command: str, timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
        """Runs a command on the machine as root."""
        argv = ["ssh", "-F", str(self.setup.directory / "ssh_config"), ssh_keys.HOST_ALIAS, command]
        return subprocess.run(
            argv, capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL, check=False
        )

    def shell(self, command: str) -> subprocess.CompletedProcess[str]:
        """Runs a command on the machine as root: by ssh, or at the console of an image that has no ssh server."""
        return self.ssh(command) if self.has_ssh() else self._console_shell(command)

    def has_shell(self) -> bool:
        return self.shell("true").returncode == 0

    @functools.cache  # noqa: B019 - machines are few, and live as long as the program
    def has_ssh(self) -> bool:
        """An image may have no server, or one that does not know our key."""
        return self.ssh("true").returncode == 0

    def _console_shell(self, command: str, timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
        if not self._console_prompt():
            return subprocess.CompletedProcess(command, 255, "", "the console offers no shell to root")
        mark = secrets.token_hex(4)
        # The quotes keep the console's echo of this line from looking like its output.
        self.console.send(f"echo '<'{mark}; ( {command} ) </dev/null 2>&1; echo '>'{mark} $?\n")
        if not self.console.wait_for(rf">{mark} \d+", timeout):
            return subprocess.CompletedProcess(
                command, 255, "", "the console has no shell for root, or does not answer"
            )
        said = self.console.text()
        output, _, status = said.partition(f"<{mark}\n")[2].partition(f">{mark} ")
        return subprocess.CompletedProcess(command, int(status.split()[0]), output, "")

    def _console_prompt(self) -> bool:
        """Whether a shell awaits a command there, after logging in if need be; the service may be up before that."""
        deadline = time.monotonic() + LOGIN_LIMIT
        while time.monotonic() < deadline:
            said = ESCAPES.sub("", self.console.text()).rstrip()
            if said.endswith(("#", "$")):
                return True
            if said.endswith("assword:"):
                return False
            self.console.send("root\n" if said.endswith("login:") else "\n")
            self.console.wait_for(r"[#$:] *$", ASK_AGAIN)
            time.sleep(ASK_AGAIN / 4)
        return False

    def power_off(self, limit: float = POWER_OFF_LIMIT) -> bool:
        """Asks for an orderly end over the console; False when the machine did not come to one in time."""
        began = time.monotonic()
        while self.is_alive() and not self._has_panicked() and (spent := time.monotonic() - began) < limit:
            if self.console.text().rstrip().endswith("login:"):
                self.console.send("root\n")
            # ctrl-C first: somebody may have left a program running in the console's shell.
            self.console.send(f"\x03\npoweroff{' -f' if spent > limit * 2 / 3 else ''}\n")
            self._wait(min(ASK_AGAIN, max(0.1, limit - spent)))
        return not self.is_alive()

    def kill(self) -> None:
        """Ends our own QEMU and no other; what the machine had not yet written to its disk is lost."""
        if self._process and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def stop(self) -> bool:
        """Powers off within bounds, else kills. A second ctrl-C ends the waiting. True when the end was orderly."""
        orderly = False
        try:
            orderly = self.power_off()
        finally:
            self.kill()
            if self._console:
                self._console.close()
            # It says that a machine can be reached: from now on none can.
            (self.setup.directory / "ssh_config").unlink(missing_ok=True)
        return orderly

    def _has_panicked(self) -> bool:
        return "Kernel panic" in self.console.text()

    def _wait(self, seconds: float) -> None:
        if self._process:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(seconds)

    def _last_words(self) -> str:
        said = self._qemu_log.read_text(errors="replace") + self.console.text()
        lines = [line for line in said.splitlines() if line.strip() and "reboot: " not in line]
        return lines[-1] if lines else f"it said nothing; see {self.console_log}"
