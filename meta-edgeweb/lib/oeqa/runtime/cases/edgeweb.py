# SPDX-License-Identifier: MIT
"""The service on the device, for testimage: TEST_SUITES = "ping ssh edgeweb"."""

import json
import re
import time

from oeqa.core.decorator.data import skipIfDataVar, skipIfNotDataVar, skipIfNotFeature
from oeqa.core.decorator.depends import OETestDepends
from oeqa.runtime.case import OERuntimeTestCase
from oeqa.runtime.decorator.package import OEHasPackage

PATIENCE = 60  # s; an emulated machine may be slow
WATCHDOG_PATIENCE = 120  # s; 30 until systemd notices, and the restart
MEMORY = 8 * 1024  # KiB resident
EXPOSURE = 1.5  # by systemd-analyze security, from 0 to 10
INIT = "/etc/init.d/edgeweb"
MONITOR_LOG = "/var/log/edgeweb-monitor.log"

# What the unit denies the service, as systemd understood it.
CONFINED = {
    "User": "edgeweb",
    "CapabilityBoundingSet": "",
    "NoNewPrivileges": "yes",
    "ProtectSystem": "strict",
    "ProtectHome": "yes",
    "PrivateTmp": "yes",
    "PrivateDevices": "yes",
    "PrivateMounts": "yes",
    "ProtectKernelModules": "yes",
    "ProtectKernelTunables": "yes",
    "ProtectControlGroups": "yes",
    "RestrictNamespaces": "yes",
    "RestrictSUIDSGID": "yes",
    "MemoryDenyWriteExecute": "yes",
    "SystemCallArchitectures": "native",
}


class EdgewebCase(OERuntimeTestCase):
    def say(self, command):
        """The output of a command on the device that must succeed."""
        status, output = self.target.run(command)
        self.assertEqual(status, 0, f"{command}: status {status}: {output}")
        return output.strip()

    def pid(self):
        return json.loads(self.say("cat /run/edgeweb/endpoints.json"))["pid"]

    def port(self, scheme):
        """Where that is listened for first."""
        endpoints = json.loads(self.say("cat /run/edgeweb/endpoints.json"))["endpoints"]
        return next(endpoint["port"] for endpoint in endpoints if endpoint["scheme"] == scheme)

    def is_healthy(self):
        return self.target.run("edgeweb health")[0] == 0

    def until(self, condition, what, limit=PATIENCE):
        deadline = time.monotonic() + limit
        while not condition():
            if time.monotonic() > deadline:
                self.fail(f"not within {limit} s: {what}")
            time.sleep(1)

    def has_ended(self, pid):
        # A zombie still has its directory, but no command line.
        return not self.target.run(f"cat /proc/{pid}/cmdline 2>/dev/null")[1].strip("\0 \n")

    def comes_back(self, before, limit=PATIENCE):
        self.until(lambda: self.is_healthy() and self.pid() != before, "health in a new process", limit)

    def under_systemd(self):
        return self.td.get("VIRTUAL-RUNTIME_init_manager") == "systemd"

    def start(self):
        """For the end of a test that stops the service."""
        if not self.is_healthy():
            self.say("systemctl start edgeweb" if self.under_systemd() else f"{INIT} start")
        self.until(self.is_healthy, "health after a start")

    def log(self):
        """What the service told the system's log."""
        if self.under_systemd():
            return self.say("journalctl -q --no-pager -t edgeweb")
        # A file, or only a ring in memory.
        return self.say("(cat /var/log/messages 2>/dev/null || logread) | grep 'edgeweb\\[' || true")


