"""What the device's own shell sees of the service: its process, its files, its log, its end and its return."""

from __future__ import annotations

import json
import re
import select
import shlex
import socket
import ssl
import threading
import time

from scripts.lib.https import any_certificate
from scripts.lib.ports import LOOPBACK
from tests.blackbox.case import Case, answers, needs

DESCRIPTORS = 40  # open files of an idle service: its threads' polls and pipes, its sockets
LARGE = 12 << 20  # bytes
INIT = "/etc/init.d/edgeweb"


class ServiceCase(Case):
    def lines(self) -> list[str]:
        """What the service told the system's log."""
        if "systemd" in self.target.features:
            return self.say_there("journalctl -q --no-pager -o short-full -t edgeweb").splitlines()
        # BusyBox's syslogd has a file, or only a ring in memory.
        read = "cat /var/log/messages.0 /var/log/messages 2>/dev/null || logread"
        return self.say_there(f"({read}) | grep 'edgeweb\\[' || true").splitlines()

    def resident(self) -> int:
        """KiB. The kernel's quick count, VmRSS, is behind by up to 256 KiB a thread."""
        return int(self.say_there(f"sed -n 's/^Rss: *\\([0-9]*\\) kB/\\1/p' /proc/{self.pid()}/smaps_rollup"))

    def descriptors(self) -> int:
        return int(self.say_there(f"ls /proc/{self.pid()}/fd | wc -l"))

    def signal(self, name: str) -> None:
        self.say_there(f"kill -{name} {self.pid()}")

    def keep_configuration(self) -> None:
        self.say_there(f"cp -p {shlex.quote(self.target.config)} {shlex.quote(self.target.config)}.kept")

    def put_configuration_back(self) -> None:
        self.say_there(f"mv {shlex.quote(self.target.config)}.kept {shlex.quote(self.target.config)}")

    def change_limits(self, lines: str) -> None:
        """Until the end of the test; a smaller header among them shows when they are in force."""

        def status() -> int:
            return self.ask("/health", x="x" * 4000).status

        self.assertEqual(status(), 200)
        self.keep_configuration()
        self.addCleanup(self.until, lambda: status() == 200, "the old configuration")
        self.addCleanup(self.signal, "HUP")
        self.addCleanup(self.put_configuration_back)
        self.configure("limits", lines)
        self.signal("HUP")
        self.until(lambda: status() == 431, "the new limits")

    def configure(self, *tables_and_keys: str) -> None:
        """The kept configuration with a key more in each of these tables."""
        config = shlex.quote(self.target.config)
        pairs = zip(tables_and_keys[::2], tables_and_keys[1::2], strict=True)
        edits = " ".join(f"-e '/^\\[{table}\\]$/a {line}'" for table, line in pairs)
        self.say_there(f"sed {edits} {config}.kept > {config}")

    def revive(self) -> None:
        """For a test that ends the service: whatever becomes of the test, the next one finds it running."""
        assert self.target.start
        if not self.is_healthy():
            self.target.start()
            self.until(self.is_healthy, "health after a new start")

    def restart(self) -> None:
        if self.is_healthy():
            pid = self.pid()
            self.signal("TERM")
            self.until(lambda: self.has_ended(pid), "the end after SIGTERM", 75)
        self.revive()

    def reloads_in_the_same_process(self, command: str) -> None:
        before, count = self.pid(), len(self.lines())
        self.say_there(command)
        said = "the new configuration is in force"
        self.until(lambda: any(said in line for line in self.lines()[count:]), "a line about the reload")
        self.assertEqual(self.pid(), before)


