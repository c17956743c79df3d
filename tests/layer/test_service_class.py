# SPDX-License-Identifier: MIT
"""What edgeweb-service.bbclass makes of a recipe's variables; BitBake itself runs it in scripts/test-layer."""

from __future__ import annotations

import re
import unittest
from configparser import ConfigParser

from scripts.lib import service_files
from scripts.lib.layer import LAYER
from scripts.lib.steps import Failure

EXAMPLE = next(iter(LAYER.glob("recipes-example/*/*.bb")))


def unit(template: str, **changed: str) -> ConfigParser:
    """A unit whose keys may occur more than once; the last one is kept."""
    parser = ConfigParser(strict=False, interpolation=None, delimiters=("=",))
    parser.optionxform = str  # type: ignore[assignment, method-assign] # the keys of a unit have capitals
    parser.read_string(service_files.render(template, service_files.settings(EXAMPLE, systemd=True, **changed)))
    return parser


class SettingsTest(unittest.TestCase):
    """Wrong values are told from the recipe, not on the device."""

    def refuse(self, reason: str, **changed: str) -> None:
        with self.assertRaisesRegex(Failure, reason):
            service_files.settings(EXAMPLE, systemd=True, **changed)

    def test_wrong_values(self) -> None:
        cases = {
            "NAME": ("Tank", "ta nk", "../tank", "t" * 32, ""),
            "USER": ("root", "0", "a:b"),
            "COMMAND": ("", "tankd", "bin/tankd"),
            "CHECK": ("tankd --check",),
            "HEALTH": ("wget http://127.0.0.1/",),
            "RELOAD": ("1; reboot", "hup", "HUP INT"),
            "LOGPIPE": ("", "yes", "2"),
            "STDOUT_CONSOLE": ("", "yes", "2", "1"),
            "ADDRESS_FAMILIES": ("", "INET", "AF_INET,AF_UNIX", "~AF_INET"),
            "TYPE": ("simple", "forking", ""),
            "WATCHDOG": ("30", "soon"),
            "START_TIMEOUT": ("", "0", "1.5", "10s", "-1", "10000"),
            "STOP_TIMEOUT": ("", "0"),
        }
        for key, values in cases.items():
            for value in values:
                with self.subTest(f"{key} = {value!r}"):
                    self.refuse(f"EDGEWEB_SERVICE_{key} ", **{key: value})

    def test_what_a_shell_would_read(self) -> None:
        for character in "'\"`$\\%@;&|<>\n":
            with self.subTest(repr(character)):
                self.refuse("EDGEWEB_SERVICE_COMMAND holds .*; take it out", COMMAND=f"/usr/bin/tankd {character}")

    def test_right_values(self) -> None:
        service_files.settings(EXAMPLE, systemd=True, TYPE="notify", WATCHDOG="30", RELOAD="USR1", USER="_tank-1")


class UnitTest(unittest.TestCase):
    def test_a_service_that_knows_systemd(self) -> None:
        service = unit("service.unit.in", TYPE="notify", WATCHDOG="30")["Service"]
        self.assertEqual((service["Type"], service["NotifyAccess"], service["WatchdogSec"]), ("notify", "main", "30"))

    def test_a_service_that_does_not(self) -> None:
        service = unit("service.unit.in")["Service"]
        self.assertEqual(service["Type"], "exec")
        self.assertFalse({"NotifyAccess", "WatchdogSec", "ExecReload", "RestartPreventExitStatus"} & set(service))

    def test_reload(self) -> None:
        text = service_files.render(
            "service.unit.in",
            service_files.settings(EXAMPLE, systemd=True, RELOAD="HUP", CHECK="/usr/bin/tankd --check"),
        )
        reload = re.findall(r"^ExecReload=(.*)$", text, re.MULTILINE)
        self.assertEqual(reload, ["/usr/bin/tankd --check", "kill -HUP $MAINPID"])

    def test_output_in_the_log(self) -> None:
        command = "/usr/bin/tankd --foreground"
        for wanted, words in (("0", ""), ("1", "/usr/bin/edgeweb logpipe --tag tank -- ")):
            service = unit("service.unit.in", NAME="tank", COMMAND=command, LOGPIPE=wanted)["Service"]
            self.assertEqual(service["ExecStart"], words + command)

    def test_output_on_the_console(self) -> None:
        self.assertNotIn("StandardOutput", unit("service.unit.in", LOGPIPE="0")["Service"])
        service = unit("service.unit.in", LOGPIPE="0", STDOUT_CONSOLE="1")["Service"]
        # Standard error would follow standard output.
        self.assertEqual((service["StandardOutput"], service["StandardError"]), ("journal+console", "journal"))

    def test_a_check_without_reload_reloads_nothing(self) -> None:
        self.assertNotIn("ExecReload", unit("service.unit.in", CHECK="/usr/bin/tankd --check")["Service"])

    def test_capabilities(self) -> None:
        self.assertEqual(unit("service.unit.in")["Service"]["CapabilityBoundingSet"], "")
        service = unit("service.unit.in", CAPABILITIES="CAP_NET_BIND_SERVICE")["Service"]
        for key in ("CapabilityBoundingSet", "AmbientCapabilities"):
            self.assertEqual(service[key], "CAP_NET_BIND_SERVICE")

    def test_sockets(self) -> None:
        self.assertEqual(unit("service.unit.in")["Service"]["RestrictAddressFamilies"], "AF_INET AF_INET6 AF_UNIX")
        service = unit("service.unit.in", ADDRESS_FAMILIES="AF_UNIX")["Service"]
        self.assertEqual(service["RestrictAddressFamilies"], "AF_UNIX")

    def test_no_placeholder_is_left(self) -> None:
        values = service_files.settings(systemd=True)
        for template in sorted(service_files.TEMPLATES.iterdir()):
            with self.subTest(template.name):
                self.assertNotRegex(service_files.render(template.name, values), r"@[A-Z_]+\??@")


if __name__ == "__main__":
    unittest.main()
