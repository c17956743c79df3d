# SPDX-License-Identifier: MIT
"""Other people's rules for recipes, shell scripts and units, and what yocto-check-layer reads."""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
import unittest
from pathlib import Path

from scripts.lib import service_files
from scripts.lib.layer import LAYER
from tests.layer.support import ROOT, run, tool

# Every recipe that has its unit and its init script from edgeweb-service.bbclass.
SERVICES = (service_files.EDGEWEB, *sorted(LAYER.glob("recipes-example/*/*.bb")))
UNITS = {
    "service.unit.in": ".service",
    "monitor.unit.in": "-monitor.service",
    "monitor.timer.in": "-monitor.timer",
}

# Findings in the generated recipe that are the generator's, and why they do no harm. The file is
# never edited, so they cannot be put right there; in every other file they count.
GENERATED = {
    "oelint.file.includenotfound": "edgeweb-${PV}.inc is optional",
    "oelint.file.requireinclude": "the generator writes include; test_recipe.py sees that edgeweb.inc is there",
    "oelint.newline.consecutive": "an empty PV:append",
    "oelint.var.order.LIC_FILES_CHKSUM": "the generator's order",
    "oelint.var.order.SRC_URI": "the generator's order",
    "oelint.var.order.SUMMARY": "the generator's order",
    "oelint.var.override": "what edgeweb.inc is for",
    "oelint.vars.inconspaces": 'SRC_URI += " \\ at the head of the crates',
    "oelint.vars.summary80chars": "the crate's description; edgeweb.inc has a shorter one",
    "oelint.vars.unpackdir": "S, which edgeweb.inc sets",
}
SUPPRESSED = (
    "oelint.vars.homepageping",  # would ask the network for the home page
    "oelint.bbclass.underscores",  # OE-Core's own classes are named with hyphens
    "oelint.file.underscores",  # a recipe of files alone has no version
)
# Of a variable that is the layer's own.
UNKNOWN = re.compile(r"'(EDGEWEB|IMAGE_SIGNING)_\w+' is unknown")


class OelintTest(unittest.TestCase):
    def test_layer(self) -> None:
        program = Path(sys.executable).with_name("oelint-adv")
        self.assertTrue(program.exists(), f"{program} is missing; pip install -r tests/requirements.txt")
        series = re.search(r'LAYERSERIES_COMPAT_edgeweb = "(\w+)', (LAYER / "conf" / "layer.conf").read_text())
        assert series is not None
        paths = sorted(
            path.relative_to(ROOT)
            for pattern in ("*.bb", "*.bbappend", "*.bbclass", "*.conf")
            for path in LAYER.rglob(pattern)
        )
        self.assertGreaterEqual(len(paths), 3)
        with tempfile.TemporaryDirectory() as home:
            result = run(
                program,
                *("--quiet", "--relpaths", "--exit-zero", "--mode", "all", "--hide", "info"),
                *("--release", series[1], *(f"--suppress={rule}" for rule in SUPPRESSED)),
                *("--messageformat", "{path}|{line}|{severity}|{id}|{msg}"),
                *paths,
                HOME=home,
            )
        self.assertEqual(result.returncode, 0, result.stderr)
        lines = [line for line in (result.stdout + result.stderr).splitlines() if line.strip()]
        findings = [line.split("|", 4) for line in lines]
        self.assertTrue(all(len(finding) == 5 for finding in findings), "\n".join(lines))
        # The generator's own findings prove that the linter read the recipe at all.
        generated = {rule for path, _, _, rule, _ in findings if re.search(r"/edgeweb_[^/]*\.bb$", path)}
        self.assertIn("oelint.vars.unpackdir", generated)
        ours = [
            " ".join(finding)
            for finding in findings
            if not (re.search(r"/edgeweb_[^/]*\.bb$", finding[0]) and finding[3] in GENERATED)
            and not UNKNOWN.match(finding[4])
        ]
        self.assertEqual(ours, [])


