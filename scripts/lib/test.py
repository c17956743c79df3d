"""`scripts/test`: every test of the project, in steps that go on when one of them fails."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from scripts.lib import venv
from scripts.lib.steps import Failure

ROOT = Path(__file__).resolve().parents[2]
SERVICE = ROOT / "service"
BUILD = ROOT / "build"
VENV = BUILD / "venv"
SYSLOG_NG = BUILD / "syslog-ng"
STEP_LIMIT = 2400  # s; a step that takes longer has hung

CARGO_RESULT = re.compile(r"^test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored", re.MULTILINE)
UNITTEST_RAN = re.compile(r"^Ran (\d+) tests? in ", re.MULTILINE)
UNITTEST_BAD = re.compile(r"(failures|errors|skipped|unexpected successes)=(\d+)")


@dataclass
class Result:
    passed: int
    failed: int


@dataclass
class Step:
    name: str
    about: str
    packages: tuple[str, ...]
    run: Callable[[], list[Result]]


def call(*command: str | Path, cwd: Path = ROOT, env: dict[str, str] | None = None) -> tuple[int, str]:
    """Runs a command, shows what it says as it says it, and returns its status and its words."""
    words = [str(word) for word in command]
    print(f"    $ {' '.join(words)}", flush=True)
    said: list[str] = []
    with subprocess.Popen(
        words,
        cwd=cwd,
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                print(f"    {line}", end="", flush=True)
                said.append(line)
            status = process.wait(STEP_LIMIT)
        except BaseException:
            process.terminate()
            raise
    return status, "".join(said)


def check(*command: str | Path, cwd: Path = ROOT) -> Result:
    """A command that is one test: it passes with status 0."""
    status, _ = call(*command, cwd=cwd)
    return Result(1, 0) if status == 0 else Result(0, 1)


def cargo_test(*arguments: str) -> Result:
    status, said = call("cargo", "test", "--locked", "--no-fail-fast", *arguments, cwd=SERVICE)
    counts = [tuple(map(int, counts)) for counts in CARGO_RESULT.findall(said)]
    passed = sum(count[0] for count in counts)
    # An ignored test would be one that nobody runs.
    failed = sum(count[1] + count[2] for count in counts)
    # A crate that does not compile has no result lines at all.
    return Result(passed, failed if status == 0 or failed else 1)


def unittests(python: str | Path, folder: str, env: dict[str, str] | None = None) -> Result:
    status, said = call(python, "-m", "unittest", "discover", "-v", "-s", folder, "-t", ".", env=env)
    return unittest_result(status, said)


def black_box(*target: str) -> Result:
    """The suite that `scripts/run --check` has for every target; what the target cannot show is skipped, and said."""
    status, said = call("scripts/run", *target, "--check")
    return unittest_result(status, said, may_skip=True)


def unittest_result(status: int, said: str, may_skip: bool = False) -> Result:
    ran = UNITTEST_RAN.search(said)
    if ran is None or int(ran[1]) == 0:
        return Result(0, 1)
    counts = {kind: int(count) for kind, count in UNITTEST_BAD.findall(said[ran.end() :])}
    skipped = counts.pop("skipped", 0) if may_skip else 0
    bad = sum(counts.values()) or int(status != 0)
    return Result(max(int(ran[1]) - skipped - bad, 0), bad)


def venv_python() -> Path:
    """A Python with what the layer's tests need, as tests/requirements.txt pins it."""
    try:
        return venv.make(VENV, (ROOT / "tests" / "requirements.txt").read_text())
    except Failure as failure:
        raise Failure(f"the Python packages of tests/requirements.txt cannot be installed: {failure}") from None


def unpack_syslog_ng() -> None:
    """Where service/tests/syslog.rs looks for it: Debian does not let it be installed beside rsyslog."""
    if SYSLOG_NG.exists():
        return
    SYSLOG_NG.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="syslog-ng-", dir=SYSLOG_NG.parent) as scratch:
        status, _ = call("apt-get", "-q", "download", "syslog-ng-core", cwd=Path(scratch))
        packages = list(Path(scratch).glob("*.deb"))
        if status != 0 or len(packages) != 1:
            raise Failure("syslog-ng-core cannot be fetched; type: sudo apt-get update, and run this again")
        status, _ = call("dpkg-deb", "-x", packages[0], Path(scratch) / "root")
        if status != 0:
            raise Failure("syslog-ng-core cannot be unpacked, see above")
        (Path(scratch) / "root").rename(SYSLOG_NG)


def is_shell(path: Path) -> bool:
    return re.match(rb"#!.*\b(ba)?sh\n|# shellcheck shell=", path.read_bytes()) is not None


def style() -> list[Result]:
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    paths = [ROOT / name for name in files.stdout.split("\0") if name]
    shell = [path for path in paths if path.is_file() and is_shell(path)]
    python = venv_python()
    return [
        check("cargo", "fmt", "--check", cwd=SERVICE),
        check(sys.executable, "-m", "scripts.lib.dependencies"),
        check("shellcheck", "--external-sources", *shell),
        check(python, "-m", "ruff", "check", "meta-edgeweb", "scripts", "tests"),
        check(python, "-m", "ruff", "format", "--check", "meta-edgeweb", "scripts", "tests"),
    ]


