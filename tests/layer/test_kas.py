# SPDX-License-Identifier: MIT
"""kas.yml, its lock and its fragments, judged by kas's own schema and merge."""

from __future__ import annotations

import argparse
import re
import tempfile
import unittest
from itertools import permutations
from pathlib import Path
from typing import Any

from jsonschema.validators import validator_for
from kas import CONFIGSCHEMA
from kas.context import create_global_context
from kas.includehandler import IncludeHandler
from yaml import safe_load

from scripts.lib import bitbake
from scripts.lib.steps import Failure

ROOT = Path(__file__).resolve().parents[2]
MAIN = ROOT / "kas.yml"
LOCK = ROOT / "kas.lock.yml"
FRAGMENTS = sorted((ROOT / "conf" / "kas").glob("*.yml"))
COMMIT = re.compile(r"[0-9a-f]{40}")
# What stays as kas.yml has it, unless a fragment says so itself.
SINGLE = ("distro", "machine", "target", "task")
# The keys of local_conf_header that two fragments have on purpose: the later one wins, and
# scripts/build-image refuses both. Every other key is named after its fragment.
SHARED = {
    "edgeweb-init-manager": {"both-inits", "host-toolchain", "systemd", "sysvinit"},
    "edgeweb-libc": {"host-toolchain", "musl"},
    "edgeweb-mirrors": {"mirrors", "offline"},
}
# What the issue of builds asks for; a renamed fragment breaks other people's command lines.
EXPECTED = {
    "beaglebone",
    "both-inits",
    "core-image",
    "dev",
    "host-toolchain",
    "mirrors",
    "multilib",
    "musl",
    "offline",
    "qemuarm64",
    "raspberrypi4",
    "read-only-rootfs",
    "sdk",
    "size",
    "static",
    "systemd",
    "sysvinit",
    "testimage",
}

Config = dict[str, Any]


def setUpModule() -> None:
    # kas runs git (to see that the files joined are of one repository) with its context's environment.
    create_global_context(argparse.Namespace(no_color=True))


def load(path: Path) -> Config:
    return safe_load(path.read_text())


def remote_repos(*paths: Path) -> dict[str, Config]:
    return {
        name: repo
        for path in (MAIN, *paths)
        for name, repo in load(path).get("repos", {}).items()
        if repo and "url" in repo
    }


def combine(*paths: Path) -> Config:
    """What kas makes of the files joined with ':', its lock file included."""
    config, missing = IncludeHandler([str(path) for path in paths]).get_config()
    if missing:
        raise AssertionError(f"kas wants repositories that nobody names: {missing}")
    return config


def fragment(name: str) -> Path:
    return ROOT / "conf" / "kas" / f"{name}.yml"


def local_conf(config: Config) -> str:
    return "\n".join(config["local_conf_header"].values())


class SchemaTest(unittest.TestCase):
    def test_there_are_fragments(self) -> None:
        self.assertLessEqual(EXPECTED, {path.stem for path in FRAGMENTS})

    def test_headers(self) -> None:
        """Each begins with what it does and the line to type."""
        for path in FRAGMENTS:
            with self.subTest(path.name):
                text = path.read_text()
                self.assertRegex(text, r"\A# \S.*\n#")
                included = f"conf/kas/{path.name}" in load(MAIN)["header"]["includes"]
                line = "kas build kas.yml" + ("" if included else f":conf/kas/{path.name}")
                self.assertIn(f"#   {line}\n", text.split("\nheader:")[0] + "\n")
                self.assertLessEqual(len(bitbake.Fragment(path.stem, path).about), 100)

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
        self.assertEqual(set(remote_repos()), {"bitbake", "openembedded-core", "meta-yocto"})
        repos = remote_repos(*FRAGMENTS)
        for name, repo in repos.items():
            with self.subTest(name):
                self.assertRegex(repo["commit"], COMMIT)
                self.assertEqual(len(repo["commit"]), 40)
                self.assertTrue(repo["branch"], "kas checks that the commit is on this branch")
                self.assertTrue(repo["url"].startswith("https://"))

    def test_lock_says_the_same(self) -> None:
        locked = {name: repo["commit"] for name, repo in load(LOCK)["overrides"]["repos"].items()}
        pinned = {name: repo["commit"] for name, repo in remote_repos(*FRAGMENTS).items()}
        self.assertEqual(
            locked, pinned, "kas.yml or a fragment and kas.lock.yml name different commits; change both together"
        )

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
        for path in FRAGMENTS:
            with self.subTest(path.name):
                own = load(path)
                self.assertNotIn("overrides", own, "only the lock file pins")
                both = combine(MAIN, path)
                for key in SINGLE:
                    self.assertEqual(both.get(key), own.get(key, main.get(key)))
                for name, repo in main["repos"].items():
                    if name not in own.get("repos", {}):
                        self.assertEqual(both["repos"][name], repo)
                self.assertEqual(both["overrides"], load(LOCK)["overrides"])
                keys = set(own.get("local_conf_header", {}))
                for key, text in main["local_conf_header"].items():
                    if key not in keys:
                        self.assertEqual(both["local_conf_header"][key], text)
                for text in own.get("local_conf_header", {}).values():
                    self.assertIn(text, local_conf(both))

    def test_keys_are_shared_on_purpose_only(self) -> None:
        for path in FRAGMENTS:
            for key in load(path).get("local_conf_header", {}):
                with self.subTest(path.name, key=key):
                    if key in SHARED:
                        self.assertIn(path.stem, SHARED[key])
                    else:
                        self.assertEqual(key, f"edgeweb-{path.stem}")

    def test_the_main_file_says_systemd(self) -> None:
        self.assertEqual((combine(MAIN)["machine"], combine(MAIN)["distro"]), ("qemuarm", "poky"))
        self.assertIn('INIT_MANAGER = "systemd"', local_conf(combine(MAIN)).splitlines())

    def test_all_together(self) -> None:
        combine(MAIN, *FRAGMENTS)

    def test_last_init_manager_wins(self) -> None:
        names = ("systemd", "sysvinit", "host-toolchain")
        said = {name: re.findall(r'INIT_MANAGER = "([\w-]+)"', local_conf(load(fragment(name)))) for name in names}
        for first, last in permutations(names, 2):
            text = local_conf(combine(MAIN, fragment(first), fragment(last)))
            self.assertEqual(re.findall(r'^INIT_MANAGER = "([\w-]+)"$', text, re.MULTILINE), said[last])


