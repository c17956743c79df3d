"""The keys with which one gets into the machine, made once: no passwords, and the machine's identity stays the same."""

from __future__ import annotations

import base64
import struct
from pathlib import Path

from scripts.lib.steps import Failure, capture, write_atomically

HOST_ALIAS = "edgeweb-qemu"  # stands in known_hosts for the machine, whichever port it is reached on
_MAGIC = b"openssh-key-v1\0"
_ED25519 = b"ssh-ed25519"


def make_keys(directory: Path) -> tuple[str, bytes]:
    """The person's public key for authorized_keys, and the machine's private key in dropbear's form."""
    directory.mkdir(parents=True, exist_ok=True)
    for name in ("id_ed25519", "host_ed25519"):
        private, public = directory / name, directory / f"{name}.pub"
        if not (private.exists() and public.exists()):
            private.unlink(missing_ok=True)
            capture(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", HOST_ALIAS, "-f", private])
    host_public = (directory / "host_ed25519.pub").read_text()
    write_atomically(directory / "known_hosts", f"{HOST_ALIAS} {host_public}".encode())
    return (directory / "id_ed25519.pub").read_text(), dropbear_key((directory / "host_ed25519").read_text())


def write_ssh_config(directory: Path, port: int, known_host_key: bool = True) -> Path:
    """`ssh -F FILE edgeweb-qemu` reaches the machine without touching the person's own ssh files."""
    path = directory / "ssh_config"
    known_hosts = directory.resolve() / "known_hosts" if known_host_key else Path("/dev/null")
    lines = [
        f"Host {HOST_ALIAS}",
        "  HostName 127.0.0.1",
        f"  Port {port}",
        "  User root",
        f"  HostKeyAlias {HOST_ALIAS}",
        f'  IdentityFile "{directory.resolve() / "id_ed25519"}"',
        f'  UserKnownHostsFile "{known_hosts}"',
        "  IdentitiesOnly yes",
        "  BatchMode yes",
        # An image makes its key at its first boot; the way to it never leaves this machine.
        f"  StrictHostKeyChecking {'yes' if known_host_key else 'no'}",
        "  ConnectTimeout 10",
        "  LogLevel ERROR",
    ]
    write_atomically(path, ("\n".join(lines) + "\n").encode())
    return path


def dropbear_key(pem: str) -> bytes:
    """dropbear reads no OpenSSH file, and its converter is an ARM program; for ed25519 the two forms are close."""
    body = "".join(line for line in pem.splitlines() if not line.startswith("-----"))
    blob = base64.b64decode(body)
    if not blob.startswith(_MAGIC):
        raise Failure("the machine's ssh host key is damaged; remove host_ed25519* beside its disk and run this again")
    rest = blob[len(_MAGIC) :]
    # Cipher, key derivation and its options, the number of keys, the public key: then the private part, not encrypted.
    for _ in range(3):
        _, rest = _string(rest)
    _, rest = _string(rest[4:])
    private, _ = _string(rest)
    kind, rest = _string(private[8:])  # after a check number that stands there twice
    if kind != _ED25519:
        raise Failure(
            "the machine's ssh host key is not ed25519; remove host_ed25519* beside its disk and run this again"
        )
    _, rest = _string(rest)
    secret, _ = _string(rest)  # 32 bytes of seed, 32 bytes of public key: as dropbear wants them
    return struct.pack(">I", len(_ED25519)) + _ED25519 + struct.pack(">I", len(secret)) + secret


def _string(data: bytes) -> tuple[bytes, bytes]:
    (length,) = struct.unpack_from(">I", data)
    return data[4 : 4 + length], data[4 + length :]
