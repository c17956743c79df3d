# SPDX-License-Identifier: MIT
"""scripts/build-image and scripts/test-layer up to the point where kas takes over, and what follows it.

kas itself is a stand-in here, because the real one wants the layers from the network: scripts/test-layer has it.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
import unittest
from pathlib import Path
from unittest import mock

from scripts.lib import bitbake, test_layer
from scripts.lib.layer import LAYER
from scripts.lib.steps import Failure

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 60  # s for a command that does next to nothing

KAS = """\
#!/bin/bash
echo "$KAS_BUILD_DIR $*" >>"$LOG"
echo "2026-01-01 00:00:00 - INFO     - NOTE: Running task 1 of 2 (/x/edgeweb_0.1.0.bb:do_compile)"
echo "2026-01-01 00:00:00 - INFO     - NOTE: recipe edgeweb-0.1.0-r0: task do_compile: Started"
echo "2026-01-01 00:00:00 - INFO     - WARNING: something to know"
echo "2026-01-01 00:00:00 - INFO     - NOTE: Running task 2 of 2 (/x/edgeweb-image.bb:do_rootfs)"
for machine in qemuarm beaglebone-yocto; do
  deploy=$KAS_BUILD_DIR/tmp/deploy/images/$machine
  mkdir -p "$deploy"
  echo disk >"$deploy/with-a-date.ext4"
  ln -sf with-a-date.ext4 "$deploy/edgeweb-image-$machine.rootfs.ext4"
done
if [[ -n ${SERVER:-} ]]; then
  # BitBake's server: in a session of its own, known by its lock.
  setsid bash -c 'exec -a bitbake-server sleep 600' &
  server=$!
  # Until then it is a shell that is about to become it.
  until grep -q bitbake-server "/proc/$server/cmdline"; do sleep 0.1; done
  echo "$server" >"$KAS_BUILD_DIR/bitbake.lock"
  trap 'exit 130' INT
  echo "the server runs"
  while :; do sleep 0.1; done