@needs("shell")
class Process(ServiceCase):
    def test_says_where_it_listens(self) -> None:
        written = json.loads(self.say_there(f"cat {self.target.runtime_dir}/endpoints.json"))
        self.assertIn("edgeweb", self.say_there(f"cat /proc/{written['pid']}/cmdline"))
        self.assertEqual(sorted(endpoint["scheme"] for endpoint in written["endpoints"]), ["http", "https"])
        # hexadecimal, as the kernel lists it among those that listen (0A)
        listening = self.say_there("cat /proc/net/tcp /proc/net/tcp6")
        for endpoint in written["endpoints"]:
            self.assertRegex(listening, rf"(?m)^ *\d+: \w+:{endpoint['port']:04X} \w+:0000 0A ")

    def test_commands(self) -> None:
        config = f"--config {shlex.quote(self.target.config)}"
        self.assertIn('{"status":"ok"}', self.say_there(f"{self.target.command} health {config}"))
        self.say_there(f"{self.target.command} health --ready {config}")
        self.say_there(f"{self.target.command} check-config {config}")
        self.assertIn(self.ask("/api/public/about").json()["version"], self.say_there(f"{self.target.command} version"))

    def test_memory_and_descriptors_stay_within_bounds(self) -> None:
        before = self.descriptors()
        self.assertLessEqual(before, DESCRIPTORS)

        def load() -> None:
            for _ in range(50):
                self.ask("/")
                self.ask("/nowhere", "POST", b"x" * 10_000)

        clients = [threading.Thread(target=load) for _ in range(4)]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
        self.assertLessEqual(self.resident(), self.target.memory_limit)
        self.until(lambda: self.descriptors() <= before + 2, "descriptors given back")

    @needs("own-user")
    def test_runs_as_its_own_user_without_privileges(self) -> None:
        status = self.say_there(f"cat /proc/{self.pid()}/status")
        uid = self.say_there("id -u edgeweb")
        self.assertNotEqual(uid, "0")
        self.assertRegex(status, rf"(?m)^Uid:\s+{uid}\s+{uid}\s+{uid}\s+{uid}$")
        for capabilities in ("CapPrm", "CapEff", "CapAmb"):
            self.assertRegex(status, rf"(?m)^{capabilities}:\s+0+$")

    @needs("own-user")
    def test_its_directories_are_its_own(self) -> None:
        for path, mode in ((self.target.runtime_dir, "755"), (self.target.state_dir, "700")):
            self.assertEqual(self.say_there(f"stat -c '%U:%G %a' {path}/."), f"edgeweb:edgeweb {mode}", path)
        self.assertEqual(self.say_there(f"stat -c '%U %a' {self.target.runtime_dir}/endpoints.json"), "edgeweb 644")
        # The command, the unit and the configuration are not the service's to change.
        for path in (self.target.command, self.target.config):
            self.assertRegex(self.say_there(f"stat -c '%U %a' {path}"), r"^root [0-7]?[0-7][0-5][0-5]$", path)

    @needs("syslog")
    def test_its_lines_are_in_the_log(self) -> None:
        self.assertRegex("\n".join(self.lines()), r"edgeweb\[\d+\]: listening on https://")

    @needs("config")
    def test_takes_a_changed_configuration_over_and_refuses_a_wrong_one(self) -> None:
        before = self.pid()
        self.assertEqual(self.ask("/health", x="x" * 4000).status, 200)
        self.change_limits("max_header_bytes = 2048")
        self.configure("limits", "max_header_bytes = 1")
        config = shlex.quote(self.target.config)
        check = self.run_there(f"{self.target.command} check-config --config {config}")
        self.assertEqual(check.returncode, 2)
        self.assertIn("limits.max_header_bytes", check.stdout + check.stderr)
        self.signal("HUP")
        if "syslog" in self.target.features:
            said = "the old configuration stays in force"
            self.until(lambda: said in "\n".join(self.lines()), "a line that says that the old one stays")
        self.assertEqual(self.ask("/health", x="x" * 4000).status, 431)
        self.assertEqual(self.pid(), before)

    @needs("config")
    def test_the_number_of_connections_is_bounded(self) -> None:
        self.change_limits("max_connections = 16\\nmax_header_bytes = 2048")
        held = []

        def status() -> int:
            # One after another: QEMU's port forwarding lets only one at a time wait to be accepted.
            stream = self.connect()
            stream.sendall(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")
            held.append(stream)
            return next(answers(stream)).status

        self.assertEqual([status() for _ in range(20)], [200] * 16 + [503] * 4)
        # The device itself still gets through.
        self.say_there(f"{self.target.command} health --config {shlex.quote(self.target.config)}")
        for stream in held:
            stream.close()
        self.until(self.is_healthy, "a place for a new connection")


@needs("shell", "start", "config")
class End(ServiceCase):
    def test_answers_what_it_serves_before_it_ends(self) -> None:
        large = f"{self.target.pages}/black-box"
        self.keep_configuration()
        self.addCleanup(self.restart)
        self.addCleanup(self.put_configuration_back)
        self.addCleanup(self.run_there, f"rm {large}; rmdir {self.target.pages}")
        self.say_there(f"mkdir -p {self.target.pages} && dd if=/dev/zero of={large} bs=1 count=0 seek={LARGE}")
        self.configure("overlay", "enabled = true", "server", "drain_seconds = 60")
        self.signal("HUP")
        self.until(lambda: self.ask("/black-box", "HEAD").status == 200, "a large file to serve")

        pid = self.pid()
        plain = socket.socket()
        self.addCleanup(plain.close)
        # A client that reads late: more is under way than all buffers between here and there hold.
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        plain.settimeout(60)
        plain.connect((LOOPBACK, self.target.port))
        context = any_certificate()
        # In TLS 1.3, tickets come before the answer does.
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        stream = context.wrap_socket(plain)
        self.addCleanup(stream.close)
        stream.sendall(b"GET /black-box HTTP/1.1\r\nhost: localhost\r\n\r\n")
        self.assertTrue(select.select([stream], [], [], 60)[0], "the answer has not begun")
        self.say_there(f"kill -TERM {pid}")
        self.until(lambda: self.ask("/").status == 503, "a refusal of what is new")
        self.assertFalse(self.has_ended(pid), "it ended with an answer half-way")
        (answer,) = answers(stream)
        self.assertEqual((answer.status, len(answer.body)), (200, LARGE))
        self.until(lambda: self.has_ended(pid), "the end after the last answer")
        if "syslog" in self.target.features:
            own = [line for line in self.lines() if f"[{pid}]" in line]
            # Our own questions may have been among them.
            self.assertRegex("\n".join(own), r"draining: [1-9]\d* requests are being served")
            self.assertRegex(own[-1], r"stopped$")
        if "systemd" not in self.target.features:  # which starts it again at once
            gone = self.run_there(f"test -e {self.target.runtime_dir}/endpoints.json").returncode
            self.assertNotEqual(gone, 0, "endpoints.json is left behind")


@needs("sysvinit")
class InitScript(ServiceCase):
    def setUp(self) -> None:
        super().setUp()
        self.addCleanup(self.revive)

    def status(self) -> int:
        return self.run_there(f"{INIT} status").returncode

    def test_status(self) -> None:
        self.assertIn(f"running (pid {self.pid()})", self.say_there(f"{INIT} status"))

    def test_restart(self) -> None:
        before = self.pid()
        self.say_there(f"{INIT} restart")
        self.assertNotEqual(self.pid(), before)
        self.assertTrue(self.is_healthy())

    @needs("syslog")
    def test_reload_in_the_same_process(self) -> None:
        self.reloads_in_the_same_process(f"{INIT} reload")

    def test_stop_and_start(self) -> None:
        self.say_there(f"{INIT} stop")
        self.assertFalse(self.is_healthy())
        self.assertEqual(self.status(), 3)
        self.say_there(f"{INIT} start")
        self.assertTrue(self.is_healthy())

    def test_start_after_it_was_killed(self) -> None:
        self.signal("KILL")
        self.until(lambda: self.status() == 1, "a status that says dead")
        self.say_there(f"{INIT} start")
        self.assertTrue(self.is_healthy())

    @needs("monitor")
    def test_the_monitor_restarts_it(self) -> None:
        before = self.pid()
        self.say_there(f"{INIT} monitor")
        self.assertEqual(self.pid(), before, "restarted in good health")
        self.signal("KILL")
        self.until(lambda: self.status() == 1, "a status that says dead")
        self.run_there(f"{INIT} monitor")
        self.until(self.is_healthy, "health after the monitor's restart")
        last = self.say_there("tail -n 1 /var/log/edgeweb-monitor.log")
        self.assertRegex(last, r"^\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\dZ? ")


# What the unit denies, as systemd understood it.
CONFINED = {
    "User": "edgeweb",
    "CapabilityBoundingSet": "",
    "AmbientCapabilities": "",
    "NoNewPrivileges": "yes",
    "ProtectSystem": "strict",
    "ProtectHome": "yes",
    "PrivateTmp": "yes",
    "PrivateDevices": "yes",
    "PrivateMounts": "yes",
    "ProtectClock": "yes",
    "ProtectControlGroups": "yes",
    "ProtectHostname": "yes",
    "ProtectKernelLogs": "yes",
    "ProtectKernelModules": "yes",
    "ProtectKernelTunables": "yes",
    "ProtectProc": "invisible",
    "RestrictNamespaces": "yes",
    "RestrictRealtime": "yes",
    "RestrictSUIDSGID": "yes",
    "LockPersonality": "yes",
    "MemoryDenyWriteExecute": "yes",
    "SystemCallArchitectures": "native",
}
EXPOSURE = 1.5  # by `systemd-analyze security`, from 0 to 10
WATCHDOG = 90  # s; WatchdogSec=30 in the unit, then the restart
UNITS = "/run/systemd/system"  # for this boot


@needs("systemd")
class Unit(ServiceCase):
    def setUp(self) -> None:
        super().setUp()
        self.addCleanup(self.revive)

    def property(self, name: str) -> str:
        return self.say_there(f"systemctl show -P {name} edgeweb")

    def comes_back(self, before: int, limit: float) -> None:
        self.until(lambda: self.is_healthy() and self.pid() != before, "health in a new process", limit)

    def test_is_active(self) -> None:
        self.assertEqual(self.property("ActiveState"), "active")
        self.assertEqual(self.property("Type"), "notify")
        self.assertEqual(int(self.property("MainPID")), self.pid())

    def test_is_confined(self) -> None:
        shown = self.say_there(f"systemctl show -p {','.join(CONFINED)} edgeweb")
        properties = dict(line.split("=", 1) for line in shown.splitlines())
        self.assertEqual(properties, CONFINED)

    def test_the_confinement_holds(self) -> None:
        """Not what systemd says, but what the kernel makes of it."""
        status = self.say_there(f"cat /proc/{self.pid()}/status")
        for line in (r"CapBnd:\s+0+", r"NoNewPrivs:\s+1", r"Seccomp:\s+2"):
            self.assertRegex(status, rf"(?m)^{line}$")
        root = f"/proc/{self.pid()}/root"
        for directory in ("/", "/usr", "/etc", "/var", "/boot"):
            written = self.run_there(f"touch {root}{directory}/black-box 2>&1")
            self.assertRegex(written.stdout + written.stderr, "(?i)read-only", directory)
        self.say_there(f"touch {root}/var/lib/edgeweb/black-box && rm {root}/var/lib/edgeweb/black-box")
        self.assertEqual(self.say_there(f"ls {root}/home {root}/root | grep -v : || true").strip(), "")
        self.assertNotIn("vda", self.say_there(f"ls {root}/dev"))
        self.assertIn("log", self.say_there(f"ls {root}/dev"))

    @needs("systemd-analyze")
    def test_exposure(self) -> None:
        said = self.say_there("systemd-analyze security --no-pager edgeweb.service")
        figure = re.search(r"Overall exposure level for edgeweb.service: ([\d.]+)", said)
        assert figure, said
        self.assertLessEqual(float(figure[1]), EXPOSURE, said)

    def test_reload_in_the_same_process(self) -> None:
        self.reloads_in_the_same_process("systemctl reload edgeweb")

    @needs("config")
    def test_a_wrong_configuration_is_refused_and_not_tried_again(self) -> None:
        before = self.pid()
        self.keep_configuration()
        self.addCleanup(self.put_configuration_back)
        self.configure("http", "port = -1")
        self.assertNotEqual(self.run_there("systemctl reload edgeweb").returncode, 0)
        self.assertTrue(self.is_healthy())
        self.assertEqual(self.pid(), before)
        self.assertNotEqual(self.run_there("systemctl restart edgeweb").returncode, 0)
        time.sleep(5)  # RestartSec=2 would have been over
        self.assertEqual(self.property("ActiveState"), "failed")
        self.assertEqual(self.property("ExecMainStatus"), "2")
        # systemd counts from 0 again after a restart by hand.
        self.assertEqual(self.property("NRestarts"), "0")
        self.assertIn("http.port", self.say_there("journalctl -q --no-pager -n 20 -u edgeweb"))

    def test_stops_in_order(self) -> None:
        self.say_there("systemctl stop edgeweb")
        self.assertEqual((self.property("Result"), self.property("ExecMainStatus")), ("success", "0"))
        self.assertRegex(self.lines()[-1], r"stopped$")
        self.assertFalse(self.is_healthy())

    def test_comes_back_after_it_was_killed(self) -> None:
        before = self.pid()
        self.signal("KILL")
        self.comes_back(before, 60)

    def test_the_watchdog_ends_a_process_that_hangs(self) -> None:
        before = self.pid()
        self.signal("STOP")
        self.comes_back(before, WATCHDOG)
        self.assertIn("Watchdog timeout", self.say_there("journalctl -q --no-pager -n 50 -u edgeweb"))

    def test_takes_the_sockets_that_systemd_passes(self) -> None:
        endpoints = json.loads(self.say_there("cat /run/edgeweb/endpoints.json"))["endpoints"]
        before, sockets, files = self.pid(), [], []
        for endpoint in endpoints:
            scheme, port = endpoint["scheme"], endpoint["port"]
            # By this name the service knows which one is in clear.
            name = "FileDescriptorName=http\\n" if scheme == "http" else ""
            unit = f"[Socket]\\nService=edgeweb.service\\nListenStream={port}\\n{name}"
            sockets.append(f"edgeweb-{scheme}.socket")
            files.append(f"{UNITS}/{sockets[-1]}")
            self.say_there(f"printf '{unit}' > {files[-1]}")
        self.say_there("systemctl daemon-reload")
        self.addCleanup(self.say_there, f"rm {' '.join(files)}; systemctl daemon-reload")
        self.addCleanup(self.say_there, f"systemctl stop {' '.join(sockets)} edgeweb.service")
        self.say_there(f"systemctl stop edgeweb.service && systemctl start {' '.join(sockets)}")
        # The first request starts the service.
        self.assertEqual(self.ask("/health").status, 200)
        self.assertNotEqual(self.pid(), before)
        self.assertEqual(self.ask_in_clear("/health").status, 200)
        self.assertEqual(self.ask_in_clear("/").status, 308)
