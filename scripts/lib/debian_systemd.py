"""A disk with Debian's systemd for armhf, the layer's unit and the service.

Poky's systemd takes hours to build; this one takes seconds to fetch, and shows how the unit fares under a real systemd
on ARM. The packages are unpacked, not configured: nothing of ARM runs here, so neither root nor binfmt is needed.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path

from scripts.lib import debian_armhf, ext4, service_files
from scripts.lib.armroot import LIB
from scripts.lib.steps import MIB, Failure, capture, require_space, step, write_atomically

# usr-is-merged stands in for usrmerge, which would bring Perl.
PACKAGES = (
    *("base-files", "base-passwd", "coreutils", "dash", "grep", "mawk", "mount", "procps", "sed", "systemd"),
    *("systemd-sysv", "usr-is-merged", "util-linux", "busybox-static", "dropbear-bin"),
)
MERGED = ("bin", "lib", "sbin")
# Not `dpkg-deb -x`, which puts a directory in place of the link that lib is.
UNPACK = """
dpkg-deb --fsys-tarfile "$1" |
  tar -x -p -C "$2" --no-same-owner --keep-directory-symlink --exclude=./usr/share/{doc,locale,man}
"""
SPACE = 400 * MIB
DISK_SIZE = 192 * MIB
FORM = 1  # raised when what is kept of the packages changes, so that an old cache is not used
USER = "edgeweb:x:995:"


def fetch(cache: Path) -> Path:
    """The unpacked packages from the cache, or from Debian the first time. Remove the cache to get newer ones."""
    cache = cache.resolve()
    cache.mkdir(parents=True, exist_ok=True)
    tree, about = cache / "tree", cache / "about.json"
    wanted = json.dumps({"form": FORM, "packages": PACKAGES})
    with debian_armhf.locked(cache / "lock"):
        if about.exists() and about.read_text() == wanted:
            return tree
        require_space(cache, SPACE, "for Debian's systemd for armhf")
        about.unlink(missing_ok=True)
        with tempfile.TemporaryDirectory(prefix="fetch-", dir=cache) as scratch:
            packages = debian_armhf.download(Path(scratch), PACKAGES)
            new = Path(scratch) / "tree"
            with step(f"unpacking {len(packages)} packages"):
                _unpack(packages, new)
            if tree.exists():
                shutil.rmtree(tree)
            new.rename(tree)
        write_atomically(about, wanted.encode())
    return tree


def make_disk(path: Path, tree: Path, binary: Path, authorized_key: str, host_key: bytes) -> None:
    """The whole machine as one ext4 file system, in which everything belongs to root."""
    require_space(path.parent, DISK_SIZE, "for the disk with systemd")
    with (
        step("making a disk with systemd and the service"),
        tempfile.TemporaryDirectory(prefix="disk-", dir=tree.parent) as scratch,
    ):
        root = Path(scratch) / "root"
        # Links to the cached files: these are read only, what is ours is added beside them.
        shutil.copytree(tree, root, symlinks=True, copy_function=_link)
        _add_ours(root, binary, authorized_key, host_key)
        ext4.make(path, DISK_SIZE, "edgeweb-systemd", root)


def _unpack(packages: list[Path], root: Path) -> None:
    (root / "usr").mkdir(parents=True)
    for name in MERGED:
        (root / "usr" / name).mkdir()
        (root / name).symlink_to(f"usr/{name}")
    for package in packages:
        capture(["bash", "-o", "pipefail", "-c", UNPACK, "unpack", package, root])


def _link(source: str, target: str) -> None:
    os.link(source, target, follow_symlinks=False)


def _add_ours(root: Path, binary: Path, authorized_key: str, host_key: bytes) -> None:
    shutil.copytree(LIB / "systemd_root", root, dirs_exist_ok=True)
    for name in ("hostname", "hosts"):
        shutil.copy(LIB / "root/etc" / name, root / "etc" / name)
    for name in ("passwd", "group"):
        master = (root / "usr/share/base-passwd" / f"{name}.master").read_text().replace("/bin/bash", "/bin/sh")
        ours = f"{USER}995:edgeweb:/var/lib/edgeweb:/bin/false" if name == "passwd" else USER
        write_atomically(root / "etc" / name, f"{master}{ours}\n".encode())
    # Empty: an identity for this boot, and no questions as at a first one.
    write_atomically(root / "etc/machine-id", b"")
    (root / "root/.ssh").mkdir(0o700)
    write_atomically(root / "root/.ssh/authorized_keys", authorized_key.encode(), 0o600)
    write_atomically(root / "etc/dropbear/dropbear_ed25519_host_key", host_key, 0o600)
    system = root / "usr/lib/systemd/system"
    write_atomically(root / "usr/bin/edgeweb", binary.read_bytes(), 0o755)
    write_atomically(root / "etc/edgeweb/edgeweb.toml", service_files.CONFIGURATION.read_bytes())
    values = service_files.settings(systemd=True)
    write_atomically(system / "edgeweb.service", service_files.render("service.unit.in", values).encode())
    write_atomically(
        root / "usr/lib/tmpfiles.d/edgeweb.conf", service_files.render("service.tmpfiles.in", values).encode()
    )
    wanted = root / "etc/systemd/system/multi-user.target.wants"
    wanted.mkdir(parents=True, exist_ok=True)
    for unit in ("edgeweb.service", "dropbear.service", "console-shell.service"):
        if not (system / unit).exists() and not (root / "etc/systemd/system" / unit).exists():
            raise Failure(f"the disk with systemd has no unit {unit}; is this a whole checkout?")
        (wanted / unit).symlink_to(f"/usr/lib/systemd/system/{unit}")
    # Without udev no device unit ever comes that the login on the serial console would wait for.
    (root / "etc/systemd/system/serial-getty@.service").symlink_to("/dev/null")
    (root / "etc/systemd/system/default.target").symlink_to("/usr/lib/systemd/system/multi-user.target")
