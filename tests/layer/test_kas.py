# SPDX-License-Identifier: MIT
"""kas.yml, its lock and its fragments, judged by kas's own schema and merge."""

from __future__ import annotations

import argparse
import re
import unittest
from pathlib import Path
from typing import Any

from jsonschema.validators import validator_for
from kas import CONFIGSCHEMA
from kas.context import create_global_context
from kas.includehandler import IncludeHandler
from yaml import safe_load

ROOT = Path(__file__).resolve().parents[2]
MAIN = ROOT / "kas.yml"
LOCK = ROOT / "kas.lock.yml"
FRAGMENTS = sorted((ROOT / "conf" / "kas").glob("*.yml"))
COMMIT = re.compile(r"[0-9a-f]{40}")
# What a build that was made with kas.yml is; a fragment for a board may set machine, none may set the rest.
FIXED = ("distro", "target", "repos")

Config = dict[str, Any]


def setUpModule() -> None:
    # kas runs git (to see that the files joined are of one repository) with its context's environment.
    create_global_context(argparse.Namespace(no_color=True))


def load(path: Path) -> Config:
    return safe_load(path.read_text())


def remote_repos() -> dict[str, Config]:
    return {name: repo for name, repo in load(MAIN)["repos"].items() if repo and "url" in repo}


def combine(*paths: Path) -> Config:
    """What kas makes of the files joined with ':', its lock file included."""
    config, missing = IncludeHandler([str(path) for path in paths]).get_config()
    if missing:
        raise AssertionError(f"kas wants repositories that nobody names: {missing}")
    return config


def local_conf(config: Config) -> str:
    return "\n".join(config["local_conf_header"].values())


class SchemaTest(unittest.TestCase):
    def test_there_are_fragments(self) -> None:
        self.assertGreater(len(FRAGMENTS), 0)

    def test_schema(self) -> None:
        validator = validator_for(CONFIGSCHEMA)(CONFIGSCHEMA)
        for path in (MAIN, LOCK, *FRAGMENTS):
            with self.subTest(path.name):
                errors = [f"{error.json_path}: {error.message}" for error in validator.iter_errors(load(path))]
                self.assertEqual(errors, [])

    def test_lock_is_found_by_kas(self) -> None:
        self.assertEqual(IncludeHandler([str(MAIN)]).get_lock_filename(), LOCK)


class PinTest(unittest.TestCase):
    def test_every_repository_is_pinned(self) -> None:
        repos = remote_repos()
        self.assertEqual(set(repos), {"bitbake", "openembedded-core", "meta-yocto"})
        for name, repo in repos.items():
            with self.subTest(name):
                self.assertRegex(repo["commit"], COMMIT)
                self.assertEqual(len(repo["commit"]), 40)
                self.assertTrue(repo["branch"], "kas checks that the commit is on this branch")
                self.assertTrue(repo["url"].startswith("https://"))

    def test_lock_says_the_same(self) -> None:
        locked = {name: repo["commit"] for name, repo in load(LOCK)["overrides"]["repos"].items()}
        pinned = {name: repo["commit"] for name, repo in remote_repos().items()}
        self.assertEqual(locked, pinned, "kas.yml and kas.lock.yml name different commits; change both together")

    def test_layer_is_in_the_build(self) -> None:
        for layer in load(MAIN)["repos"]["edgeweb"]["layers"]:
            self.assertTrue((ROOT / layer / "conf" / "layer.conf").is_file())

    def test_series(self) -> None:
        """The metadata that is pinned is of the series that the layer says it works with."""
        text = (ROOT / "meta-edgeweb" / "conf" / "layer.conf").read_text()
        compatible = re.search(r'^LAYERSERIES_COMPAT_edgeweb = "(.*)"$', text, re.MULTILINE)
        assert compatible is not None, "meta-edgeweb/conf/layer.conf names no series"
        self.assertIn(remote_repos()["openembedded-core"]["branch"], compatible[1].split())

    def test_target_exists(self) -> None:
        target = load(MAIN)["target"]
        self.assertTrue(list((ROOT / "meta-edgeweb").glob(f"recipes-*/*/{target}.bb")), target)


class FragmentTest(unittest.TestCase):
    def test_each_joins_the_main_file(self) -> None:
        main = combine(MAIN)
        for fragment in FRAGMENTS:
            with self.subTest(fragment.name):
                self.assertNotIn("overrides", load(fragment), "only the lock file pins")
                both = combine(MAIN, fragment)
                for key in FIXED:
                    if key not in load(fragment):
                        self.assertEqual(both[key], main[key])
                self.assertEqual(both["overrides"], load(LOCK)["overrides"])
                for key, text in main.get("local_conf_header", {}).items():
                    self.assertEqual(both["local_conf_header"][key], text, f"{fragment.name} overwrites {key}")
                for text in load(fragment).get("local_conf_header", {}).values():
                    self.assertIn(text, local_conf(both))

    def test_all_together(self) -> None:
        combine(MAIN, *FRAGMENTS)

    def test_last_init_manager_wins(self) -> None:
        choices = {name: ROOT / "conf" / "kas" / f"{name}.yml" for name in ("systemd", "sysvinit")}
        for first, last in (("systemd", "sysvinit"), ("sysvinit", "systemd")):
            text = local_conf(combine(MAIN, choices[first], choices[last]))
            self.assertEqual(re.findall(r'^INIT_MANAGER = "(\w+)"$', text, re.MULTILINE), [last])


if __name__ == "__main__":
    unittest.main()
