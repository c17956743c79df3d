"""What every long step of the tools has in common: progress, one-line failures, interruption without leftovers."""

from __future__ import annotations

import argparse
import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

MIB = 1024 * 1024
STILL_EVERY = 15.0  # s between signs of life where there is no terminal to count the seconds on
# Before a command: the kernel ends it should this program be killed without a chance to clean up. Debian always has it.
DYING_WITH_US = ("setpriv", "--pdeathsig", "KILL")


class Failure(Exception):
    """Something that a person can act upon: one line that says what happened, where, and what to do next."""

    def __init__(self, message: str, status: int = 1) -> None:
        super().__init__(message)
        self.status = status


class Parser(argparse.ArgumentParser):
    """Says wrong usage in one line, too."""

    def error(self, message: str) -> NoReturn:
        raise Failure(f"{message}; see {self.prog} --help", status=2)


class Interrupted(BaseException):
    """Ctrl-C, SIGTERM or a closed terminal. No `Exception`, so that no handler of errors swallows it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def raise_on_signals() -> None:
    """Turns the signals that end a program into `Interrupted`, so that every `finally` gets its turn."""

    def interrupt(number: int, _frame: object) -> None:
        raise Interrupted(number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)


def say(line: str) -> None:
    print(f"==> {line}", file=sys.stderr, flush=True)


@contextmanager
def step(what: str) -> Iterator[None]:
    """Shows that something is being done, for how long already, and how long it took."""
    began = time.monotonic()
    done = threading.Event()
    terminal = sys.stderr.isatty()

    def tick() -> None:
        while not done.wait(1.0 if terminal else STILL_EVERY):
            seconds = int(time.monotonic() - began)
            if terminal:
                print(f"\r==> {what} … {seconds} s ", end="", file=sys.stderr, flush=True)
            else:
                say(f"{what} … still at it after {seconds} s")

    if terminal:
        print(f"==> {what} … ", end="", file=sys.stderr, flush=True)
    else:
        say(f"{what} …")
    ticker = threading.Thread(target=tick, daemon=True)
    ticker.start()
    outcome = "stopped"
    try:
        yield
        outcome = "done"
    finally:
        done.set()
        ticker.join()
        print("\r" if terminal else "", end="", file=sys.stderr)
        say(f"{what}: {outcome} in {time.monotonic() - began:.1f} s")


def end_group(process: subprocess.Popen[bytes], patience: float = 10.0) -> None:
    """Ends a child that leads its own process group, and all that it started."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        try:
            process.wait(patience)
            break
        except subprocess.TimeoutExpired:
            continue
    process.wait()


def run(argv: Sequence[str | Path], *, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> int:
    """Runs a command whose output the person shall see. Its whole process group ends when we are interrupted."""
    process = subprocess.Popen(
        [*DYING_WITH_US, *argv], env=env, cwd=cwd, stdin=subprocess.DEVNULL, start_new_session=True
    )
    try:
        return process.wait()
    finally:
        if process.returncode is None:
            end_group(process)


def capture(argv: Sequence[str | Path], *, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> str:
    """Runs a quiet command and returns its standard output; a `Failure` carries the last line of its errors."""
    if not shutil.which(argv[0]):
        raise Failure(f"the program {argv[0]} is not installed")
    process = subprocess.Popen(
        [*DYING_WITH_US, *argv],
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        output, errors = process.communicate()
    finally:
        if process.returncode is None:
            end_group(process)
    if process.returncode:
        lines = [line for line in errors.decode(errors="replace").splitlines() if line.strip()]
        reason = lines[-1].strip() if lines else "it says nothing"
        raise Failure(f"{Path(argv[0]).name} failed with status {process.returncode}: {reason}")
    return output.decode(errors="replace")


def require_space(directory: Path, needed: int, purpose: str) -> None:
    """Refuses to begin what the disk cannot hold."""
    free = shutil.disk_usage(directory).free
    if free < needed:
        raise Failure(
            f"not enough disk space in {directory} {purpose}: "
            f"{-(-needed // MIB)} MiB needed, {free // MIB} MiB free; make room and run this again"
        )


def write_atomically(path: Path, data: bytes, mode: int = 0o644) -> None:
    """A reader sees the old file or the new one, never half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    try:
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(data)
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)


def main_guard(name: str, main: Callable[[], int]) -> int:
    """Runs a program's main function and turns what can go wrong into one line and an exit status."""
    raise_on_signals()
    try:
        return main()
    except Failure as failure:
        print(f"{name}: {failure}", file=sys.stderr)
        return failure.status
    except Interrupted as interrupted:
        print(f"{name}: stopped by {signal.Signals(interrupted.number).name}", file=sys.stderr)
        return 128 + interrupted.number
    except OSError as error:
        if error.errno == errno.ENOSPC:
            where = error.filename or "while writing"
            print(f"{name}: the disk is full ({where}); make room and run this again", file=sys.stderr)
        else:
            print(f"{name}: {error}", file=sys.stderr)
        return 1
