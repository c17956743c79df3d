"""The crates that the service is made of, against service/deny.toml: licences, versions that are there twice, sources.

cargo-deny does the same and more, but would have to be built on every fresh machine. What it has and this has not:
known vulnerabilities, from a database that it fetches.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

from scripts.lib.steps import Failure, capture, main_guard

SERVICE = Path(__file__).resolve().parents[2] / "service"
WORD = re.compile(r"\(|\)|[\w.+-]+")


class Crate(NamedTuple):
    name: str
    version: str
    licence: str
    where: str  # empty for crates.io


def is_allowed(expression: str, allowed: set[str]) -> bool:
    """
    Whether an SPDX expression can be met with these licences alone. AND binds before OR; a slash is what crates wrote
    for OR once.
    """
    words = WORD.findall(expression.replace("/", " OR "))

    def either() -> bool:
        result = both()
        while words[:1] == ["OR"]:
            words.pop(0)
            result = both() or result
        return result

    def both() -> bool:
        result = one()
        while words[:1] == ["AND"]:
            words.pop(0)
            result = one() and result
        return result

    def one() -> bool:
        if not words:
            raise ValueError
        name = words.pop(0)
        if name == "(":
            result = either()
            if words[:1] != [")"]:
                raise ValueError
            words.pop(0)
            return result
        if words[:1] == ["WITH"]:
            words.pop(0)
            name = f"{name} WITH {words.pop(0)}"
        return name in allowed

    try:
        result = either()
    except (ValueError, IndexError):
        return False
    return result and not words


def crates(graph: dict[str, Any]) -> set[Crate]:
    """Everything that is built, with its tests, for the targets of deny.toml."""
    # Not `cargo metadata`, which also lists what no feature in use asks for.
    command = ["cargo", "tree", "--locked", "--edges=normal,build,dev", "--prefix=none", "--format={p}\t{l}"]
    if graph.get("all-features"):
        command.append("--all-features")
    command += [f"--target={target}" for target in graph.get("targets", ())]
    found = set()
    for line in filter(None, capture(command, cwd=SERVICE).splitlines()):
        what, licence = line.removesuffix(" (*)").split("\t")
        name, version, *where = what.replace(" (proc-macro)", "").split(" ", 2)
        found.add(Crate(name, version.removeprefix("v"), licence.removesuffix(" (*)"), "".join(where)))
    return found


def wrong(found: set[Crate], rules: dict[str, Any]) -> list[str]:
    """What is not as the rules want it, a line each."""
    reasons = []
    allowed = set(rules["licenses"]["allow"])
    exceptions = {entry["crate"]: set(entry["allow"]) for entry in rules["licenses"].get("exceptions", ())}
    skipped = {entry["crate"] for entry in rules["bans"].get("skip", ())}
    versions = defaultdict(set)
    for crate in sorted(found):
        versions[crate.name].add(crate.version)
        if not is_allowed(crate.licence, allowed | exceptions.get(crate.name, set())):
            reasons.append(f"{crate.name} {crate.version}: the licence {crate.licence!r} is not among those allowed")
        if crate.where and crate.where != f"({SERVICE})":
            reasons.append(f"{crate.name} {crate.version}: comes from {crate.where}, which is not crates.io")
    for name, several in sorted(versions.items()):
        left = {version for version in several if f"{name}@{version}" not in skipped}
        if len(left) > 1:
            reasons.append(f"{name}: is there as {' and as '.join(sorted(left))}; move to one, or give the reason")
    for entry in sorted(skipped):
        name, _, version = entry.partition("@")
        if version not in versions[name] or len(versions[name]) < 2:
            reasons.append(f"{entry}: is no longer there twice; take it out of bans.skip")
    for name in sorted(set(exceptions) - set(versions)):
        reasons.append(f"{name}: is no longer there; take it out of licenses.exceptions")
    return reasons


def main() -> int:
    path = SERVICE / "deny.toml"
    rules = tomllib.loads(path.read_text())
    found = crates(rules["graph"])
    if reasons := wrong(found, rules):
        raise Failure(f"{path.name}: {'; '.join(reasons)}")
    print(f"{len(found)} crates: every licence is allowed, every version is there once or has its reason")
    return 0


if __name__ == "__main__":
    sys.exit(main_guard("dependencies", main))
