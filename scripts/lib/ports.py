"""Which ports of this machine lead into the ARM machine."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from scripts.lib.steps import Failure

LOOPBACK = "127.0.0.1"
# name: (default here, port in the machine)
SERVICES = {"https": (8443, 8443), "http": (8080, 8080), "ssh": (2222, 22)}


@dataclass(frozen=True)
class Forward:
    """One loopback port here that leads to one port there."""

    name: str
    host: int
    guest: int


def parse(choices: Iterable[str]) -> dict[str, int]:
    """
    `8443` and `https=8443` choose where https is found here, `http=8080` http, `ssh=2222` ssh. 0 is any free port;
    without a name it is that for all that are not named.
    """
    chosen: dict[str, int] = {}
    for choice in choices:
        match = re.fullmatch(r"(?:([a-z]+)=)?(\d{1,5})", choice)
        name = match[1] or "https" if match else ""
        if not match or name not in SERVICES or int(match[2]) > 65535:
            known = ", ".join(f"{name}=PORT" for name in SERVICES)
            raise Failure(f"--port {choice}: give a port from 0 to 65535, or one of {known}", status=2)
        if not match[1] and int(match[2]) == 0:
            chosen = dict.fromkeys(SERVICES, 0) | chosen
        else:
            chosen[name] = int(match[2])
    return chosen


def forwards(chosen: dict[str, int], any_free: bool = False) -> tuple[Forward, ...]:
    """The ports to use, each known to be free now; `any_free` is for those that nobody chose."""
    result: list[Forward] = []
    for name, (default, guest) in SERVICES.items():
        wanted = chosen.get(name, 0 if any_free else default)
        result.append(Forward(name, take(name, wanted), guest))
    for number, forward in enumerate(result):
        for other in result[:number]:
            if other.host == forward.host:
                names = f"{other.name} and for {forward.name}"
                raise Failure(f"port {forward.host} was chosen for {names}; choose two", status=2)
    return tuple(result)


def take(name: str, port: int) -> int:
    """The port if nobody listens there, or a free one for 0."""
    with socket.socket() as probe:
        # As QEMU does: connections of a machine that was just stopped do not keep its port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
            probe.listen(1)
        except PermissionError:
            raise Failure(f"port {port} is for root only; choose another with --port {name}=PORT") from None
        except OSError:
            raise Failure(
                f"port {port} on {LOOPBACK} is taken{_holder(port)}; "
                f"choose another with --port {name}=PORT, or any free one with --port {name}=0"
            ) from None
        return probe.getsockname()[1]


def _holder(port: int) -> str:
    """Who listens there, as a piece of a sentence, where /proc lets us see it."""
    inodes: set[str] = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue
        for fields in map(str.split, lines):
            if fields[3] == "0A" and int(fields[1].rsplit(":", 1)[1], 16) == port:  # 0A: listening
                inodes.add(f"socket:[{fields[9]}]")
    for descriptors in Path("/proc").glob("[0-9]*/fd"):
        try:
            if any(os.readlink(entry.path) in inodes for entry in os.scandir(descriptors)):
                return f" by {(descriptors.parent / 'comm').read_text().strip()} (pid {descriptors.parent.name})"
        except OSError:
            continue
    return ""
