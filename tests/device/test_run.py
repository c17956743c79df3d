"""`scripts/run`, as a person types it: the check, the ways to stop it, and everything that can be wrong.

python3 -m unittest -v tests.device.test_run
"""

from __future__ import annotations

import contextlib
import gzip
import http.server
import io
import os
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import threading
import unittest
from pathlib import Path

from scripts.lib import armroot, check, debian_armhf, ssh_keys
from scripts.lib.machine import Machine, Setup
from scripts.lib.run import CACHE
from scripts.lib.steps import Failure, require_space
from scripts.lib.target import Target
from tests.device.support import BINARY, LONG, ROOT, build_binary, machines_in
from tests.waiting import until

RUN = ROOT / "scripts" / "run"


def setUpModule() -> None:
    build_binary()


def run(*arguments: str | Path, timeout: float = LONG) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [RUN, *arguments], capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL, check=False
    )


class TheCommand(unittest.TestCase):
    def setUp(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="edgeweb-run-"))
        self.addCleanup(shutil.rmtree, self.directory)

    def fails(self, result: subprocess.CompletedProcess[str], status: int, *pieces: str) -> None:
        self.assertEqual(result.returncode, status, result.stderr)
        self.assertEqual(len(result.stderr.strip().splitlines()), 1, result.stderr)
        for piece in pieces:
            self.assertIn(piece, result.stderr)

    def started(self, *arguments: str) -> subprocess.Popen[str]:
        argv = [RUN, "--binary", BINARY, "--directory", self.directory, "--port", "0", *arguments]
        process = subprocess.Popen(
            argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
        )
        self.addCleanup(self.end, process)
        return process

    @staticmethod
    def end(process: subprocess.Popen[str]) -> None:
        process.kill()
        process.wait()
        assert process.stdout
        process.stdout.close()

    def test_check_does_not_take_another_server_for_the_service(self) -> None:
        class Quiet(http.server.SimpleHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                pass

        class Server(http.server.ThreadingHTTPServer):
            def handle_error(self, *_: object) -> None:
                pass

        certificate = self.directory / "other.pem"
        command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=other"
        files = ["-keyout", certificate, "-out", certificate]
        subprocess.run([*command.split(), *files], check=True, capture_output=True)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        with Server(("127.0.0.1", 0), Quiet) as other:
            other.socket = context.wrap_socket(other.socket, server_side=True)
            threading.Thread(target=other.serve_forever, daemon=True).start()
            said = io.StringIO()
            port = other.server_address[1]
            with contextlib.redirect_stdout(said):
                status = check.report(Target("another server", port, port, frozenset()))
            other.shutdown()
        self.assertEqual(status, 1)
        self.assertIn("test_health (tests.blackbox.test_http.Health.test_health) ... FAIL", said.getvalue())
        self.assertIn("skipped 'another server lacks shell: ", said.getvalue())

    def test_check_fails_when_the_service_does_not_start(self) -> None:
        broken = self.directory / "broken"
        broken.write_text("#!/bin/sh\nexit 1\n")
        result = run("--check", "--binary", broken, "--directory", self.directory, "--timeout", "20")
        self.assertEqual(result.returncode, 1)
        self.assertIn("does not answer on port", result.stderr)
        self.assertEqual(machines_in(self.directory), [])

    def test_boots_an_image_and_leaves_it_as_it_is(self) -> None:
        image = self.directory / "small.cpio.gz"
        root = self.directory / "root"
        armroot.write_root(root, debian_armhf.fetch(CACHE), BINARY, *ssh_keys.make_keys(self.directory))
        image.write_bytes(gzip.compress(root.read_bytes(), 1))
        before = image.read_bytes()
        result = run("--check", "--image", image, "--directory", self.directory / "machine")
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        # By its console: the image does not know the key for ssh.
        self.assertRegex(result.stdout, r"features: .*\bshell\b.*\bsysvinit\b")
        self.assertEqual(machines_in(self.directory), [])
        self.assertEqual(image.read_bytes(), before)

    def test_a_taken_port_is_named(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as other:
            port = other.getsockname()[1]
            result = run("--binary", BINARY, "--directory", self.directory, "--port", "0", "--port", str(port))
        self.fails(result, 1, f"port {port} on 127.0.0.1 is taken", f"pid {os.getpid()}", "--port https=")

    def test_no_such_image(self) -> None:
        missing = self.directory / "missing.ext4"
        self.fails(run("--image", missing), 1, f"no such image: {missing}")

    def test_something_that_is_no_image(self) -> None:
        self.fails(run("--image", RUN), 1, "is no image that can be booted")

    def test_wrong_usage(self) -> None:
        self.fails(run("--port", "99999"), 2, "--port 99999")
        self.fails(run("--bogus"), 2, "--bogus", "--help")

    def test_no_qemu_on_the_path(self) -> None:
        machine = Machine(Setup(self.directory, BINARY, BINARY, ()))
        path = os.environ["PATH"]
        self.addCleanup(os.environ.__setitem__, "PATH", path)
        os.environ["PATH"] = str(self.directory)
        with self.assertRaisesRegex(Exception, "qemu-system-arm is not installed"):
            machine.start()

    def test_no_room_on_the_disk(self) -> None:
        with self.assertRaisesRegex(Failure, r"not enough disk space in .*: \d+ MiB needed, \d+ MiB free"):
            require_space(self.directory, 1 << 60, "for this test")

    def stops_on(self, number: signal.Signals) -> None:
        process = self.started()
        assert process.stdout
        for line in process.stdout:
            if line.startswith("  stop"):
                break
        (machine,) = machines_in(self.directory)
        os.kill(process.pid, number)
        self.assertEqual(process.wait(60), 128 + number)
        self.assertEqual(machines_in(self.directory), [], f"QEMU {machine} is left behind")
        self.assertEqual([path.name for path in self.directory.iterdir() if path.name.endswith(".new")], [])

    def test_ctrl_c_leaves_no_process(self) -> None:
        self.stops_on(signal.SIGINT)

    def test_sigterm_while_booting_leaves_no_process(self) -> None:
        process = self.started()
        until(lambda: machines_in(self.directory), "a QEMU that boots")
        process.terminate()
        self.assertEqual(process.wait(60), 128 + signal.SIGTERM)
        self.assertEqual(machines_in(self.directory), [])

    def test_being_killed_leaves_no_process(self) -> None:
        process = self.started()
        until(lambda: machines_in(self.directory), "a QEMU that boots")
        process.kill()
        process.wait()
        until(lambda: not machines_in(self.directory), "the end of QEMU with its parent")

    def test_two_machines_do_not_share_a_disk(self) -> None:
        self.started()
        until(lambda: machines_in(self.directory), "a QEMU that boots")
        second = run("--binary", BINARY, "--directory", self.directory, "--port", "0")
        self.fails(second, 1, "another scripts/run works in", "pid")


if __name__ == "__main__":
    unittest.main()
