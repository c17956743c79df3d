"""`scripts/run --host`: the service on this machine, as an ordinary process with its files under build/host."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import time
from pathlib import Path

from scripts.lib import check, ports
from scripts.lib.machine import is_healthy
from scripts.lib.steps import DYING_WITH_US, Failure, run, say, step, write_atomically
from scripts.lib.target import Target

START_LIMIT = 20.0  # s
STOP_LIMIT = 15.0  # s; the service itself drains for up to 10
DEBUG_MEMORY = 24 * 1024  # KiB; this is not the binary that a device gets

CONFIGURATION = """\
# Written by scripts/run --host.
[server]
runtime_dir = {runtime}

[http]
address = "{address}"
port = {port}

[limits]

[overlay]
directory = {overlay}

[log]
stderr = "always"

[log.syslog]
enabled = false

[log.journal]
directory = {journal}
"""


class HostService:
    """The process, which a check also ends and starts again."""

    def __init__(self, binary: Path, configuration: Path, port: int) -> None:
        self._argv = [*DYING_WITH_US, binary, "serve", "--config", configuration]
        self._port = port
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.stop()
        # A session of its own: ctrl-C is for us, the service gets one SIGTERM and drains.
        self.process = subprocess.Popen(self._argv, stdin=subprocess.DEVNULL, start_new_session=True)
        deadline = time.monotonic() + START_LIMIT
        while not is_healthy(self._port):
            if self.process.poll() is not None:
                status = self.process.returncode
                raise Failure(f"the service ended with status {status} while starting; the reason is above")
            if time.monotonic() > deadline:
                raise Failure(f"the service does not answer on port {self._port} after {START_LIMIT:.0f} s")
            time.sleep(0.1)

    def stop(self) -> None:
        if self.process and self.process.poll() is None:
            with step("stopping the service"):
                self.process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.process.wait(STOP_LIMIT)
                self.process.kill()
                self.process.wait()


def shell(command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "-c", command], capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL, check=False
    )


def serve(root: Path, directory: Path, port: int, checking: bool) -> int:
    """Builds with the person's own cargo, runs until ctrl-C, drains."""
    port = ports.take("http", port)
    if not shutil.which("cargo"):
        raise Failure("cargo is not installed; install Rust, or Debian's cargo-web, or leave --host out")
    if run(["cargo", "build", "--bin", "edgeweb"], cwd=root / "service"):
        raise Failure("the service could not be built; the reason is above")
    work = Path(os.environ.get("CARGO_TARGET_DIR", "target"))
    binary = root / "service" / work / "debug" / "edgeweb"

    configuration = directory / "edgeweb.toml"
    (directory / "www").mkdir(parents=True, exist_ok=True)
    (directory / "run").mkdir(exist_ok=True)
    text = CONFIGURATION.format(
        runtime=json.dumps(str(directory / "run")),
        overlay=json.dumps(str(directory / "www")),
        journal=json.dumps(str(directory / "journal")),
        address=ports.LOOPBACK,
        port=port,
    )
    write_atomically(configuration, text.encode())

    service = HostService(binary, configuration, port)
    try:
        service.start()
        if checking:
            target = Target(
                "the process on this machine",
                port,
                frozenset({"shell", "start", "config"}),
                shell,
                service.start,
                runtime_dir=str(directory / "run"),
                state_dir=str(directory),
                pages=str(directory / "www"),
                config=str(configuration),
                command=str(binary),
                memory_limit=DEBUG_MEMORY,
            )
            return check.report(target)
        say("the service answers on this machine")
        print(f"  page     http://{ports.LOOPBACK}:{port}/")
        print(f"  health   http://{ports.LOOPBACK}:{port}/health")
        print(f"  config   {os.path.relpath(configuration)}")
        print(f"  stop     ctrl-C here, or: kill {os.getpid()}", flush=True)
        assert service.process
        status = service.process.wait()
        say(f"the service ended by itself with status {status}")
        return 1 if status else 0
    finally:
        service.stop()
