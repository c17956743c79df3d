"""`scripts/run`: the service in an ARM machine (or on this one), one command from a clone to an address."""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

from scripts.lib import addresses, armroot, check, debian_armhf, debian_systemd, host_service, ports, ssh_keys
from scripts.lib.machine import BOOT_LIMIT, POWER_OFF_LIMIT, Machine, Setup
from scripts.lib.steps import MIB, Failure, Parser, main_guard, require_space, run, say, step
from scripts.lib.target import Target, on_a_device

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build"
CACHE = BUILD / "cache" / "armhf"
SYSTEMD_CACHE = BUILD / "cache" / "armhf-systemd"
BUILD_SPACE = 1200 * MIB  # what cargo leaves when it builds for ARM from nothing
MACHINE_FEATURES = {"shell", "start", "config", "console", "own-user", "syslog"}
SYSTEMD_FEATURES, SYSVINIT_FEATURES = {"systemd", "systemd-analyze"}, {"sysvinit", "monitor"}
IMAGE_KINDS = (".ext4", ".wic", ".cpio.gz")

DESCRIPTION = """\
Builds the service for ARM, boots it in a QEMU machine together with BusyBox and what the layer ships, and says where
it answers. State (/var/lib/edgeweb) is kept from one run to the next. Ctrl-C powers the machine off.
"""
EPILOG = """\
examples:
  scripts/run                          the machine, on the default ports
  scripts/run --port 0                 on any free ports
  scripts/run --check                  boot, examine the service, power off; the exit status is the result
  scripts/run --systemd                with Debian's systemd and the layer's unit in place of BusyBox
  scripts/run --image PATH.ext4        a Poky image instead, with this kernel
  scripts/deploy --qemu                a new binary into the running machine, in seconds

exit status: 0 fine, 1 a failure, 2 wrong usage, 130 ctrl-C, 143 SIGTERM
"""