def service() -> list[Result]:
    unpack_syslog_ng()
    return [
        cargo_test(),
        cargo_test("--features=policy", "--lib", "auth::policy"),
        cargo_test("--features=policy", "--test=policy"),
    ]


def clippy() -> list[Result]:
    # The features that a recipe may leave out: none, and all but systemd (an image with sysvinit).
    choices: list[list[str]] = [[], ["--no-default-features"], ["--no-default-features", "--features=overlay,syslog"]]
    choices.append(["--features=policy"])
    lint = ["cargo", "clippy", "--locked", "--all-targets"]
    return [check(*lint, *choice, "--", "--deny=warnings", cwd=SERVICE) for choice in choices]


# What syslog-ng-core depends on; it is not installed itself.
SYSLOG_NG_NEEDS = ("libcap2", "libglib2.0-0", "libivykis0", "libjson-c5", "libnet1", "libpcre3", "libssl3", "libwrap0")

STEPS = [
    Step(
        "style",
        "formatting, the linters of shell and Python, licences and duplicates of crates",
        ("git", "python3-venv", "shellcheck"),
        style,
    ),
    Step("clippy", "the Rust linter, with every warning an error", ("gcc", "libc6-dev"), clippy),
    Step(
        "service",
        "the crate: unit tests, the real binary over real sockets, the examples",
        (
            "busybox-static",
            "curl",
            "faketime",
            "gcc",
            "libc6-dev",
            "openssl",
            "pebble",
            "procps",
            "rsyslog",
            "rsyslog-gnutls",
            "systemd",
            "util-linux",
            *SYSLOG_NG_NEEDS,
        ),
        service,
    ),
    Step(
        "pages",
        "the page in a real browser",
        ("gcc", "libc6-dev", "chromium"),
        lambda: [check("cargo", "build", "--locked", cwd=SERVICE), unittests(sys.executable, "tests/pages")],
    ),
    Step(
        "layer",
        "recipe, kas files, init script, unit, lint",
        ("busybox-static", "gcc", "git", "libc6-dev", "openssl", "python3-venv", "shellcheck", "systemd"),
        lambda: [unittests(venv_python(), "tests/layer")],
    ),
    Step(
        "device",
        "the ARM binary, and the service in an ARM machine",
        ("binutils", "e2fsprogs", "fakeroot", "file", "openssh-client", "openssl", "qemu-system-arm"),
        lambda: [check("scripts/build-arm"), unittests(sys.executable, "tests/device")],
    ),
    Step(
        "blackbox",
        "the service from outside: as a process here, on ARM, and on ARM with systemd",
        ("e2fsprogs", "fakeroot", "gcc", "libc6-dev", "openssh-client", "openssl", "qemu-system-arm"),
        lambda: [black_box("--host"), black_box(), black_box("--systemd")],
    ),
    Step(
        "readme",
        "the commands in the README, as they stand there",
        ("binutils", "curl", "e2fsprogs", "git", "openssh-client", "openssl", "qemu-system-arm"),
        lambda: [unittests(sys.executable, "tests/readme")],
    ),
]


CUTS = 50  # under the writer; a quarter of an hour on two busy cores


def power_cut(cuts: int, seed: int) -> Step:
    """Not one of STEPS: so many boots take their time."""
    env = {"EDGEWEB_CUTS": str(cuts), "EDGEWEB_SEED": str(seed)}
    return Step(
        "power-cut",
        f"the journal of an ARM machine that is killed {cuts} times",
        ("binutils", "e2fsprogs", "gcc", "libc6-dev", "openssh-client", "qemu-system-arm"),
        lambda: [unittests(sys.executable, "tests/power_cut", env)],
    )


FUZZ_SECONDS = 60  # for each target
CARGO_FUZZ = "0.13.2"


def fuzz(seconds: int) -> Step:
    """Not one of STEPS either: chance finds what it finds, and takes its time."""
    return Step(
        "fuzz",
        f"what strangers send, thrown at the code that reads it first, {seconds} s each",
        ("g++", "gcc", "libc6-dev"),
        lambda: [fuzz_target(target, seconds) for target in fuzz_targets()],
    )


def fuzz_targets() -> list[str]:
    """Their names; cargo-fuzz is there afterwards."""
    installed = call(
        *("cargo", "install", "--locked", "--root", BUILD / "cargo-fuzz", f"cargo-fuzz@{CARGO_FUZZ}"),
    )
    if installed[0] != 0:
        raise Failure("cargo-fuzz cannot be installed, see above")
    return sorted(path.stem for path in (SERVICE / "fuzz" / "fuzz_targets").glob("*.rs"))