class EdgewebTest(EdgewebCase):
    @OETestDepends(["ssh.SSHTest.test_ssh"])
    @OEHasPackage(["edgeweb"])
    def test_edgeweb_health(self):
        # The device may still be starting.
        self.until(self.is_healthy, "health after the boot")
        self.assertIn('{"status":"ok"}', self.say("edgeweb health"))
        self.say("edgeweb health --ready")
        self.say("edgeweb check-config")

    @OETestDepends(["edgeweb.EdgewebTest.test_edgeweb_health"])
    @OEHasPackage(["busybox", "wget"])
    def test_edgeweb_in_clear(self):
        # A device's wget may have no TLS.
        url = f"http://127.0.0.1:{self.port('http')}"
        self.assertEqual(self.say(f"wget -q -O - {url}/health"), '{"status":"ok"}')
        for path, options in (("/api/admin/users", ""), ("/api/public/session", "--post-data={}")):
            self.assertNotEqual(self.target.run(f"wget -q -O - {options} {url}{path}")[0], 0, path)

    @OETestDepends(["edgeweb.EdgewebTest.test_edgeweb_health"])
    def test_edgeweb_listens_over_tls(self):
        # Hexadecimal, as the kernel lists it among those that listen (0A).
        listening = self.say("cat /proc/net/tcp /proc/net/tcp6")
        self.assertRegex(listening, rf"(?m)^ *\d+: \w+:{self.port('https'):04X} \w+:0000 0A ")

    @OETestDepends(["edgeweb.EdgewebTest.test_edgeweb_health"])
    def test_edgeweb_users(self):
        self.say("echo seven blue herons at dusk | edgeweb user add oeqa --role user")
        self.assertRegex(self.say("edgeweb user list"), r"(?m)^oeqa +user$")
        self.say("edgeweb user remove oeqa")

    @OETestDepends(["edgeweb.EdgewebTest.test_edgeweb_health"])
    def test_edgeweb_own_user(self):
        status = self.say(f"cat /proc/{self.pid()}/status")
        uid = self.say("id -u edgeweb")
        self.assertNotEqual(uid, "0")
        self.assertRegex(status, rf"(?m)^Uid:\s+{uid}\s+{uid}\s+{uid}\s+{uid}$")
        self.assertRegex(status, r"(?m)^CapEff:\s+0+$")

    @OETestDepends(["edgeweb.EdgewebTest.test_edgeweb_health"])
    def test_edgeweb_directories(self):
        for path, mode in (("/run/edgeweb", "755"), ("/var/lib/edgeweb", "700")):
            self.assertEqual(self.say(f"stat -c '%U:%G %a' {path}/."), f"edgeweb:edgeweb {mode}", path)
        self.assertEqual(self.say("stat -c '%U %a' /var/lib/edgeweb/tls/device.key"), "edgeweb 600")
        self.assertEqual(self.say("stat -c '%U:%G %a' /etc/edgeweb/tls"), "root:edgeweb 750")
        for path in ("/usr/bin/edgeweb", "/etc/edgeweb/edgeweb.toml"):
            self.assertRegex(self.say(f"stat -L -c '%U %a' {path}"), r"^root [0-7][0-5][0-5]$", path)

    @skipIfNotFeature("read-only-rootfs", "the root file system is not read-only")
    @OETestDepends(["edgeweb.EdgewebTest.test_edgeweb_directories"])
    def test_edgeweb_read_only_root(self):
        self.assertNotEqual(self.target.run("touch /usr/bin/oeqa")[0], 0, "/usr can be written")
        self.say("touch /var/lib/edgeweb/oeqa && rm /var/lib/edgeweb/oeqa")

    @OETestDepends(["edgeweb.EdgewebTest.test_edgeweb_health"])
    def test_edgeweb_memory(self):
        # Not VmRSS, which is behind by up to 256 KiB a thread.
        rss = int(re.search(r"Rss:\s+(\d+) kB", self.say(f"cat /proc/{self.pid()}/smaps_rollup"))[1])
        self.assertLessEqual(rss, MEMORY)

    @OETestDepends(["edgeweb.EdgewebTest.test_edgeweb_health"])
    @OEHasPackage(["systemd", "busybox-syslog", "sysklogd", "rsyslog", "syslog-ng"])
    def test_edgeweb_log(self):
        self.assertRegex(self.log(), r"edgeweb\[\d+\]: listening on https://")

    @OETestDepends(["edgeweb.EdgewebTest.test_edgeweb_log"])
    def test_edgeweb_drain(self):
        pid = self.pid()
        self.addCleanup(self.start)
        self.say(f"kill -TERM {pid}")
        self.until(lambda: self.has_ended(pid), "the end after SIGTERM")
        said = "\n".join(line for line in self.log().splitlines() if f"edgeweb[{pid}]" in line)
        self.assertIn("SIGTERM: stopping", said)
        self.assertRegex(said, r"stopped$")


