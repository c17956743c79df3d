"""`scripts/run --host`: the service on this machine, as an ordinary process with its files under build/host."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import time
from pathlib import Path

from scripts.lib import addresses, check, https, ports
from scripts.lib.steps import DYING_WITH_US, Failure, run, say, step, write_atomically
from scripts.lib.target import Target

START_LIMIT = 20.0  # s
STOP_LIMIT = 15.0  # s; the service itself drains for up to 10
DEBUG_MEMORY = 24 * 1024  # KiB; this is not the binary that a device gets

CONFIGURATION = """\
# Written by scripts/run --host.
[server]
runtime_dir = {runtime}
state_dir = {state}

[http]
address = "{address}"
port = {clear_port}

[https]
address = "{address}"
port = {port}

[tls]
directory = {tls}

[auth]
provisioned_users = {users}

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

    def __init__(self, binary: Path, configuration: Path, port: int, output: Path) -> None:
        self._argv = [*DYING_WITH_US, binary, "serve", "--config", configuration]
        self._port = port
        self._output = output
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.stop()
        self._output.touch(0o600)  # the claim code is in it
        with self._output.open("wb") as output:
            # A session of its own: ctrl-C is for us, the service gets one SIGTERM and drains.
            self.process = subprocess.Popen(self._argv, stdin=subprocess.DEVNULL, stdout=output, start_new_session=True)
        deadline = time.monotonic() + START_LIMIT
        while not https.is_healthy(self._port):
            if self.process.poll() is not None:
                status = self.process.returncode
                raise Failure(f"the service ended with status {status} while starting; the reason is above")
            if time.monotonic() > deadline:
                raise Failure(f"the service does not answer on port {self._port} after {START_LIMIT:.0f} s")
            time.sleep(0.1)

    def said(self) -> str:
        """Its standard output since the last start."""
        return self._output.read_text(errors="replace")

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


def serve(root: Path, directory: Path, chosen: dict[str, int], checking: bool, fresh: bool) -> int:
    """Builds with the person's own cargo, runs until ctrl-C, drains. `fresh` forgets what an earlier one learned."""
    found = {forward.name: forward.host for forward in ports.forwards({"ssh": 0} | chosen, any_free=checking)}
    port, clear_port = found["https"], found["http"]
    if not shutil.which("cargo"):
        raise Failure("cargo is not installed; install Rust, or Debian's cargo-web, or leave --host out")
    if run(["cargo", "build", "--bin", "edgeweb"], cwd=root / "service"):
        raise Failure("the service could not be built; the reason is above")
    work = Path(os.environ.get("CARGO_TARGET_DIR", "target"))
    binary = root / "service" / work / "debug" / "edgeweb"

    configuration, state, pages = directory / "edgeweb.toml", directory / "state", directory / "www"
    if fresh or checking:
        shutil.rmtree(state, ignore_errors=True)
    for path, mode in ((pages, 0o755), (directory / "run", 0o755), (state, 0o700)):
        path.mkdir(mode, parents=True, exist_ok=True)
    text = CONFIGURATION.format(
        runtime=json.dumps(str(directory / "run")),
        state=json.dumps(str(state)),
        tls=json.dumps(str(directory / "tls")),
        users=json.dumps(str(directory / "users.toml")),
        overlay=json.dumps(str(pages)),
        journal=json.dumps(str(state / "journal")),
        address=ports.LOOPBACK,
        port=port,
        clear_port=clear_port,
    )
    write_atomically(configuration, text.encode())

    service = HostService(binary, configuration, port, directory / "output")
    try:
        service.start()
        if checking:
            target = Target(
                "the process on this machine",
                port,
                clear_port,
                frozenset({"shell", "start", "config", "console"}),
                shell,
                service.start,
                service.said,
                runtime_dir=str(directory / "run"),
                state_dir=str(state),
                pages=str(pages),
                config=str(configuration),
                command=str(binary),
                memory_limit=DEBUG_MEMORY,
            )
            return check.report(target)
        say("the service answers on this machine")
        addresses.describe(port, clear_port, addresses.claim_code(port, service.said))
        print(f"  config   {os.path.relpath(configuration)}")
        print(f"  stop     ctrl-C here, or: kill {os.getpid()}", flush=True)
        assert service.process
        status = service.process.wait()
        say(f"the service ended by itself with status {status}")
        return 1 if status else 0
    finally:
        service.stop()
