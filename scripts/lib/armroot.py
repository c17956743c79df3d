"""Puts a machine's root file system together: BusyBox, dropbear, what the layer ships, the service."""

from __future__ import annotations

import hashlib
from pathlib import Path

from scripts.lib import ext4, service_files
from scripts.lib.debian_armhf import Parts
from scripts.lib.newc import Archive
from scripts.lib.steps import MIB, require_space, say, step, write_atomically

LIB = Path(__file__).resolve().parent
STATE_DISK_SIZE = 64 * MIB
SERVICES = {"S10syslog": "syslog", "S30dropbear": "dropbear", "S80edgeweb": "edgeweb"}
LIBRARY_DIRECTORIES = ("lib/arm-linux-gnueabihf", "usr/lib/arm-linux-gnueabihf")


def write_root(path: Path, parts: Parts, binary: Path, authorized_key: str, host_key: bytes) -> None:
    """The root as an initramfs; left alone when nothing that goes into it has changed."""
    root = Archive()
    for directory in ("proc", "sys", "dev", "run", "tmp", "sbin", "usr/sbin", "mnt", "var/lib/edgeweb"):
        root.directory(directory)
    root.directory("var/log")
    root.link("var/run", "/run")
    root.directory("root", 0o700)
    _add_console(root)
    _add_programs(root, parts)
    _add_modules(root, parts, "lib/modules", "etc/modules")
    _add_tree(root, LIB / "root")
    for link, service in SERVICES.items():
        root.link(f"etc/rc.d/{link}", f"../init.d/{service}")
    root.directory("etc/dropbear", 0o700)
    root.file("etc/dropbear/dropbear_ed25519_host_key", host_key, 0o600)
    root.directory("root/.ssh", 0o700)
    root.file("root/.ssh/authorized_keys", authorized_key.encode(), 0o600)
    # The very files that the layer ships: what is tried here is what a device gets.
    values = service_files.settings(systemd=False)
    root.file("etc/init.d/edgeweb", service_files.render("service.init.in", values).encode(), 0o755)
    root.copy("etc/edgeweb/edgeweb.toml", service_files.CONFIGURATION, 0o644)
    root.copy("usr/bin/edgeweb", binary, 0o755)
    _write_if_changed(path, root.bytes(), "root file system")


def write_image_loader(path: Path, parts: Parts, image: Path | None) -> None:
    """The initramfs that starts somebody's image: drivers, a first program, and the image if it is one itself."""
    loader = Archive()
    _add_console(loader)
    loader.copy("edgeweb/busybox", parts.root / "bin/busybox", 0o755)
    _add_modules(loader, parts, "edgeweb/modules", "edgeweb/modules.order")
    loader.copy("edgeweb/init", LIB / "image-init", 0o755)
    if image is None:
        # switch_root deletes what surrounds it, and first wants to see by this file that it is an initramfs.
        loader.copy("init", LIB / "image-init", 0o755)
    data = loader.bytes()
    if image is not None:
        # The kernel unpacks one archive after another; each must begin at a multiple of 4.
        data += b"\0" * (-len(data) % 512) + image.read_bytes()
    _write_if_changed(path, data, "image loader")


def make_state_disk(path: Path, fresh: bool) -> None:
    """The disk that outlives the machine. `fresh` throws away what an earlier machine left on it."""
    if path.exists() and not fresh:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    require_space(path.parent, STATE_DISK_SIZE, "for the state disk")
    with step(f"making a state disk of {STATE_DISK_SIZE // MIB} MiB"):
        ext4.make(path, STATE_DISK_SIZE, "edgeweb-state")


def _add_console(archive: Archive) -> None:
    """The kernel opens /dev/console before anything of ours can mount /dev."""
    archive.directory("dev")
    archive.character_device("dev/console", 5, 1, 0o600)
    archive.character_device("dev/null", 1, 3, 0o666)


def _add_programs(archive: Archive, parts: Parts) -> None:
    archive.copy("bin/busybox", parts.root / "bin/busybox", 0o755)
    for name in ("bin/sh", "sbin/init", "init"):
        archive.link(name, "/bin/busybox")
    archive.copy("usr/sbin/dropbear", parts.root / "usr/sbin/dropbear", 0o755)
    archive.link("lib/ld-linux-armhf.so.3", "arm-linux-gnueabihf/ld-linux-armhf.so.3")
    for directory in LIBRARY_DIRECTORIES:
        for path in sorted((parts.root / directory).glob("*.so*")):
            if path.is_symlink():
                archive.link(f"{directory}/{path.name}", str(path.readlink()))
            else:
                archive.copy(f"{directory}/{path.name}", path, 0o755)


def _add_modules(archive: Archive, parts: Parts, directory: str, order: str) -> None:
    for name in parts.modules:
        archive.copy(f"{directory}/{name}", parts.module(name))
    archive.file(order, "".join(f"{name}\n" for name in parts.modules).encode())


def _add_tree(archive: Archive, source: Path) -> None:
    for path in sorted(source.rglob("*")):
        if path.is_file():
            archive.copy(str(path.relative_to(source)), path, 0o600 if path.name == "shadow" else None)


def _write_if_changed(path: Path, data: bytes, what: str) -> None:
    digest = hashlib.sha256(data).digest()
    if path.exists():
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").digest() == digest:
                say(f"{what}: unchanged")
                return
    require_space(path.parent, len(data), f"for the {what}")
    write_atomically(path, data)
    say(f"{what}: {len(data) / MIB:.1f} MiB")
