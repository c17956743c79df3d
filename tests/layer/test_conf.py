# SPDX-License-Identifier: MIT
"""The values that edgeweb-conf.bb finds in a configuration, and which of them it takes for placeholders."""

from __future__ import annotations

import re
import tempfile
import unittest

from scripts.lib.layer import LAYER, library
from scripts.lib.service_files import CONFIGURATION

RECIPE = LAYER / "recipes-edgeweb" / "edgeweb-conf" / "edgeweb-conf.bb"
conf = library("conf")

Value = tuple[str, int, str]


def values(text: str) -> list[Value]:
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
        file.write(text)
        file.flush()
        return list(conf.values(file.name))


class ValuesTest(unittest.TestCase):
    def test_tables_and_comments(self) -> None:
        text = """
            [log] # where to
            filter = "info" # not "warn"
            #tag = "edgeweb"
            [log.syslog]
            socket = '/dev/log'
            enabled = true
            names = ["a#b", 'c', "d \\"e\\""]
        """
        self.assertEqual(
            values(text),
            [
                ("log.filter", 3, "info"),
                ("log.syslog.socket", 6, "/dev/log"),
                ("log.syslog.names", 8, "a#b"),
                ("log.syslog.names", 8, "c"),
                ("log.syslog.names", 8, 'd \\"e\\"'),
            ],
        )

    def test_placeholders(self) -> None:
        pattern = re.search(r'^EDGEWEB_CONF_PLACEHOLDERS \?= "(.*)"$', RECIPE.read_text(), re.MULTILINE)
        assert pattern is not None
        for value in [
            "changeme",
            "CHANGE-ME",
            "change_me",
            "TODO",
            "fixme",
            "xxx",
            "XXXXX",
            "<host>",
            "@HOST@",
            "your-host",
            "logs.example.com",
        ]:
            with self.subTest(value):
                self.assertTrue(re.fullmatch(pattern[1], value, re.IGNORECASE))
        for value in ["", "info", "/dev/log", "tank@site", "exchange", "logs.factory.net", "x", "a < b > c"]:
            with self.subTest(value):
                self.assertFalse(re.fullmatch(pattern[1], value, re.IGNORECASE))

    def test_the_shipped_file_has_nothing_to_warn_of(self) -> None:
        self.assertEqual(list(conf.values(CONFIGURATION)), [])


if __name__ == "__main__":
    unittest.main()