fi
exit "${STATUS:-0}"
"""


class CommandTest(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.place = Path(folder.name)
        self.programs = self.place / "bin"
        self.programs.mkdir()
        self.work = self.place / "work"
        # What has begun wants no 90 GB of this machine.
        (self.work / "build" / "tmp").mkdir(parents=True)
        self.program("kas", KAS)
        self.program("locale", "#!/bin/sh\necho C\necho en_US.utf8\n")

    def program(self, name: str, text: str) -> None:
        path = self.programs / name
        path.write_text(text)
        path.chmod(0o755)

    def environment(self, **more: str) -> dict[str, str]:
        return {
            "PATH": f"{self.programs}:/usr/bin:/bin",
            "PYTHONPATH": str(ROOT),
            "KAS_WORK_DIR": str(self.work),
            "LOG": str(self.place / "log"),
            **more,
        }

    def start(self, *words: str, **more: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "scripts.lib.build_image", *words],
            env=self.environment(**more),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def call(self, *words: str, **more: str) -> tuple[int, str]:
        with self.start(*words, **more) as process:
            said, _ = process.communicate(timeout=LIMIT)
        return process.returncode, said

    def refused(self, status: int, line: str, *words: str, **more: str) -> None:
        self.assertEqual(self.call(*words, **more), (status, f"build-image: {line}\n"))
        self.assertFalse((self.place / "log").exists(), "kas was called all the same")

    def called(self) -> str:
        return (self.place / "log").read_text()

    def test_a_build(self) -> None:
        status, said = self.call("musl", "size")
        self.assertEqual(status, 0, said)
        build = self.work / "build"
        self.assertEqual(self.called(), f"{build} build kas.yml:conf/kas/musl.yml:conf/kas/size.yml --\n")
        image = os.path.relpath(build / "tmp/deploy/images/qemuarm/edgeweb-image-qemuarm.rootfs.ext4")
        self.assertIn(f"==> boot it: scripts/run --image {image}\n", said)
        # What BitBake says is seen; that a task began is not, but for the last.
        self.assertIn("\nWARNING: something to know\n", said)
        self.assertIn("\n==> task 2 of 2 (edgeweb-image.bb:do_rootfs), 0 min\n", said)
        self.assertNotIn("task 1 of 2", said)
        self.assertNotIn("Started", said)

    def test_target_and_options_are_passed_on(self) -> None:
        status, said = self.call("--target", "edgeweb", "sysvinit", "--", "-n", "--quiet")
        self.assertEqual(status, 0, said)
        self.assertTrue(
            self.called().endswith(" build --target edgeweb kas.yml:conf/kas/sysvinit.yml -- -n --quiet\n"),
            self.called(),
        )
        self.assertNotIn("boot it", said)

    def test_fast_is_the_fragment(self) -> None:
        self.assertEqual(self.call("--fast")[0], 0)
        self.assertIn(" build kas.yml:conf/kas/host-toolchain.yml --\n", self.called())

    def test_a_board_is_not_booted_here(self) -> None:
        status, said = self.call("beaglebone")
        self.assertEqual(status, 0, said)
        self.assertIn("/edgeweb-image-beaglebone-yocto.rootfs.ext4  (", said)
        self.assertNotIn("boot it", said)

    def test_failed(self) -> None:
        status, said = self.call(STATUS="1")
        self.assertEqual(status, 1)
        self.assertRegex(said.splitlines()[-1], r"^build-image: not built; the reason is above, BitBake's logs are in ")

    def test_wrong_words(self) -> None:
        known = ", ".join(sorted(path.stem for path in (ROOT / "conf" / "kas").glob("*.yml")))
        self.refused(2, f"there is no fragment risc in conf/kas; there are {known}", "risc")
        self.refused(2, "musl and host-toolchain both decide edgeweb-libc; leave one of them out", "musl", "--fast")
        self.refused(2, "unrecognized arguments: --quick; see scripts/build-image --help", "--quick")

    def test_no_locale(self) -> None:
        self.program("locale", "#!/bin/sh\necho C\necho C.utf8\n")
        self.refused(
            1,
            "the locale en_US.UTF-8, which BitBake needs, is missing; type: "
            "sudo sed -i 's/^# *en_US.UTF-8/en_US.UTF-8/' /etc/locale.gen && sudo locale-gen",
        )

    def test_no_directory(self) -> None:
        status, said = self.call(KAS_WORK_DIR="/proc/nowhere")
        self.assertEqual(status, 1)
        self.assertRegex(
            said, r"^build-image: cannot make /proc/nowhere \(.*\); set KAS_WORK_DIR to a folder of yours\n$"
        )

    def test_ctrl_c_ends_the_server_as_well(self) -> None:
        with self.start(SERVER="yes") as process:
            self.addCleanup(process.kill)
            assert process.stdout is not None
            said = ""
            for line in process.stdout:
                said += line
                if "the server runs" in line:
                    break
            server = int((self.work / "build" / "bitbake.lock").read_text())
            self.addCleanup(lambda: self.alive(server) and os.kill(server, signal.SIGKILL))
            process.send_signal(signal.SIGINT)
            said += process.communicate(timeout=LIMIT)[0]
        self.assertEqual(process.returncode, 130, said)
        self.assertTrue(said.endswith("build-image: stopped by SIGINT\n"), said)
        self.assertFalse(self.alive(server), "the server was left running")

    @staticmethod
    def alive(pid: int) -> bool:
        try:
            return b"bitbake-server" in Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            return False


class RootTest(unittest.TestCase):
    def test_root(self) -> None:
        as_root = [] if os.geteuid() == 0 else ["unshare", "--map-root-user"]
        for script in ("build-image", "test-layer"):
            done = subprocess.run(
                [*as_root, ROOT / "scripts" / script],
                capture_output=True,
                text=True,
                timeout=LIMIT,
                check=False,
            )
            self.assertEqual(
                (done.returncode, done.stdout, done.stderr),
                (
                    1,
                    "",
                    f"{script}: BitBake refuses to run as root; "
                    "do this as an ordinary user who may write to this tree\n",
                ),
            )


class HelpTest(unittest.TestCase):
    def help(self, script: str) -> str:
        done = subprocess.run([ROOT / "scripts" / script, "--help"], capture_output=True, text=True, check=False)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return done.stdout

    def test_build_image_names_every_fragment(self) -> None:
        named = set(re.findall(r"^  ([\w-]+) +\S", self.help("build-image").split("\nfragments:\n")[1], re.MULTILINE))
        self.assertLessEqual(set(bitbake.fragments()), named)

    def test_test_layer_names_every_step(self) -> None:
        named = re.findall(r"^  ([\w-]+) +\S.* \(\d+(?: each)?\)$", self.help("test-layer"), re.MULTILINE)
        self.assertEqual(named, list(test_layer.STEPS))


class PackagesTest(unittest.TestCase):
    def test_the_list_of_the_fast_route(self) -> None:
        """What conf/host-toolchain/README.md tells people to install is what the scripts ask for."""
        text = (ROOT / "conf" / "host-toolchain" / "README.md").read_text()
        listed = re.search(r"^    apt-get install ((?:.*\\\n)*.*)\n", text, re.MULTILINE)
        assert listed is not None
        told = set(listed[1].replace("\\\n", " ").split())
        script = (
            "root=$1; source scripts/lib/bitbake_host.sh;"
            'echo "${bitbake_packages[@]}"; echo "${host_toolchain_packages[@]}"'
        )
        done = subprocess.run(
            ["bash", "-euc", script, "test", ROOT], cwd=ROOT, capture_output=True, text=True, check=True
        )
        both, fast = (set(line.split()) for line in done.stdout.splitlines())
        self.assertEqual(told - both, fast - both)


class MachineTest(unittest.TestCase):
    def test_disk(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            kas = bitbake.Kas(Path(folder), Path(folder) / "build", Path("kas"))
            with self.assertRaisesRegex(
                Failure, r"^not enough disk space in .* to build: \d+ MiB needed, \d+ MiB free; "
            ):
                kas.require_directories(10**18)
            # A build that was begun has most of it already.
            (kas.build / "tmp").mkdir()
            kas.require_directories(10**18)

    def test_kas_is_installed_where_there_is_none(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder) / "kas-venv"
            with (
                mock.patch.object(bitbake, "KAS_ENVIRONMENT", place),
                mock.patch.dict(os.environ, PATH="/usr/bin:/bin"),
            ):
                kas = bitbake.require_kas()
                self.assertEqual(kas, place / "bin" / "kas")
                began = time.monotonic()
                self.assertEqual(bitbake.require_kas(), kas)
                self.assertLess(time.monotonic() - began, 1, "installed again")
            done = subprocess.run([kas, "--version"], capture_output=True, text=True, check=True)
            self.assertIn(f"{bitbake.tested_kas().replace('==', ' ')} ", done.stdout)


class CratesTest(unittest.TestCase):
    def test_of_the_recipe(self) -> None:
        recipe = next((LAYER / "recipes-edgeweb" / "edgeweb").glob("edgeweb_*.bb")).read_text()
        lock = tomllib.loads((ROOT / "service" / "Cargo.lock").read_text())
        packages = [package for package in lock["package"] if "source" in package]
        names, sums = test_layer.crates(recipe)
        self.assertEqual(names, {f"crate://crates.io/{package['name']}/{package['version']}" for package in packages})
        self.assertEqual(sums, {f"{package['name']}-{package['version']}": package["checksum"] for package in packages})


class PremirrorTest(unittest.TestCase):
    def test_as_kas_does(self) -> None:
        lines = "https://git.example.com/a file:///copies/a\nhttps://(.*)/b.* file:///copies/\\1/b"
        with mock.patch.dict(os.environ, KAS_PREMIRRORS=lines):
            self.assertEqual(test_layer.premirrored("https://git.example.com/a"), "file:///copies/a")
            self.assertEqual(
                test_layer.premirrored("https://git.example.com/b.git"), "file:///copies/git.example.com/b"
            )
            self.assertEqual(test_layer.premirrored("https://git.example.com/c"), "https://git.example.com/c")


if __name__ == "__main__":
    unittest.main()