class ShellTest(unittest.TestCase):
    def test_init_scripts(self) -> None:
        for recipe in SERVICES:
            with self.subTest(recipe.name), tempfile.NamedTemporaryFile("w", suffix=".init") as file:
                text = service_files.render("service.init.in", service_files.settings(recipe, systemd=False))
                self.assertTrue(text.startswith("#!/bin/sh\n"))
                file.write(text)
                file.flush()
                result = run(tool("shellcheck", "shellcheck"), "--shell=sh", file.name)
                self.assertEqual(result.returncode, 0, result.stdout + result.stderr)

    def test_lsb_header(self) -> None:
        text = service_files.render("service.init.in", service_files.settings(systemd=False))
        header = re.search(r"^### BEGIN INIT INFO\n(.*?)^### END INIT INFO$", text, re.MULTILINE | re.DOTALL)
        assert header is not None, "no LSB header"
        keys = re.findall(r"^# ([\w-]+):", header[1], re.MULTILINE)
        wanted = "Provides Required-Start Required-Stop Default-Start Default-Stop Short-Description"
        self.assertLessEqual(set(wanted.split()), set(keys))

    def test_update_recipe(self) -> None:
        result = run(tool("shellcheck", "shellcheck"), "scripts/update-recipe")
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)


class UnitTest(unittest.TestCase):
    """systemd's own opinion, in a root of its own: this machine's units and users do not matter."""

    def setUp(self) -> None:
        self.analyze = tool("systemd-analyze", "systemd")
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = Path(folder.name)
        self.units = self.root / "usr" / "lib" / "systemd" / "system"
        self.units.mkdir(parents=True)
        for target in ("basic", "multi-user", "network", "shutdown", "sysinit", "timers"):
            (self.units / f"{target}.target").write_text(f"[Unit]\nDescription={target}\n")
        (self.root / "bin").symlink_to("usr/bin")
        for name in ("bin/edgeweb", "bin/kill", "bin/sh", "bin/wget", "sbin/mini_httpd"):
            (self.root / "usr" / name).parent.mkdir(exist_ok=True)
            shutil.copy("/bin/true", self.root / "usr" / name)

    def write(self, recipe: Path, systemd: bool) -> str:
        values = service_files.settings(recipe, systemd=systemd)
        for template, unit in UNITS.items():
            name = f"{values['NAME']}{unit}"
            (self.units / name).write_text(service_files.render(template, values))
        return values["NAME"]

    def test_verify(self) -> None:
        for recipe in SERVICES:
            for systemd in (True, False):
                with self.subTest(f"{recipe.name}, PACKAGECONFIG {'with' if systemd else 'without'} systemd"):
                    name = self.write(recipe, systemd)
                    options = (f"--root={self.root}", "--man=no", "--recursive-errors=no")
                    result = run(self.analyze, "verify", *options, *(f"{name}{unit}" for unit in UNITS.values()))
                    self.assertEqual((result.returncode, result.stdout + result.stderr), (0, ""))

    def test_exposure(self) -> None:
        # 1.3 of 10 when this was written; threshold is in tenths.
        for recipe in SERVICES:
            with self.subTest(recipe.name):
                name = self.write(recipe, True)
                options = (f"--root={self.root}", "--offline=true", "--threshold=15", "--no-pager")
                result = run(self.analyze, "security", *options, f"{name}.service")
                self.assertEqual(result.returncode, 0, result.stdout + result.stderr)


class CheckLayerTest(unittest.TestCase):
    """What yocto-check-layer asks of the layer's documents, without BitBake."""

    def test_readme(self) -> None:
        text = (LAYER / "README.md").read_text()
        for word in ("maintainer", "patch"):
            self.assertRegex(text, re.compile(word, re.IGNORECASE))
        self.assertRegex(text, r"[\w.+-]+@[\w-]+\.[\w.-]+")
        # check-layer takes a mention of another one for a pointer to it, and looks no further.
        self.assertNotRegex(text, re.compile("readme", re.IGNORECASE))

    def test_documents(self) -> None:
        self.assertTrue((LAYER / "SECURITY.md").is_file())
        self.assertEqual((LAYER / "COPYING.MIT").read_text(), (ROOT / "LICENSE").read_text())


if __name__ == "__main__":
    unittest.main()
