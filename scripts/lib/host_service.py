"""`scripts/run --host`: the service on this machine, as an ordinary process with its files under build/host."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import subprocess
import time
from pathlib import Path

from scripts.lib import check, ports
from scripts.lib.machine import Answer, ask
from scripts.lib.steps import DYING_WITH_US, Failure, run, say, step, write_atomically

START_LIMIT = 20.0  # s
STOP_LIMIT = 15.0  # s; the service itself drains for up to 10

CONFIGURATION = """\
# Written by scripts/run --host.
[server]
runtime_dir = {runtime}

[http]
address = "{address}"
port = {port}

[overlay]
directory = {overlay}

[log]
stderr = "always"

[log.syslog]
enabled = false
"""


class HostService:
    def __init__(self, port: int) -> None:
        self._port = port

    def get(self, path: str) -> Answer:
        return ask(self._port, path)

    def answers(self) -> bool:
        try:
            return self.get("/health").status == 200
        except (OSError, http.client.HTTPException):
            return False


def serve(root: Path, directory: Path, port: int, checking: bool) -> int:
    """Builds with the person's own cargo, runs until ctrl-C, drains."""
    port = ports.take("http", port)
    if not shutil.which("cargo"):
        raise Failure("cargo is not installed; install Rust, or Debian's cargo-web, or leave --host out")
    if run(["cargo", "build", "--bin", "edgeweb"], cwd=root / "service"):
        raise Failure("the service could not be built; the reason is above")
    target = Path(os.environ.get("CARGO_TARGET_DIR", "target"))
    binary = root / "service" / target / "debug" / "edgeweb"

    configuration = directory / "edgeweb.toml"
    (directory / "www").mkdir(parents=True, exist_ok=True)
    (directory / "run").mkdir(exist_ok=True)
    text = CONFIGURATION.format(
        runtime=json.dumps(str(directory / "run")),
        overlay=json.dumps(str(directory / "www")),
        address=ports.LOOPBACK,
        port=port,
    )
    write_atomically(configuration, text.encode())

    service = HostService(port)
    # A session of its own: ctrl-C is for us, the service gets one SIGTERM and drains.
    process = subprocess.Popen(
        [*DYING_WITH_US, binary, "serve", "--config", configuration], stdin=subprocess.DEVNULL, start_new_session=True
    )
    try:
        deadline = time.monotonic() + START_LIMIT
        while not service.answers():
            if process.poll() is not None:
                raise Failure(f"the service ended with status {process.returncode} while starting; the reason is above")
            if time.monotonic() > deadline:
                raise Failure(f"the service does not answer on port {port} after {START_LIMIT:.0f} s")
            time.sleep(0.1)
        if checking:
            return check.report(service)
        say("the service answers on this machine")
        print(f"  page     http://{ports.LOOPBACK}:{port}/")
        print(f"  health   http://{ports.LOOPBACK}:{port}/health")
        print(f"  config   {os.path.relpath(configuration)}")
        print(f"  stop     ctrl-C here, or: kill {os.getpid()}", flush=True)
        status = process.wait()
        say(f"the service ended by itself with status {status}")
        return 1 if status else 0
    finally:
        if process.poll() is None:
            with step("stopping the service"):
                process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(STOP_LIMIT)
                process.kill()
                process.wait()
