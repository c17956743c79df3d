"""Every command in the README, typed as it stands there, unless it says that it needs the open network."""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import unittest
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
LIMIT = 900  # s for one command

# These run until they are stopped.
ENDLESS = ("scripts/run", "scripts/run --host")
# This one wants the machine of `scripts/run`.
WANTS_THE_MACHINE = "scripts/deploy --qemu"
# What runs this test.
ITSELF = "scripts/test"


def commands() -> list[str]:
    """The commands of the README's shell blocks that need no more than a machine like this one."""
    blocks = re.findall(r"^```sh\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line.strip()]
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
