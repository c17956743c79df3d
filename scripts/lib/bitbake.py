"""How the scripts call kas and BitBake: fragments, what the machine must have, and a run that ends in order."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

from scripts.lib import venv
from scripts.lib.steps import (
    DYING_WITH_US,
    MIB,
    STILL_EVERY,
    Failure,
    Interrupted,
    end_group,
    require_space,
    run,
    say,
    write_atomically,
)

ROOT = Path(__file__).resolve().parents[2]
FRAGMENTS = ROOT / "conf" / "kas"
REQUIREMENTS = ROOT / "tests" / "requirements.txt"
KAS_ENVIRONMENT = ROOT / "build" / "kas-venv"
LOCALE = "en_US.UTF-8"
HOST_TOOLCHAIN = "host-toolchain"
OFFLINE = "offline"

GIB = 1024 * MIB
FULL_SPACE = 90 * GIB  # the toolchain, the kernel and an image, from nothing
FAST_SPACE = 8 * GIB  # the same with conf/kas/host-toolchain.yml
NEXT_SPACE = 3 * GIB  # what a build wants that goes on with what it built before
PARSE_SPACE = 2 * GIB  # metadata, its cache, and nothing built

INTERRUPT_PATIENCE = 120.0  # s for the tasks that are running when somebody types ctrl-C
SERVER_PATIENCE = 60.0  # s for BitBake's server after its last client has gone

# With these BitBake builds nothing.
DRY = {"-n", "--dry-run", "-p", "--parse-only", "-e", "--environment", "-g", "--graphviz", "-S"}

TASK = re.compile(r"^NOTE: Running (?:noexec |setscene )?task (\d+) of (\d+) \((.*)\)$")
# kas puts its own clock before what BitBake says when nobody looks.
KAS_PREFIX = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d - \w+ +- ")


@dataclass(frozen=True)
class Fragment:
    name: str
    path: Path

    @property
    def about(self) -> str:
        """The sentence that its header begins with."""
        header = " ".join(
            line.removeprefix("#").strip() for line in self.path.read_text().splitlines() if line.startswith("#")
        )
        return re.split(r"\.(?: |$)| kas build ", header)[0]

    @property
    def config(self) -> dict[str, Any]:
        # Not every Python has it, and --help must do without.
        import yaml

        try:
            config = yaml.safe_load(self.path.read_text())
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise Failure(f"{self.path} is not YAML: {' '.join(str(error).split())}", 2) from None
        if not isinstance(config, dict):
            raise Failure(f"{self.path} is no kas file", 2)
        return config

    @property
    def choices(self) -> set[str]:
        """What it decides that only one fragment can decide."""
        config = self.config
        return {key for key in ("machine", "target", "task") if key in config} | set(
            config.get("local_conf_header") or {}
        )


MAIN = Fragment("kas", ROOT / "kas.yml")


def fragments() -> dict[str, Fragment]:
    return {path.stem: Fragment(path.stem, path) for path in sorted(FRAGMENTS.glob("*.yml"))}


def choose(names: Sequence[str]) -> list[Fragment]:
    """Fragments by name, or kas files by path, of which no two say different things about one choice."""
    known = fragments()
    chosen: list[Fragment] = []
    for name in dict.fromkeys(names):
        if name in known:
            chosen.append(known[name])
        elif name.endswith(".yml") and Path(name).is_file():
            chosen.append(Fragment(Path(name).stem, Path(name).resolve()))
        else:
            raise Failure(f"there is no fragment {name} in conf/kas; there are {', '.join(known)}", 2)
    for one, other in combinations(chosen, 2):
        if both := one.choices & other.choices:
            raise Failure(
                f"{one.name} and {other.name} both decide {', '.join(sorted(both))}; leave one of them out", 2
            )
    return chosen


def join(chosen: Iterable[Fragment]) -> str:
    """What kas takes as its configuration, when it is called in the tree."""
    return ":".join(os.path.relpath(fragment.path, ROOT) for fragment in (MAIN, *chosen))


def decided(key: str, chosen: Iterable[Fragment]) -> Any:
    """What kas takes: the word of the last file that says something about it."""
    return [fragment.config[key] for fragment in (MAIN, *chosen) if key in fragment.config][-1]


def write_fragment(path: Path, text: str) -> Fragment:
    """A kas file made for one call. It lies in the tree: kas joins only files of one repository."""
    write_atomically(path, f"header:\n  version: 14\n{text}".encode())
    return Fragment(path.stem, path)


def with_debian_sources(chosen: list[Fragment]) -> list[Fragment]:
    """The fast route on a machine offline takes upstream sources from a mirror filled from Debian's archive."""
    if not {HOST_TOOLCHAIN, OFFLINE} <= {fragment.name for fragment in chosen}:
        return chosen
    directory = ROOT / "build" / "debian-sources"
    if run([ROOT / "conf" / "host-toolchain" / "debian-sources", directory]):
        raise Failure("Debian's sources could not be had; the reason is above")
    text = (
        "local_conf_header:\n  edgeweb-debian-sources: |\n"
        f'    SOURCE_MIRROR_URL = "file://{directory}"\n    INHERIT += "own-mirrors"\n'
    )
    return [*chosen, write_fragment(directory.with_suffix(".yml"), text)]


def require_locale() -> None:
    known = subprocess.run(["locale", "-a"], capture_output=True, text=True, check=False).stdout.lower().split()
    if "en_us.utf8" not in known:
        raise Failure(
            f"the locale {LOCALE}, which BitBake needs, is missing; type: "
            f"sudo sed -i 's/^# *{LOCALE}/{LOCALE}/' /etc/locale.gen && sudo locale-gen"
        )


