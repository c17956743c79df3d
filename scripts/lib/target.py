"""What the black-box suite looks at: a running service, wherever it runs, and what can be done there."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass

# What a target may have. A test that needs what this one lacks is skipped, and says so in these words.
FEATURES = {
    "shell": "commands can be run beside the service",
    "start": "the service can be started again after its end",
    "config": "the configuration file can be written",
    "console": "what the service shows to who stands before it can be read",
    "own-user": "the service runs as the user edgeweb, with directories of its own",
    "syslog": "the system's log takes the service's lines",
    "sysvinit": "/etc/init.d/edgeweb starts and stops the service",
    "monitor": "/etc/init.d/edgeweb monitor restarts an ailing service",
    "systemd": "systemd starts, watches and confines the service",
    "systemd-analyze": "systemd's own judgement of a unit can be had",
}

Shell = Callable[[str], "subprocess.CompletedProcess[str]"]


@dataclass(frozen=True)
class Target:
    """The service behind two loopback ports of this machine."""

    name: str
    port: int  # HTTPS
    clear_port: int  # HTTP
    features: frozenset[str]
    shell: Shell | None = None
    start: Callable[[], object] | None = None
    said: Callable[[], str] | None = None  # what stood on the console, or wherever its standard output goes
    runtime_dir: str = "/run/edgeweb"
    state_dir: str = "/var/lib/edgeweb"
    pages: str = "/var/lib/edgeweb/www"  # the overlay's directory
    config: str = "/etc/edgeweb/edgeweb.toml"
    command: str = "/usr/bin/edgeweb"
    # KiB of resident memory, busy as it may have been; 3 to 4 MiB of it are the program itself, read from its file.
    memory_limit: int = 10 * 1024


def on_a_device(name: str, ports: Mapping[str, int], shell: Shell | None, console: Callable[[], str]) -> Target:
    """A device with the layer's package, as root's shell there finds it; without a shell there is only its ports."""
    if shell is None:
        return Target(name, ports["https"], ports["http"], frozenset())
    features = {"shell", "own-user", "console"}

    def has(test: str) -> bool:
        return shell(test).returncode == 0

    if has("test -d /run/systemd/system"):
        features |= {"systemd", "syslog", "start"}
        start = "systemctl reset-failed edgeweb; systemctl start edgeweb"
        if has("command -v systemd-analyze"):
            features.add("systemd-analyze")
    else:
        features |= {"sysvinit", "start"}
        start = "/etc/init.d/edgeweb start"
        if has("test -S /dev/log"):
            features.add("syslog")
        if has("/etc/init.d/edgeweb --help | grep -q monitor"):
            features.add("monitor")
    if has("test -w /etc/edgeweb/edgeweb.toml"):
        features.add("config")
    return Target(name, ports["https"], ports["http"], frozenset(features), shell, lambda: shell(start), console)