class TemplateTest(unittest.TestCase):
    """conf/templates/edgeweb builds what kas.yml builds; scripts/test-layer gives it to oe-init-build-env."""

    FOLDER = ROOT / "meta-edgeweb" / "conf" / "templates" / "edgeweb"

    def test_where_oe_init_build_env_takes_it(self) -> None:
        self.assertTrue((self.FOLDER / ".." / ".." / "layer.conf").is_file())
        names = {path.name for path in self.FOLDER.iterdir()}
        self.assertEqual(names, {"bblayers.conf.sample", "conf-notes.txt", "conf-summary.txt", "local.conf.sample"})

    def test_settings(self) -> None:
        text = (self.FOLDER / "local.conf.sample").read_text()
        said = dict(re.findall(r'^([\w:]+) \?*= "([^"\\]*)"$', text, re.MULTILINE))
        main = combine(MAIN)
        self.assertEqual((said["MACHINE"], said["DISTRO"]), (main["machine"], main["distro"]))
        for name, value in re.findall(r'^([\w:]+) = "(.*)"$', local_conf(main), re.MULTILINE):
            self.assertEqual(said[name], value, name)

    def test_proposals_are_the_fragments(self) -> None:
        text = (self.FOLDER / "local.conf.sample").read_text()
        proposals = re.findall(r'^#([\w:-]+) = "(.*)"$', text, re.MULTILINE)
        self.assertGreaterEqual(len(proposals), 5)
        fragments = "".join(path.read_text() for path in FRAGMENTS)
        for name, value in proposals:
            for word in value.split():
                with self.subTest(name, word=word):
                    self.assertRegex(fragments, rf'{re.escape(name)} = "[^"]*\b{re.escape(word)}\b')

    def test_layers(self) -> None:
        text = (self.FOLDER / "bblayers.conf.sample").read_text()
        paths = re.findall(r"^  ##OEROOT##/(\S+) \\$", text, re.MULTILINE)
        wanted = {
            f"{name}/{layer}"
            for name, repo in combine(MAIN)["repos"].items()
            for layer, state in repo["layers"].items()
            if state != "disabled"
        }
        beside = {"meta" if path == "meta" else path.removeprefix("../") for path in paths}
        self.assertEqual({path.replace("openembedded-core/meta", "meta") for path in wanted}, beside)


class ChoiceTest(unittest.TestCase):
    """What scripts/build-image makes of names."""

    def test_all_that_go_together(self) -> None:
        chosen = bitbake.choose(["musl", "static", "size", "read-only-rootfs", "dev"])
        self.assertEqual([one.name for one in chosen], ["musl", "static", "size", "read-only-rootfs", "dev"])
        self.assertEqual(bitbake.join(chosen[:1]), "kas.yml:conf/kas/musl.yml")
        self.assertEqual(bitbake.decided("machine", chosen), "qemuarm")
        self.assertEqual(bitbake.decided("machine", bitbake.choose(["qemuarm64"])), "qemuarm64")

    def test_once_is_enough(self) -> None:
        self.assertEqual(len(bitbake.choose(["musl", "musl"])), 1)

    def test_those_that_exclude_each_other(self) -> None:
        for one, other, choice in (
            ("systemd", "sysvinit", "edgeweb-init-manager"),
            ("qemuarm64", "raspberrypi4", "machine"),
            ("host-toolchain", "musl", "edgeweb-libc"),
            ("host-toolchain", "beaglebone", "machine"),
            ("core-image", "multilib", "target"),
            ("mirrors", "offline", "edgeweb-mirrors"),
        ):
            with self.subTest(one=one, other=other), self.assertRaises(Failure) as caught:
                bitbake.choose([one, other])
            self.assertEqual(
                (str(caught.exception), caught.exception.status),
                (f"{one} and {other} both decide {choice}; leave one of them out", 2),
            )

    def test_unknown(self) -> None:
        with self.assertRaises(Failure) as caught:
            bitbake.choose(["muls"])
        self.assertIn("no fragment muls in conf/kas; there are beaglebone, ", str(caught.exception))

    def test_what_is_no_kas_file(self) -> None:
        for text, reason in (("a: [", "is not YAML"), ("just words", "is no kas file")):
            with tempfile.NamedTemporaryFile("w", suffix=".yml") as file:
                file.write(text)
                file.flush()
                with self.subTest(text), self.assertRaisesRegex(Failure, reason):
                    bitbake.choose(["musl", file.name])


if __name__ == "__main__":
    unittest.main()