def tested_kas() -> str:
    """The version that the tests know, as pip is asked for it."""
    return next(line for line in REQUIREMENTS.read_text().splitlines() if line.startswith("kas=="))


def require_kas() -> Path:
    """The person's own kas, or the version that the tests know in an environment of its own."""
    if own := shutil.which("kas"):
        return Path(own)
    try:
        return venv.make(KAS_ENVIRONMENT, tested_kas()).with_name("kas")
    except Failure as failure:
        raise Failure(
            f"kas cannot be installed ({failure}); install {tested_kas()} with pip and run this again"
        ) from None


class Progress:
    """BitBake's words where nobody watches a terminal: its messages, and a line about its tasks now and then."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.last = self.began

    def line(self, said: str) -> None:
        task = TASK.match(said)
        if task is None:
            if said and not said.startswith("NOTE: recipe "):
                print(said, flush=True)
            return
        now = time.monotonic()
        if now - self.last >= STILL_EVERY or task[1] == task[2]:
            self.last = now
            # The path of the recipe says no more than its name.
            name = task[3].rsplit("/", 1)[-1]
            print(f"==> task {task[1]} of {task[2]} ({name}), {(now - self.began) / 60:.0f} min", flush=True)


def discard(pipe: int) -> None:
    while os.read(pipe, MIB):
        pass


@dataclass
class Kas:
    """kas with one work directory, where it keeps its clones, and one build directory."""

    work: Path
    build: Path
    program: Path = field(default_factory=require_kas)
    # The tree that it is called in: this one, or a copy of it.
    tree: Path = ROOT
    # For this one only, beside the person's own environment.
    extra: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of_the_person(cls) -> Kas:
        """Where kas itself would work when it is called in this tree."""
        work = Path(os.environ.get("KAS_WORK_DIR") or ROOT).resolve()
        return cls(work, Path(os.environ.get("KAS_BUILD_DIR") or work / "build").resolve())

    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "KAS_WORK_DIR": str(self.work),
            "KAS_BUILD_DIR": str(self.build),
            "LANG": LOCALE,
            "LC_ALL": LOCALE,
            **self.extra,
        }

    def require_directories(self, space: int) -> None:
        for directory in (self.work, self.build):
            try:
                directory.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise Failure(
                    f"cannot make {directory} ({error.strerror}); set KAS_WORK_DIR to a folder of yours"
                ) from None
            if not os.access(directory, os.W_OK):
                raise Failure(f"this user may not write to {directory}; set KAS_WORK_DIR to a folder of yours")
        begun = (self.build / "tmp").exists()
        require_space(self.build, min(space, NEXT_SPACE) if begun else space, "to build")

    def run(self, *words: str | Path, said: list[str] | None = None) -> int:
        """Runs kas and shows what BitBake says; `said` gets the lines as well."""
        argv = [*DYING_WITH_US, self.program, *words]
        # kas makes the last directory of the path only.
        self.build.parent.mkdir(parents=True, exist_ok=True)
        if sys.stdout.isatty() and said is None:
            # In a session of its own: ctrl-C is ours to pass on, once, and then to wait.
            process = subprocess.Popen(argv, cwd=self.tree, env=self.environment(), start_new_session=True)
            with self.ending(process):
                return process.wait()
        process = subprocess.Popen(
            argv,
            cwd=self.tree,
            env=self.environment(),
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        progress = Progress()
        with self.ending(process):
            assert process.stdout is not None
            for raw in process.stdout:
                line = KAS_PREFIX.sub("", raw.decode(errors="replace").rstrip("\n"))
                if said is not None:
                    said.append(line)
                progress.line(line)
            return process.wait()

    @contextlib.contextmanager
    def ending(self, process: subprocess.Popen[bytes]) -> Iterator[None]:
        """When somebody stops this: kas, BitBake and the server that it has started end, in this order."""
        # One that is there already may be at work for somebody else.
        foreign = self.server()
        try:
            yield
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGINT)
            say("BitBake ends the tasks it is at; ctrl-C once more stops them at once")
            with contextlib.suppress(subprocess.TimeoutExpired, Interrupted):
                self.drain(process)
            if process.poll() is None:
                end_group(process)
            if self.server() != foreign:
                self.end_server()
            raise

    @staticmethod
    def drain(process: subprocess.Popen[bytes]) -> None:
        if process.stdout is not None:
            # A full pipe would hold kas up. Its end is no sign of anything: BitBake's server may have it as well.
            threading.Thread(target=discard, args=(process.stdout.fileno(),), daemon=True).start()
        process.wait(INTERRUPT_PATIENCE)

    def server(self) -> int | None:
        """The process of BitBake's server in this build directory, if there is one."""
        try:
            pid = int((self.build / "bitbake.lock").read_text().split()[0])
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (OSError, ValueError, IndexError):
            return None
        return pid if b"bitbake-server" in command else None

    def end_server(self) -> None:
        """It stays for a minute in case there is another command, and its workers with it."""
        pid = self.server()
        if pid is None:
            return
        with contextlib.suppress(ProcessLookupError):
            group = os.getpgid(pid)
            os.kill(pid, signal.SIGTERM)
            limit = time.monotonic() + SERVER_PATIENCE
            while self.server() == pid and time.monotonic() < limit:
                time.sleep(0.1)
            # It leads a group of its own, in which its parsers and its hash server may have stayed.
            os.killpg(group, signal.SIGKILL)