def parse_arguments() -> argparse.Namespace:
    parser = Parser(
        prog="scripts/run", description=DESCRIPTION, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--host", action="store_true", help="run the service on this machine instead, in build/host")
    where.add_argument(
        "--image", type=Path, metavar="PATH", help="boot this image (.ext4, .wic, .cpio.gz), which stays as it is"
    )
    parser.add_argument(
        "--systemd", action="store_true", help="a machine with Debian's systemd instead of BusyBox; it keeps no state"
    )
    where.add_argument("--binary", type=Path, metavar="PATH", help="put this ARM binary in the machine, build none")
    parser.add_argument("--console", action="store_true", help="connect this terminal to the machine's serial console")
    parser.add_argument("--check", action="store_true", help="run tests/blackbox on it, power off, exit with 0 or 1")
    parser.add_argument(
        "--port",
        action="append",
        default=[],
        metavar="[NAME=]PORT",
        help="where https (default 8443), http (8080) and ssh (2222) are found here; without NAME it is https; "
        "0 is any free port, and alone any for each of them, as --check takes",
    )
    parser.add_argument("--fresh", action="store_true", help="begin with an empty state: nobody has claimed it")
    parser.add_argument(
        "--directory",
        type=Path,
        metavar="DIR",
        help="the machine's disk, keys and logs (default: build/qemu, with --check build/qemu-check; with --host "
        "build/host and build/host-check)",
    )
    parser.add_argument(
        "--timeout",
        type=float,
        default=BOOT_LIMIT,
        metavar="SECONDS",
        help="how long power-on to the first answer may take (default: %(default).0f)",
    )
    arguments = parser.parse_args()
    if arguments.host and arguments.console:
        parser.error("--console is for the machine, not for --host")
    if arguments.systemd and (arguments.host or arguments.image or arguments.fresh):
        parser.error("--systemd is a machine of its own, without --host, --image and --fresh")
    if arguments.console and arguments.check:
        parser.error("--check needs nobody at the console")
    return arguments


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Two machines on one disk would destroy its file system. The lock ends with this process, however that ends."""
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise Failure(
                f"another scripts/run works in {directory} (pid {file.read().strip() or 'unknown'}); "
                "stop it, or choose another --directory"
            ) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def existing_file(path: Path, what: str) -> Path:
    if not path.is_file():
        raise Failure(f"no such {what}: {path}")
    return path.resolve()


def existing_image(path: Path) -> Path:
    image = existing_file(path, "image")
    # Poky's names are links to names with a date; what counts is the ending of the name that was given.
    if not path.name.endswith(IMAGE_KINDS):
        raise Failure(f"{path} is no image that can be booted here; give one that ends in {', '.join(IMAGE_KINDS)}")
    return image


def build_binary() -> Path:
    binary = BUILD / "armv7" / "edgeweb"
    if not binary.exists():
        require_space(BUILD, BUILD_SPACE, "to build for ARM")
    if status := run([ROOT / "scripts" / "build-arm"]):
        raise Failure("the service could not be built for ARM; the reason is above", status)
    return binary


def prepare(arguments: argparse.Namespace, directory: Path, forwards: tuple[ports.Forward, ...]) -> Setup:
    """Everything that the machine is made of, built where it is not there yet or no longer true."""
    verbosity = "loglevel=5" if arguments.console else "quiet"
    authorized_key, host_key = ssh_keys.make_keys(directory)
    initrd = directory / "initrd"
    if arguments.image:
        image = existing_image(arguments.image)
        parts = debian_armhf.fetch(CACHE)
        in_memory = arguments.image.name.endswith(".cpio.gz")
        armroot.write_image_loader(initrd, parts, image if in_memory else None)
        disk = None if in_memory else image
        return Setup(directory, parts.kernel, initrd, forwards, disk, False, f"{verbosity} rdinit=/edgeweb/init", False)
    binary = existing_file(arguments.binary, "binary") if arguments.binary else build_binary()
    parts = debian_armhf.fetch(CACHE)
    if arguments.systemd:
        disk = directory / "systemd.ext4"
        debian_systemd.make_disk(disk, debian_systemd.fetch(SYSTEMD_CACHE), binary, authorized_key, host_key)
        armroot.write_image_loader(initrd, parts, None)
        return Setup(directory, parts.kernel, initrd, forwards, disk, False, f"{verbosity} rdinit=/edgeweb/init")
    armroot.write_root(initrd, parts, binary, authorized_key, host_key)
    disk = directory / "state.ext4"
    armroot.make_state_disk(disk, arguments.fresh or arguments.check)
    return Setup(directory, parts.kernel, initrd, forwards, disk, kernel_arguments=verbosity)


def describe(machine: Machine, directory: Path, stop: str, has_ssh: bool, code: str | None = None) -> None:
    relative = os.path.relpath(directory)
    option = "--qemu" if directory == BUILD / "qemu" else f"-F {relative}/ssh_config {ssh_keys.HOST_ALIAS}"
    addresses.describe(machine.ports["https"], machine.ports["http"], code)
    if has_ssh:
        print(f"  shell    ssh -F {relative}/ssh_config {ssh_keys.HOST_ALIAS}")
        print(f"  deploy   scripts/build-arm --quick && scripts/deploy {option}")
    print(f"  console  {relative}/console.log")
    print(f"  stop     {stop} here, or: kill {os.getpid()}", flush=True)


def target_of(arguments: argparse.Namespace, machine: Machine) -> Target:
    if arguments.image:
        with step("looking for a shell on the image"):
            shell = machine.shell if machine.has_shell() else None
        return on_a_device(f"the image {arguments.image.name}", machine.ports, shell, machine.console.text)
    name = "the ARM machine with systemd" if arguments.systemd else "the ARM machine"
    # Our own machines have a shell: should it not answer, that is an error and nothing to skip.
    target = on_a_device(name, machine.ports, machine.ssh, machine.console.text)
    expected = MACHINE_FEATURES | (SYSTEMD_FEATURES if arguments.systemd else SYSVINIT_FEATURES)
    if missing := expected - target.features:
        raise Failure(f"{name} lacks {', '.join(sorted(missing))}; see {machine.console_log}")
    return target


def power_off(machine: Machine) -> None:
    if machine.is_alive():
        with step("powering the machine off"):
            orderly = machine.stop()
        if not orderly:
            say(f"it did not power off within {POWER_OFF_LIMIT:.0f} s and was killed")
    else:
        machine.stop()


def run_machine(arguments: argparse.Namespace) -> int:
    directory = (arguments.directory or BUILD / ("qemu-check" if arguments.check else "qemu")).resolve()
    # What can be wrong with the arguments is said before anything long is begun.
    chosen = ports.parse(arguments.port)
    if arguments.image:
        existing_image(arguments.image)
    with locked(directory):
        forwards = ports.forwards(chosen, any_free=arguments.check)
        machine = Machine(prepare(arguments, directory, forwards))
        try:
            machine.start()
            if arguments.console:
                describe(machine, directory, "ctrl-]", not arguments.image)
                say("the serial console; the service answers when the machine has booted")
                machine.console.attach(machine.is_alive)
                return 0
            with step("booting the machine"):
                seconds = machine.wait_until_healthy(arguments.timeout)
            if arguments.check:
                return check.report(target_of(arguments, machine))
            say(f"the service answers, {seconds:.1f} s after power-on")
            code = addresses.claim_code(machine.ports["https"], machine.console.text)
            describe(machine, directory, "ctrl-C", machine.has_ssh(), code)
            while machine.is_alive():
                signal.sigtimedwait([], 0.5)
            say("the machine was powered off from inside")
            return 0
        finally:
            power_off(machine)


def main() -> int:
    arguments = parse_arguments()
    BUILD.mkdir(exist_ok=True)
    if arguments.host:
        chosen = ports.parse(arguments.port)
        if chosen.get("ssh"):
            raise Failure("--port ssh=… is for the machine, not for --host", status=2)
        directory = (arguments.directory or BUILD / ("host-check" if arguments.check else "host")).resolve()
        with locked(directory):
            return host_service.serve(ROOT, directory, chosen, arguments.check, arguments.fresh)
    return run_machine(arguments)


if __name__ == "__main__":
    sys.exit(main_guard("run", main))