class EdgewebSysvinitTest(EdgewebCase):
    @OETestDepends(["edgeweb.EdgewebTest.test_edgeweb_health"])
    @skipIfDataVar("VIRTUAL-RUNTIME_init_manager", "systemd", "systemd starts the service of this image")
    def test_edgeweb_init_script(self):
        self.addCleanup(self.start)
        self.assertIn(f"running (pid {self.pid()})", self.say(f"{INIT} status"))
        self.say(f"{INIT} reload")
        self.say(f"{INIT} stop")
        self.assertEqual(self.target.run(f"{INIT} status")[0], 3)
        self.assertFalse(self.is_healthy())
        self.say(f"{INIT} start")
        self.assertTrue(self.is_healthy())

    @OETestDepends(["edgeweb.EdgewebSysvinitTest.test_edgeweb_init_script"])
    def test_edgeweb_monitor(self):
        self.addCleanup(self.start)
        before = self.pid()
        self.say(f"{INIT} monitor")
        self.assertEqual(self.pid(), before, "restarted in good health")
        self.say(f"kill -KILL {before}")
        # Cron may have been quicker.
        self.target.run(f"{INIT} monitor")
        self.comes_back(before)
        self.assertRegex(self.say(f"tail -n 1 {MONITOR_LOG}"), r"^\d{4}-\d\d-\d\dT[\d:]{8}Z edgeweb: .*restarted")

    @OETestDepends(["edgeweb.EdgewebSysvinitTest.test_edgeweb_monitor"])
    @OEHasPackage(["cronie"])
    def test_edgeweb_cron(self):
        before = self.pid()
        self.addCleanup(self.start)
        self.say(f"kill -KILL {before}")
        self.comes_back(before, 60 + PATIENCE)


class EdgewebSystemdTest(EdgewebCase):
    @OETestDepends(["edgeweb.EdgewebTest.test_edgeweb_health"])
    @skipIfNotDataVar("VIRTUAL-RUNTIME_init_manager", "systemd", "systemd does not start the service of this image")
    def test_edgeweb_unit(self):
        shown = self.say("systemctl show -p ActiveState,Type,MainPID edgeweb")
        self.assertIn("ActiveState=active", shown)
        self.assertIn(f"MainPID={self.pid()}", shown)

    @OETestDepends(["edgeweb.EdgewebSystemdTest.test_edgeweb_unit"])
    def test_edgeweb_confined(self):
        shown = self.say(f"systemctl show -p {','.join(CONFINED)} edgeweb")
        self.assertEqual(dict(line.split("=", 1) for line in shown.splitlines()), CONFINED)
        status = self.say(f"cat /proc/{self.pid()}/status")
        for line in (r"CapBnd:\s+0+", r"NoNewPrivs:\s+1", r"Seccomp:\s+2"):
            self.assertRegex(status, rf"(?m)^{line}$")

    @OETestDepends(["edgeweb.EdgewebSystemdTest.test_edgeweb_unit"])
    @OEHasPackage(["systemd-analyze"])
    def test_edgeweb_exposure(self):
        said = self.say("systemd-analyze security --no-pager edgeweb.service")
        self.assertLessEqual(float(re.search(r"Overall exposure level for \S+: ([\d.]+)", said)[1]), EXPOSURE, said)

    @OETestDepends(["edgeweb.EdgewebSystemdTest.test_edgeweb_unit"])
    def test_edgeweb_restart_after_kill(self):
        before = self.pid()
        self.addCleanup(self.start)
        self.say(f"kill -KILL {before}")
        self.comes_back(before)

    @OETestDepends(["edgeweb.EdgewebSystemdTest.test_edgeweb_restart_after_kill"])
    def test_edgeweb_watchdog(self):
        before = self.pid()
        self.addCleanup(self.start)
        self.say(f"kill -STOP {before}")
        self.comes_back(before, WATCHDOG_PATIENCE)

    @OETestDepends(["edgeweb.EdgewebSystemdTest.test_edgeweb_unit"])
    def test_edgeweb_stop_and_reload(self):
        self.addCleanup(self.start)
        before = self.pid()
        self.say("systemctl reload edgeweb")
        self.assertEqual(self.pid(), before)
        self.say("systemctl stop edgeweb")
        self.assertIn("Result=success", self.say("systemctl show -p Result edgeweb"))
        self.assertFalse(self.is_healthy())
