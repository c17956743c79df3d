# SPDX-License-Identifier: MIT
"""The CI examples: right by the systems' own schemas, right as shell, and what they name is there."""

from __future__ import annotations

import re
import subprocess
import sys
import unittest
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from yaml import safe_load

from scripts.lib import bitbake
from tests.layer.support import ROOT, tool

CI = ROOT / "ci"
WORKFLOW = CI / "github-workflow.yml"
GITLAB = CI / "gitlab-ci.yml"
JENKINS = CI / "Jenkinsfile"
EXAMPLES = (WORKFLOW, GITLAB, JENKINS)

CONFIGURATION = re.compile(r"kas\.yml(?::conf/kas/[\w$-]+\.yml)*")
IN_TREE = re.compile(r"(?<![\w/.-])(?:\.\./)?((?:ci|conf|scripts|meta-edgeweb|service)/[\w./-]*[\w-])")


def strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from strings(part)
    elif isinstance(value, list):
        for part in value:
            yield from strings(part)


def commands(path: Path) -> list[str]:
    """What a shell is given to do."""
    if path == JENKINS:
        return re.findall(r"^ *sh '(.*)'$", path.read_text(), re.MULTILINE)
    config = safe_load(path.read_text())
    if path == WORKFLOW:
        return [step["run"] for job in config["jobs"].values() for step in job["steps"] if "run" in step]
    parts = [config["default"], *(part for part in config.values() if isinstance(part, dict))]
    return [line for part in parts for key in ("before_script", "script") for line in part.get(key, ())]


def configurations(path: Path) -> set[str]:
    """Every kas configuration, with the fragments that a matrix puts in."""
    # Not the comments: what they say is no configuration of this example.
    texts = [path.read_text()] if path == JENKINS else list(strings(safe_load(path.read_text())))
    found = {name for text in texts for name in CONFIGURATION.findall(text)}
    if path == GITLAB:
        names = safe_load(path.read_text())["firmware"]["parallel"]["matrix"][0]["FRAGMENT"]
        found = {text.replace("$FRAGMENT", name) for text in found for name in names}
    return found


class ExampleTest(unittest.TestCase):
    def test_schemas(self) -> None:
        checker = Path(sys.executable).with_name("check-jsonschema")
        for schema, path in (("gitlab-ci", GITLAB), ("github-workflows", WORKFLOW)):
            with self.subTest(path.name):
                done = subprocess.run(
                    [checker, "--builtin-schema", f"vendor.{schema}", path], capture_output=True, text=True, check=False
                )
                self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_shell(self) -> None:
        shellcheck = tool("shellcheck", "shellcheck")
        for path in EXAMPLES:
            lines = commands(path)
            self.assertGreaterEqual(len(lines), 4)
            for line in lines:
                with self.subTest(path.name, line=line):
                    done = subprocess.run(
                        [shellcheck, "--shell=bash", "-"],
                        input=line + "\n",
                        capture_output=True,
                        text=True,
                        check=False,
                    )
                    self.assertEqual(done.returncode, 0, done.stdout)

    def test_each_builds_checks_and_tests(self) -> None:
        for path in EXAMPLES:
            text = "\n".join(commands(path))
            for words in ("kas-container build ", "-- --parse-only", "-c ../ci/check-layer", "-c testimage"):
                with self.subTest(path.name, words=words):
                    self.assertIn(words, text)
            # Without the hashes what is built is not found again.
            for variable in ("SSTATE_DIR", "BB_HASHSERVE_DB_DIR"):
                self.assertRegex(path.read_text(), rf"(?m)^ *{variable}\b")

    def test_what_is_tested_is_built_first(self) -> None:
        """testimage boots what is there; its fragment makes another image than the one without."""
        for path in EXAMPLES:
            lines = "\n".join(commands(path)).splitlines()
            tests = [line for line in lines if line.endswith(" -c testimage")]
            self.assertGreater(len(tests), 0, path.name)
            for line in tests:
                self.assertIn(line.removesuffix(" -c testimage"), lines[: lines.index(line)])

    def test_configurations(self) -> None:
        """Fragments that exist and that do not exclude each other."""
        for path in EXAMPLES:
            found = configurations(path)
            self.assertGreaterEqual(len(found), 2)
            for configuration in found:
                with self.subTest(path.name, configuration=configuration):
                    chosen = bitbake.choose([Path(part).stem for part in configuration.split(":")[1:]])
                    self.assertEqual(bitbake.join(chosen), configuration)

    def test_kas_is_the_tested_one(self) -> None:
        for path in EXAMPLES:
            versions = re.findall(r"""^ *KAS_VERSION(?:: | = )["'](.*)["']$""", path.read_text(), re.MULTILINE)
            self.assertEqual([f"kas=={version}" for version in versions], [bitbake.tested_kas()], path.name)

    def test_what_is_named_exists(self) -> None:
        for path in CI.glob("*"):
            for name in IN_TREE.findall(path.read_text()):
                with self.subTest(path.name, name=name):
                    self.assertTrue((ROOT / name).exists())
        for name in re.findall(r"^\| `([\w./-]+)` \|", (CI / "README.md").read_text(), re.MULTILINE):
            self.assertTrue((CI / name).exists(), name)

    def test_braces_of_the_jenkinsfile(self) -> None:
        bare = re.sub(r"""'[^'\n]*'|"[^"\n]*"|//.*""", "", JENKINS.read_text())
        depth = 0
        for sign in re.findall(r"[{}]", bare):
            depth += 1 if sign == "{" else -1
            self.assertGreaterEqual(depth, 0)
        self.assertEqual(depth, 0)

    def test_check_layer_outside_of_a_build(self) -> None:
        done = subprocess.run(
            [CI / "check-layer"], env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=False
        )
        self.assertEqual(
            (done.returncode, done.stderr),
            (1, "check-layer: this is no environment of a build; type: kas shell kas.yml -c ../ci/check-layer\n"),
        )


if __name__ == "__main__":
    unittest.main()
