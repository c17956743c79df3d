"""The start page in a real browser, served by the real service."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import time
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BINARY = ROOT / "service" / "target" / "debug" / "edgeweb"
LIMIT = 60.0  # s that the service or the browser gets


class StartPageTest(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        config = self.folder / "edgeweb.toml"
        config.write_text(
            f'server.runtime_dir = "{self.folder}/run"\nserver.state_dir = "{self.folder}/state"\n'
            f'tls.directory = "{self.folder}/tls"\nauth.provisioned_users = "{self.folder}/users.toml"\n'
            f'log.journal.directory = "{self.folder}/journal"\nlog.syslog.enabled = false\n'
            'http.address = "127.0.0.1"\nhttp.port = 0\nhttps.address = "127.0.0.1"\nhttps.port = 0\n'
        )
        self.assertTrue(BINARY.exists(), f"{BINARY} is missing; run cargo build in service/ first")
        service = subprocess.Popen([BINARY, "serve", "--config", config], stdout=subprocess.DEVNULL)
        self.addCleanup(service.wait, LIMIT)
        self.addCleanup(service.terminate)
        urls = self.wait_for_urls()
        self.url, self.url_in_clear = urls["https"], urls["http"]

    def wait_for_urls(self) -> dict[str, str]:
        deadline = time.monotonic() + LIMIT
        while time.monotonic() < deadline:
            try:
                endpoints = json.loads((self.folder / "run" / "endpoints.json").read_text())["endpoints"]
                return {e["scheme"]: f"{e['scheme']}://{e['address']}:{e['port']}/" for e in endpoints}
            except (OSError, ValueError):
                time.sleep(0.05)
        raise AssertionError("the service did not say where it listens")

    def browse(self, url: str) -> tuple[str, str]:
        """The document as it is after the page's scripts have run, and what the console said."""
        browser = shutil.which("chromium")
        self.assertIsNotNone(browser, "chromium is missing; install the Debian package chromium")
        done = subprocess.run(
            [
                str(browser),
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                # The device's certificate is signed by nobody but itself.
                "--ignore-certificate-errors",
                "--enable-logging=stderr",
                "--virtual-time-budget=8000",
                f"--user-data-dir={self.folder}/browser",
                "--dump-dom",
                url,
            ],
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=True,
        )
        console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
        return done.stdout, "\n".join(console)

    def test_shows_the_live_health_of_the_device(self) -> None:
        document, console = self.browse(self.url)
        self.assertIn("The device is well.", document)
        self.assertIn('data-state="ok"', document)
        self.assertIn('<tr data-state="pass"><td>lifecycle</td><td>pass</td><td></td></tr>', document)
        version = subprocess.run([BINARY, "version"], capture_output=True, text=True, check=True)
        self.assertIn(f'<dd id="version">{version.stdout.splitlines()[0].split()[1]}</dd>', document)
        self.assertRegex(document, r'<dd id="uptime">00:00:\d\d</dd>')
        # A violation of the content security policy or a missing file would be said here.
        self.assertEqual(console, "")

    def test_in_clear_it_is_led_to_https(self) -> None:
        document, console = self.browse(self.url_in_clear)
        self.assertIn("The device is well.", document)
        self.assertEqual(console, "")


if __name__ == "__main__":
    unittest.main()
