# SPDX-License-Identifier: MIT
"""What is said of crates that service/deny.toml does not want; scripts/test asks it of those that there are."""

from __future__ import annotations

import unittest

from scripts.lib.dependencies import Crate, is_allowed, wrong

RULES = {
    "licenses": {"allow": ["MIT", "ISC"], "exceptions": [{"crate": "odd", "allow": ["MPL-2.0"]}]},
    "bans": {"skip": [{"crate": "twice@1.0.0", "reason": "of old"}]},
}
GOOD = {
    Crate("one", "1.0.0", "MIT OR Apache-2.0", ""),
    Crate("odd", "1.0.0", "MPL-2.0", ""),
    Crate("twice", "1.0.0", "MIT", ""),
    Crate("twice", "2.0.0", "MIT", ""),
}


class LicenceTest(unittest.TestCase):
    def test_expressions(self) -> None:
        for expression, expected in {
            "MIT": True,
            "GPL-3.0": False,
            "MIT OR GPL-3.0": True,
            "GPL-3.0 OR MIT": True,
            "GPL-3.0/MIT": True,
            "MIT AND GPL-3.0": False,
            "MIT AND ISC": True,
            "(MIT OR GPL-3.0) AND ISC": True,
            "(MIT OR ISC) AND GPL-3.0": False,
            "GPL-3.0 OR MIT AND ISC": True,
            "MIT OR ISC AND GPL-3.0": True,
            "GPL-3.0 AND MIT OR GPL-2.0": False,
            "MIT WITH LLVM-exception": False,
            "": False,
            "MIT OR": False,
            "(MIT": False,
            "MIT ISC": False,
        }.items():
            with self.subTest(expression):
                self.assertEqual(is_allowed(expression, {"MIT", "ISC"}), expected)


class RulesTest(unittest.TestCase):
    def says(self, found: set[Crate], *expected: str) -> None:
        reasons = wrong(found, RULES)
        self.assertEqual(len(reasons), len(expected), reasons)
        for reason, pattern in zip(reasons, expected, strict=True):
            self.assertRegex(reason, pattern)

    def test_what_is_right(self) -> None:
        self.says(GOOD)

    def test_licence(self) -> None:
        self.says(GOOD | {Crate("new", "1.0.0", "GPL-3.0", "")}, "new 1.0.0: the licence 'GPL-3.0'")
        self.says(GOOD | {Crate("new", "1.0.0", "MPL-2.0", "")}, "new 1.0.0: the licence 'MPL-2.0'")

    def test_versions(self) -> None:
        self.says(GOOD | {Crate("one", "2.0.0", "MIT", "")}, "one: is there as 1.0.0 and as 2.0.0")
        self.says(GOOD | {Crate("twice", "3.0.0", "MIT", "")}, "twice: is there as 2.0.0 and as 3.0.0")

    def test_source(self) -> None:
        self.says(GOOD | {Crate("new", "1.0.0", "MIT", "(https://elsewhere/new)")}, "new 1.0.0: comes from")

    def test_what_is_no_longer_needed(self) -> None:
        self.says({crate for crate in GOOD if crate.version == "1.0.0"}, "twice@1.0.0: .* take it out")
        self.says({crate for crate in GOOD if crate.name != "odd"}, "odd: .* take it out")


if __name__ == "__main__":
    unittest.main()