def fuzz_target(target: str, seconds: int) -> Result:
    # What was found in earlier runs is kept, but not among the sources.
    found = BUILD / "fuzz" / target
    found.mkdir(parents=True, exist_ok=True)
    artifacts = BUILD / "fuzz" / "artifacts"
    artifacts.mkdir(exist_ok=True)
    # Without a sanitizer, which needs a nightly compiler: the crate has no unsafe code that one could watch.
    command = (BUILD / "cargo-fuzz" / "bin" / "cargo-fuzz", "run", "--sanitizer", "none", target)
    limits = (f"-max_total_time={seconds}", "-max_len=65536", "-timeout=10", "-rss_limit_mb=1024")
    status, _ = call(
        *(*command, found, SERVICE / "fuzz" / "corpus" / target, "--"),
        *(*limits, "-print_final_stats=1", f"-artifact_prefix={artifacts}/{target}-"),
        cwd=SERVICE,
    )
    if status != 0:
        print(f"    the input is in {artifacts}; again: cargo fuzz run --sanitizer none {target} FILE", flush=True)
    return Result(1, 0) if status == 0 else Result(0, 1)


def ensure_packages(packages: tuple[str, ...]) -> None:
    """Installs them, or says the one command that does; by the function that all scripts use."""
    script = 'root=$1; shift; source "$root/scripts/lib/host_packages.sh"; ensure_packages "run this test" "$@"'
    status, _ = call("bash", "-euo", "pipefail", "-c", script, "test", ROOT, *packages)
    if status != 0:
        raise Failure("packages are missing, see above")


def run_step(step: Step) -> Result:
    began = time.monotonic()
    print(f"\n==> {step.name}: {step.about}", flush=True)
    try:
        ensure_packages(step.packages)
        results = step.run()
    except (Failure, OSError, subprocess.TimeoutExpired) as error:
        print(f"    this step cannot run: {error}", flush=True)
        results = [Result(0, 1)]
    total = Result(sum(result.passed for result in results), sum(result.failed for result in results))
    seconds = time.monotonic() - began
    print(f"==> {step.name}: {total.passed} passed, {total.failed} failed ({seconds:.0f} s)", flush=True)
    return total


def arguments() -> argparse.Namespace:
    steps = "\n".join(f"  {step.name:<8} {step.about}" for step in STEPS)
    parser = argparse.ArgumentParser(
        prog="scripts/test",
        description="Runs every test, or the named steps, and installs what they need when you are root.",
        epilog=f"steps:\n{steps}\n\nExit status: 0 everything passed, 1 something failed, 2 wrong usage.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("step", nargs="*", help="a step to run; all of them when none is named")
    parser.add_argument(
        "--power-cut",
        action="store_true",
        help="run this instead: an ARM machine that writes its log is killed at random moments, about 15 minutes",
    )
    parser.add_argument("--cuts", type=int, default=CUTS, metavar="N", help="how many times (default: %(default)s)")
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="the random moments of an earlier run, which says its seed"
    )
    parser.add_argument(
        "--fuzz",
        action="store_true",
        help="run this instead: what strangers send is thrown at the code that reads it first, about 8 minutes",
    )
    parser.add_argument(
        "--seconds", type=int, default=FUZZ_SECONDS, metavar="N", help="for each fuzz target (default: %(default)s)"
    )
    chosen = parser.parse_args()
    for name in chosen.step:
        if name not in {step.name for step in STEPS}:
            parser.error(f"there is no step {name}; see scripts/test --help")
    if sum((chosen.power_cut, chosen.fuzz, bool(chosen.step))) > 1:
        parser.error("--power-cut, --fuzz and steps do not go together")
    if chosen.cuts < 2:
        parser.error("--cuts wants a number from 2 on")
    if chosen.seconds < 1:
        parser.error("--seconds wants a number from 1 on")
    return chosen


def main() -> int:
    chosen = arguments()
    if shutil.which("cargo") is None:
        print("test: there is no cargo on the PATH; install Rust 1.90 or newer (rustup.rs)", file=sys.stderr)
        return 1
    began = time.monotonic()
    if chosen.power_cut:
        steps = [power_cut(chosen.cuts, chosen.seed)]
    elif chosen.fuzz:
        steps = [fuzz(chosen.seconds)]
    else:
        steps = [step for step in STEPS if not chosen.step or step.name in chosen.step]
    results = {step.name: run_step(step) for step in steps}
    print(f"\n==> {time.monotonic() - began:.0f} s in all")
    for name, result in results.items():
        print(f"{name:<8} {'ok' if result.failed == 0 else 'FAILED'}")
    passed = sum(result.passed for result in results.values())
    failed = sum(result.failed for result in results.values())
    if not chosen.step and not chosen.power_cut and not chosen.fuzz:
        print("left to scripts/test-layer, which needs BitBake and its metadata: everything that builds the layer")
        print("left to scripts/test --fuzz, which takes its time: what strangers send, made up by chance")
        print("left to scripts/test --power-cut, which takes its time: the log's journal under power cuts")
    print(f"{passed} passed, {failed} failed")
    return 0 if failed == 0 else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("\ntest: stopped by ctrl-C", file=sys.stderr)
        sys.exit(130)
