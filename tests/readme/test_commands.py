"""Every command in the README, typed as it stands there, unless it says that it needs the open network."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import tempfile
import unittest
from collections.abc import Iterator
from pathlib import Path

from scripts.lib.addresses import CODE

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
LIMIT = 900  # s for one command

# These run until they are stopped.
ENDLESS = ("scripts/run", "scripts/run --host")
# This one wants the machine of `scripts/run`.
WANTS_THE_MACHINE = "scripts/deploy --qemu"
# A block with this in it is for a device that waits for its administrator.
DEVICE = "$device"
BASE = """\
server.runtime_dir = "{folder}/run"
server.state_dir = "{folder}/state"
auth.provisioned_users = "{folder}/users.toml"
tls.directory = "{folder}/tls"
http.address = "127.0.0.1"
log.stderr = "never"
log.syslog.enabled = false
log.journal.enabled = false
"""
# -f: what the device refuses is an error.
PROLOGUE = """\
set -eEuo pipefail
trap 'echo "$BASH_COMMAND" >&2' ERR
curl() { command curl -fsS "$@"; }
"""
# What runs this test.
ITSELF = "scripts/test"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    """The commands of the README's shell blocks that need no more than a machine like this one."""
    lines = [line for block in blocks("sh") if DEVICE not in block for line in block.splitlines() if line.strip()]
    return [line.split(" #")[0].strip() for line in lines if "needs the open network" not in line]


class ReadmeTest(unittest.TestCase):
    def run_to_the_end(self, command: str) -> None:
        done = subprocess.run(command, shell=True, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT, check=False)
        self.assertEqual(done.returncode, 0, f"{command}: {done.stdout}{done.stderr}")

    @contextlib.contextmanager
    def running(self, command: str) -> Iterator[None]:
        """Runs a command until it says how to stop it, and stops it by ctrl-C at the end."""
        with subprocess.Popen(
            command.split(), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            assert process.stdout is not None
            try:
                said = ""
                for line in process.stdout:
                    said += line
                    if line.startswith("  stop"):
                        break
                self.assertIsNone(process.poll(), f"{command}: {said}")
                yield
            finally:
                process.send_signal(signal.SIGINT)
                process.communicate(timeout=LIMIT)

    def test_the_commands_that_end(self) -> None:
        ending = [command for command in commands() if command not in (*ENDLESS, WANTS_THE_MACHINE, ITSELF)]
        self.assertGreater(len(ending), 2)
        for command in ending:
            with self.subTest(command):
                self.run_to_the_end(command)

    def test_the_machine_and_a_deploy_to_it(self) -> None:
        self.assertIn(WANTS_THE_MACHINE, commands())
        self.assertIn(ENDLESS[0], commands())
        with self.running(ENDLESS[0]):
            self.run_to_the_end(WANTS_THE_MACHINE)

    def test_the_service_on_this_machine(self) -> None:
        self.assertIn(ENDLESS[1], commands())
        with self.running(ENDLESS[1]):
            pass

    def test_what_is_asked_of_a_device(self) -> None:
        build = subprocess.run(["cargo", "build", "--bin", "edgeweb"], cwd=ROOT / "service", check=False)
        self.assertEqual(build.returncode, 0)
        work = ROOT / "service" / os.environ.get("CARGO_TARGET_DIR", "target")
        with tempfile.TemporaryDirectory() as folder:
            config = Path(folder) / "edgeweb.toml"
            shown = "\n".join(blocks("toml"))
            self.assertIn("[https]\n", shown)
            # The first keys are without a table; the README's tables follow.
            config.write_text(
                BASE.format(folder=folder) + shown.replace("[https]\n", '[https]\naddress = "127.0.0.1"\n')
            )
            argv = [work / "debug" / "edgeweb", "serve", "--config", config]
            with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as service:
                try:
                    assert service.stdout is not None
                    code = CODE.search(service.stdout.readline())
                    assert code, "no claim code"
                    script = "\n".join(block for block in blocks("sh") if DEVICE in block)
                    script = f"{PROLOGUE}\n{script}"
                    values = {"code": code[1], "password": "a heron at the pond", "another": "the pond at a heron"}
                    done = subprocess.run(
                        ["bash", "-c", script],
                        cwd=folder,
                        env=os.environ | values,
                        capture_output=True,
                        text=True,
                        timeout=LIMIT,
                        check=False,
                    )
                finally:
                    service.terminate()
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_every_folder_that_it_names_exists(self) -> None:
        tree = README.split("## What is where")[1].split("```")[1].removeprefix("text")
        parent = ""
        for line in filter(str.strip, tree.splitlines()):
            inside = line.startswith(" ")
            for name in line.strip().split("  ")[0].split(", "):
                parent = parent if inside else name
                path = ROOT / parent / name if inside else ROOT / name
                with self.subTest(str(path.relative_to(ROOT))):
                    self.assertTrue(path.exists())


if __name__ == "__main__":
    unittest.main()
