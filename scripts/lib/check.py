"""`scripts/run --check`: the black-box suite on the service that was just started."""

from __future__ import annotations

import sys
import unittest
from pathlib import Path
from typing import Any

from scripts.lib.steps import Interrupted
from scripts.lib.target import Target

ROOT = Path(__file__).resolve().parents[2]


class _Result(unittest.TextTestResult):
    """unittest takes an interruption for one more error, and goes on."""

    interrupted: Interrupted | None = None

    def addError(self, test: unittest.TestCase, err: Any) -> None:
        if not self._stops(err):
            super().addError(test, err)

    def addSubTest(self, test: unittest.TestCase, subtest: unittest.TestCase, err: Any) -> None:
        if not self._stops(err):
            super().addSubTest(test, subtest, err)

    def wasSuccessful(self) -> bool:
        return super().wasSuccessful() and self.interrupted is None

    def _stops(self, err: Any) -> bool:
        if err and isinstance(err[1], Interrupted):
            self.interrupted = err[1]
            self.stop()
        return self.interrupted is not None


def report(target: Target) -> int:
    """Prints a line for each test, says why one was skipped, and returns the exit status."""
    from tests.blackbox.case import Case  # not needed to start a machine

    print(f"checking {target.name}; its features: {', '.join(sorted(target.features)) or 'none'}", flush=True)
    Case.target = target
    suite = unittest.TestLoader().discover(str(ROOT / "tests/blackbox"), top_level_dir=str(ROOT))
    result = unittest.TextTestRunner(stream=sys.stdout, resultclass=_Result, verbosity=2, warnings="ignore").run(suite)
    if result.interrupted:
        raise result.interrupted
    return 0 if result.wasSuccessful() and result.testsRun else 1
