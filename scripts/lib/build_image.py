"""`scripts/build-image`: kas and BitBake, with what goes wrong at the beginning said in one line each."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence

from scripts.lib import bitbake
from scripts.lib.bitbake import HOST_TOOLCHAIN, OFFLINE, Kas, choose, decided, fragments, join
from scripts.lib.steps import MIB, Failure, Parser, main_guard, say

# scripts/run has a kernel for these.
BOOTABLE = ("qemuarm",)

DESCRIPTION = """\
Builds edgeweb-image (or what --target names) with BitBake, called by kas: kas.yml and the fragments of conf/kas that
are named. Checks first what a build would fail on later.
"""
EPILOG = """\
examples:
  scripts/build-image --fast                 for QEMU, with this Debian 12 machine's compilers: minutes
  scripts/build-image musl size              for QEMU, all from source: hours the first time
  scripts/build-image raspberrypi4 dev       for a board on the desk
  scripts/build-image sysvinit -- -n         what would be built
  scripts/build-image --target edgeweb -- -c compile -f

from the environment: KAS_WORK_DIR, KAS_BUILD_DIR, KAS_PREMIRRORS, DL_DIR, SSTATE_DIR and the rest, as kas has them.

exit status: 0 built, 1 a failure, 2 wrong usage, 130 ctrl-C, 143 SIGTERM
"""


def parse_arguments() -> tuple[argparse.Namespace, list[str]]:
    words = sys.argv[1:]
    end = words.index("--") if "--" in words else len(words)
    known = "\n".join(f"  {fragment.name:<18} {fragment.about}" for fragment in fragments().values())
    parser = Parser(
        prog="scripts/build-image",
        usage="scripts/build-image [--fast] [FRAGMENT...] [--target T] [-- BITBAKE-OPTION...]",
        description=DESCRIPTION,
        epilog=f"fragments:\n{known}\n\n{EPILOG}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("fragment", nargs="*", metavar="FRAGMENT", help="one of those below, or the path of a kas file")
    parser.add_argument("--fast", action="store_true", help=f"the same as the fragment {HOST_TOOLCHAIN}")
    parser.add_argument("--target", action="append", metavar="T", help="an image or a recipe, instead of kas.yml's")
    parser.add_argument(
        "--offline",
        action="store_true",
        help=f"the same as the fragment {OFFLINE}; with --fast, upstream sources are taken from Debian's archive",
    )
    arguments = parser.parse_intermixed_args(words[:end])
    arguments.fragment += [HOST_TOOLCHAIN] * arguments.fast + [OFFLINE] * arguments.offline
    return arguments, words[end + 1 :]


def outcome(kas: Kas, machine: str, targets: Sequence[str], since: float) -> None:
    """Where the image is, and how it boots."""
    found = [
        path
        for target in targets
        for path in sorted(kas.build.glob(f"tmp/deploy/images/{machine}/{target}-{machine}*.rootfs.*"))
        # Poky's names are links to names with a date.
        if path.is_symlink() and path.name.endswith((".ext4", ".wic", ".wic.bz2", ".wic.zst", ".wic.bmap", ".tar.gz"))
    ]
    for path in found:
        say(f"{os.path.relpath(path)}  ({path.stat().st_size // MIB} MiB)")
    for path in sorted(kas.build.glob("tmp/deploy/sdk/*.sh")):
        if path.stat().st_mtime >= since:
            say(f"{os.path.relpath(path)}  (the SDK's installer)")
    disk = next((path for path in found if path.name.endswith(".ext4")), None)
    if disk and machine in BOOTABLE:
        say(f"boot it: scripts/run --image {os.path.relpath(disk)}")


def main() -> int:
    arguments, options = parse_arguments()
    chosen = choose(arguments.fragment)
    fast = any(fragment.name == HOST_TOOLCHAIN for fragment in chosen)
    dry = bool(bitbake.DRY.intersection(options))
    bitbake.require_locale()
    kas = Kas.of_the_person()
    space = bitbake.PARSE_SPACE if dry else bitbake.FAST_SPACE if fast else bitbake.FULL_SPACE
    kas.require_directories(space)
    chosen = bitbake.with_debian_sources(chosen)
    configuration = join(chosen)
    say(f"building in {os.path.relpath(kas.build)} with {configuration}")
    target = [word for name in arguments.target or () for word in ("--target", name)]
    began = time.time()
    if kas.run("build", *target, configuration, "--", *options):
        raise Failure(f"not built; the reason is above, BitBake's logs are in {os.path.relpath(kas.build)}/tmp/log")
    say(f"done in {(time.time() - began) / 60:.0f} min")
    if not dry:
        named = arguments.target or decided("target", chosen)
        outcome(kas, decided("machine", chosen), [named] if isinstance(named, str) else named, began)
    return 0


if __name__ == "__main__":
    sys.exit(main_guard("build-image", main))
