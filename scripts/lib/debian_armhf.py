"""Debian's kernel, BusyBox and dropbear for armhf, fetched without touching this machine's own apt.

A second architecture in the machine's apt breaks `apt-get update` as soon as one of its other sources does not offer
it. So apt gets a configuration of its own: state, cache, sources and architecture. Where Debian is found is asked of
the machine's apt (a mirror, a proxy), and whatever it knows that is not Debian is left out. apt checks signatures.
"""

from __future__ import annotations

import fcntl
import json
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from scripts.lib.steps import MIB, Failure, capture, require_space, step, write_atomically

KERNEL = "linux-image-armmp-lpae"
PROGRAMS = ("busybox-static", "dropbear-bin")  # with their shared libraries
MODULES = ("virtio_mmio", "virtio_blk", "virtio_net", "virtio-rng", "crc32c_generic", "ext4")
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
SPACE = 600 * MIB  # for the lists, the packages and the kernel unpacked whole for a moment
UNPACKED_FORM = 1  # raised when what is kept of the packages changes, so that an old cache is not used

APT_CONFIGURATION = """\
// Read after the machine's own configuration (proxies stay), so this is what counts.
#clear APT::Architectures;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear Acquire::IndexTargets::deb::DEP-11;
APT::Architecture "armhf";
APT::Architectures {{ "armhf"; }};
APT::Sandbox::User "";
APT::Install-Recommends "false";
Acquire::Languages "none";
Acquire::Retries "3";
Dir::State "{base}/state";
Dir::State::status "{base}/state/status";
Dir::State::extended_states "{base}/state/extended_states";
Dir::Cache "{base}/cache";
Dir::Etc "{base}/etc";
Dir::Etc::SourceList "{base}/etc/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::Etc::PreferencesParts "/dev/null";
Dir::Log "{base}";
"""


@dataclass(frozen=True)
class Parts:
    """What the packages gave: a directory with boot/vmlinuz, root/ (programs, libraries) and modules/ in load order."""

    directory: Path
    kernel_release: str
    modules: tuple[str, ...]

    @property
    def kernel(self) -> Path:
        return self.directory / "boot" / "vmlinuz"

    @property
    def root(self) -> Path:
        return self.directory / "root"

    def module(self, name: str) -> Path:
        return self.directory / "modules" / name


def fetch(cache: Path) -> Parts:
    """The parts from the cache, or from Debian the first time. Remove the cache to get newer ones."""
    cache = cache.resolve()  # apt takes a relative path as one below /
    cache.mkdir(parents=True, exist_ok=True)
    with locked(cache / "lock"):
        parts = _cached(cache)
        if parts is None:
            require_space(cache, SPACE, "for Debian's armhf packages")
            with tempfile.TemporaryDirectory(prefix="fetch-", dir=cache) as scratch:
                packages = download(Path(scratch), PROGRAMS, kernel=True)
                with step("unpacking the ARM kernel and BusyBox"):
                    _unpack(packages, Path(scratch), cache / "parts")
            parts = _cached(cache)
            if parts is None:
                raise Failure(f"what was unpacked in {cache} is not complete; remove that directory and run this again")
    return parts


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Two runs must not fetch at the same time; the second one waits and finds everything there."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _cached(cache: Path) -> Parts | None:
    parts = cache / "parts"
    try:
        about = json.loads((parts / "about.json").read_text())
    except (FileNotFoundError, ValueError):
        return None
    if about.get("form") != UNPACKED_FORM:
        return None
    return Parts(parts, about["kernel_release"], tuple(about["modules"]))


def _debian_sources() -> list[str]:
    """The machine's own Debian sources, whether they stand in sources.list or in the deb822 form."""
    wanted = ("--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)", "Created-By: Packages", "Origin: Debian")
    found = sorted(set(capture(["apt-get", "indextargets", *wanted]).splitlines()))
    signed = f" signed-by={KEYRING}" if KEYRING.exists() else ""
    return [f"deb [arch=armhf{signed}] {source}" for source in found if source.split(" ")[-1] == "main"]


def download(scratch: Path, programs: Sequence[str], kernel: bool = False) -> list[Path]:
    """Debian's armhf packages of these names and all that they depend on, as files under `scratch`."""
    base = scratch / "apt"
    for directory in ("state/lists/partial", "cache/archives/partial", "etc"):
        (base / directory).mkdir(parents=True)
    (base / "state/status").touch()
    sources = _debian_sources()
    if not sources:
        raise Failure("apt knows no Debian source on this machine; add one, run apt-get update, and run this again")
    (base / "etc/sources.list").write_text("\n".join(sources) + "\n")
    configuration = base / "apt.conf"
    configuration.write_text(APT_CONFIGURATION.format(base=base))

    with step("reading Debian's package lists for armhf"):
        try:
            capture(["apt-get", "-q", "-c", configuration, "update"])
            update_failure = None
        except Failure as failure:
            # One of several sources may be half-way through an update of its own: what the others offer may do.
            update_failure = failure
    try:
        image = [_kernel_package(configuration)] if kernel else []
        with step(f"fetching {', '.join([*image, *programs])} for armhf"):
            if image:
                capture(["apt-get", "-q", "-c", configuration, "download", *image], cwd=base / "cache/archives")
            capture(["apt-get", "-q", "-y", "-c", configuration, "install", "--download-only", *programs])
    except Failure as failure:
        raise Failure(f"cannot fetch Debian's armhf packages: {update_failure or failure}") from None
    return sorted((base / "cache/archives").glob("*.deb"))


def _kernel_package(configuration: Path) -> str:
    for line in capture(["apt-cache", "-c", configuration, "depends", "--important", KERNEL]).splitlines():
        if match := re.fullmatch(r"\s+Depends: (linux-image-\S+)", line):
            return match[1]
    raise Failure(f"the package {KERNEL} names no kernel")


def _unpack(packages: Iterable[Path], scratch: Path, target: Path) -> None:
    """Keeps the kernel, a handful of modules, the programs and their libraries; the rest of 170 MB is thrown away."""
    new, whole = scratch / "parts", scratch / "kernel"
    for directory in (new / "root", new / "boot", new / "modules", whole):
        directory.mkdir(parents=True)
    for package in packages:
        capture(["dpkg-deb", "-x", package, whole if package.name.startswith("linux-image-") else new / "root"])
    image = next((whole / "boot").glob("vmlinuz-*"))
    release = image.name.removeprefix("vmlinuz-")
    shutil.move(image, new / "boot/vmlinuz")
    order = _load_order({path.stem: path for path in (whole / "lib/modules" / release / "kernel").rglob("*.ko")})
    for path in order:
        shutil.move(path, new / "modules" / path.name)
    about = {"form": UNPACKED_FORM, "kernel_release": release, "modules": [path.name for path in order]}
    write_atomically(new / "about.json", json.dumps(about, indent=2).encode())
    if target.exists():
        shutil.rmtree(target)
    new.rename(target)


def _load_order(modules: dict[str, Path]) -> list[Path]:
    """The wanted modules after those they depend on, as each says in its own .modinfo: no depmod is needed."""
    by_name = {name.replace("-", "_"): path for name, path in modules.items()}
    order: list[Path] = []

    def add(name: str) -> None:
        # What is built into the kernel has no file.
        path = by_name.get(name.replace("-", "_"))
        if path is None or path in order:
            return
        if match := re.search(rb"\0depends=([^\0]*)\0", path.read_bytes()):
            for dependency in filter(None, match[1].decode().split(",")):
                add(dependency)
        order.append(path)

    for module in MODULES:
        add(module)
    return order
