# SPDX-License-Identifier: MIT
"""Image signing with the real openssl: what a person types, and what image-signing.bbclass calls."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import tempfile
import time
import unittest
from collections.abc import Callable
from pathlib import Path

from scripts.lib.layer import LAYER, library
from tests.layer.support import ROOT, run, tool

VERIFY = ROOT / "scripts" / "verify-image"
MAKE_CA = ROOT / "scripts" / "make-signing-ca"
CLASS = (LAYER / "classes-recipe" / "image-signing.bbclass").read_text()
IMAGE = "edgeweb-image-qemuarm.rootfs"
DATED = f"{IMAGE}-20260101000000"
MANIFEST = f"{IMAGE}.sha256sums"
SIGNATURE = f"{MANIFEST}.p7s"

signing = library("image_signing")


def openssl(*arguments: str | Path, cwd: Path = ROOT) -> None:
    done = run("openssl", *arguments, cwd=cwd)
    if done.returncode:
        raise AssertionError(f"openssl {arguments}: {done.stderr}")


def make_ca(directory: Path, *options: str) -> None:
    done = run(MAKE_CA, *options, directory)
    if done.returncode:
        raise AssertionError(done.stderr)


SIGNER = "basicConstraints = CA:FALSE\nkeyUsage = digitalSignature\nextendedKeyUsage = codeSigning"
AUTHORITY = "basicConstraints = critical, CA:TRUE\nkeyUsage = critical, keyCertSign"


class Maker:
    """A maker's own authority, with an intermediate and dates of the test's choosing."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir()
        (directory / "index.txt").touch()
        # Each certificate has a serial number of its own, which `openssl ca` counts.
        (directory / "serial").write_text("01\n")
        self.issue("ca", "Maker CA", AUTHORITY, issuer=None)

    def issue(
        self,
        name: str,
        common: str,
        extensions: str = SIGNER,
        issuer: str | None = "ca",
        begin: float = -1,
        end: float = 30,
    ) -> None:
        """name.key and name.crt, valid from `begin` to `end` days from now."""
        first, last = (time.strftime("%Y%m%d%H%M%SZ", time.gmtime(time.time() + 86400 * days)) for days in (begin, end))
        config = self.directory / f"{name}.cnf"
        config.write_text(
            "[req]\nprompt = no\ndistinguished_name = name\n"
            f"[name]\nCN = {common}\n"
            "[ca]\ndefault_ca = default\n[default]\ndatabase = index.txt\nserial = serial\nnew_certs_dir = .\n"
            "default_md = sha256\npolicy = policy\nunique_subject = no\nx509_extensions = extensions\n"
            "[policy]\ncommonName = supplied\n"
            f"[extensions]\n{extensions}\nsubjectKeyIdentifier = hash\n"
        )
        curve = ("-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256")
        openssl("genpkey", *curve, "-out", f"{name}.key", cwd=self.directory)
        (self.directory / f"{name}.key").chmod(0o600)
        request = ("-config", config.name, "-key", f"{name}.key", "-out", f"{name}.csr")
        openssl("req", "-new", *request, cwd=self.directory)
        by = (
            ("-cert", f"{issuer}.crt", "-keyfile", f"{issuer}.key")
            if issuer
            else ("-selfsign", "-keyfile", f"{name}.key")
        )
        dates = ("-startdate", first, "-enddate", last)
        files = ("-in", f"{name}.csr", "-out", f"{name}.crt", "-notext")
        openssl("ca", "-batch", "-config", config.name, *by, *dates, *files, cwd=self.directory)

    def path(self, name: str) -> str:
        return str(self.directory / name)


class SigningTest(unittest.TestCase):
    """A deploy directory, and keys that are made once for all tests."""

    development: Path
    maker: Maker

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.scratch = Path(folder.name)
        self.deploy = self.scratch / "deploy"
        (self.deploy / "bootfiles").mkdir(parents=True)
        for name in (f"{DATED}.ext4", f"{DATED}.spdx.json", "zImage--6.18.bin", "bootfiles/start.elf"):
            (self.deploy / name).write_bytes(os.urandom(3000))
        self.names = [f"{DATED}.ext4", f"{DATED}.spdx.json", "zImage--6.18.bin", "bootfiles/start.elf"]
        for link, target in ((f"{IMAGE}.ext4", f"{DATED}.ext4"), ("zImage", "zImage--6.18.bin")):
            (self.deploy / link).symlink_to(target)
            self.names.append(link)


def setUpModule() -> None:
    tool("openssl", "openssl")
    folder = tempfile.TemporaryDirectory()
    unittest.addModuleCleanup(folder.cleanup)
    SigningTest.development = Path(folder.name) / "development"
    make_ca(SigningTest.development)
    SigningTest.maker = maker = Maker(Path(folder.name) / "maker")
    maker.issue("signer", "Maker")
    maker.issue("expired", "Maker, last year", begin=-30, end=-1)
    maker.issue("early", "Maker, next year", begin=10, end=20)
    maker.issue("mail", "Mail of the maker", SIGNER.replace("codeSigning", "emailProtection"))
    maker.issue("sub", "Maker's own CA", AUTHORITY)
    maker.issue("below", "Maker, by way of another", issuer="sub")


def development_files(directory: Path) -> tuple[str, str, str, str]:
    return str(directory / "signing.key"), str(directory / "signing.crt"), "", ""


class VerifyTest(SigningTest):
    """scripts/verify-image on a directory that was signed as the class signs it."""

    def setUp(self) -> None:
        super().setUp()
        self.sign(*development_files(self.development))

    def sign(self, key: str, certificate: str, chain: str = "", pass_file: str = "") -> None:
        signing.write_manifest(str(self.deploy), self.names, str(self.deploy / MANIFEST))
        self.sign_manifest(key, certificate, chain, pass_file)

    def sign_manifest(self, key: str, certificate: str, chain: str = "", pass_file: str = "") -> None:
        signing.sign(*(str(self.deploy / name) for name in (MANIFEST, SIGNATURE)), key, certificate, chain, pass_file)

    def verify(self, *options: str | Path, ca: Path | None = None, **environment: str) -> tuple[int, str]:
        done = run(VERIFY, *(options or (self.deploy,)), "--ca", ca or self.development / "ca.crt", **environment)
        return done.returncode, done.stdout + done.stderr

    def assert_refused(self, reason: str, *options: str | Path, ca: Path | None = None, **environment: str) -> None:
        status, said = self.verify(*options, ca=ca, **environment)
        self.assertEqual(status, 1, said)
        self.assertRegex(said, reason)
        self.assertNotIn("Traceback", said)

    def assert_accepted(self, *options: str | Path, ca: Path | None = None) -> str:
        status, said = self.verify(*options, ca=ca)
        self.assertEqual(status, 0, said)
        return said

    def test_accepted(self) -> None:
        for what in (self.deploy, self.deploy / MANIFEST):
            said = self.assert_accepted(what)
            self.assertIn(f"{IMAGE}: 6 files are as OU=development key, not for release", said)
            self.assertIn("warning: signed with a development key", said)
        self.assertEqual(run("sha256sum", "--check", "--strict", MANIFEST, cwd=self.deploy).returncode, 0)

    def test_of_another_directory(self) -> None:
        done = run(VERIFY, MANIFEST, "--ca", self.development / "ca.crt", cwd=self.deploy)
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_every_changed_byte(self) -> None:
        for name in (f"{DATED}.ext4", f"{DATED}.spdx.json", "zImage--6.18.bin", "bootfiles/start.elf"):
            with self.subTest(name):
                path = self.deploy / name
                before = path.read_bytes()
                path.write_bytes(before[:1500] + bytes([before[1500] ^ 1]) + before[1501:])
                self.assert_refused(rf"verify-image: {re.escape(name)}: it was changed after it was signed")
                path.write_bytes(before)
        self.assert_accepted()

    def test_missing_file(self) -> None:
        (self.deploy / "zImage--6.18.bin").unlink()
        # The link to it, too.
        self.assert_refused("verify-image: zImage: it is missing")
        self.assert_refused("verify-image: zImage--6.18.bin: it is missing")

    def test_another_key(self) -> None:
        other = self.scratch / "other"
        make_ca(other)
        self.sign(*development_files(other))
        self.assert_refused(r"signed with a key that the CA in .*development/ca.crt does not stand for")
        self.assert_accepted(ca=other / "ca.crt")

    def test_the_machine_s_own_cas_do_not_count(self) -> None:
        trusted = self.scratch / "certs"
        trusted.mkdir()
        shutil.copy(self.maker.path("ca.crt"), trusted)
        openssl("rehash", trusted)
        self.sign(self.maker.path("signer.key"), self.maker.path("signer.crt"))
        self.assert_refused("does not stand for", SSL_CERT_DIR=str(trusted), SSL_CERT_FILE=str(trusted / "ca.crt"))

    def test_a_signer_that_brings_its_own_ca(self) -> None:
        other = self.scratch / "other"
        make_ca(other)
        key, certificate, *_ = development_files(other)
        self.sign(key, certificate, str(other / "ca.crt"))
        self.assert_refused("does not stand for")

    def test_changed_manifest(self) -> None:
        path = self.deploy / f"{DATED}.ext4"
        path.write_bytes(b"another image")
        manifest = self.deploy / MANIFEST
        manifest.unlink()
        signing.write_manifest(str(self.deploy), self.names, str(manifest))
        self.assert_refused("the manifest was changed after it was signed")

    def test_missing_manifest(self) -> None:
        (self.deploy / MANIFEST).unlink()
        self.assert_refused(r"there is no manifest .*: nothing there is signed")
        self.assert_refused("the manifest .* cannot be read", self.deploy / MANIFEST)

    def test_missing_signature(self) -> None:
        (self.deploy / SIGNATURE).unlink()
        self.assert_refused(rf"the signature .*{SIGNATURE} cannot be read \(No such file")

    def test_damaged_signature(self) -> None:
        path = self.deploy / SIGNATURE
        whole = path.read_bytes()
        for damaged in (b"", b"hello", whole[:100], os.urandom(len(whole))):
            with self.subTest(damaged[:10]):
                path.write_bytes(damaged)
                self.assert_refused("it is damaged, or no CMS signature")
        path.write_bytes(whole[:-5] + bytes([whole[-5] ^ 1]) + whole[-4:])
        self.assert_refused(rf"{SIGNATURE}: ")

    def test_a_message_without_a_signature(self) -> None:
        path = self.deploy / SIGNATURE
        certificate = self.development / "signing.crt"
        openssl("crl2pkcs7", "-nocrl", "-certfile", certificate, "-outform", "DER", "-out", path)
        self.assert_refused("it holds no signature")
        openssl("cms", "-data_create", "-in", self.deploy / MANIFEST, "-outform", "DER", "-out", path)
        self.assert_refused("it holds no signature")

    def test_two_signers(self) -> None:
        keys = [(self.development / f"{name}.crt", self.development / f"{name}.key") for name in ("signing", "fit")]
        signers = [word for certificate, key in keys for word in ("-signer", certificate, "-inkey", key)]
        files = ("-in", self.deploy / MANIFEST, "-out", self.deploy / SIGNATURE)
        openssl("cms", "-sign", "-binary", "-outform", "DER", *signers, *files)
        self.assert_refused("signed by several")

    def test_names_that_lead_out(self) -> None:
        outside = self.scratch / "outside"
        outside.write_bytes(b"outside")
        total = hashlib.sha256(b"outside").hexdigest()
        for name in ("../outside", str(outside), "bootfiles/../../outside", "./zImage", "bootfiles//start.elf"):
            with self.subTest(name):
                (self.deploy / MANIFEST).write_text(f"{total}  {name}\n")
                self.sign_manifest(*development_files(self.development))
                self.assert_refused("leads out of the image's directory")

    def test_lines_that_are_none(self) -> None:
        good = (self.deploy / MANIFEST).read_text()
        total = "0" * 64
        for line in ("hello", f"{total} *zImage", f"{total}  a\tb", f"{total}  a\\b", f"{total[1:]}  zImage", ""):
            with self.subTest(line):
                (self.deploy / MANIFEST).write_text(f"{good}{line}\n")
                self.sign_manifest(*development_files(self.development))
                self.assert_refused("not a line that sha256sum writes")
        (self.deploy / MANIFEST).write_text(good + good)
        self.sign_manifest(*development_files(self.development))
        self.assert_refused("is listed twice")

    def test_links(self) -> None:
        link = self.deploy / f"{IMAGE}.ext4"
        for target in (self.scratch / "copy.ext4", self.deploy / "not-listed", Path("/dev/zero")):
            with self.subTest(target):
                if not target.exists():
                    shutil.copy(self.deploy / f"{DATED}.ext4", target)
                link.unlink()
                link.symlink_to(target)
                self.assert_refused(rf"{IMAGE}.ext4: it is a link to .*, which the manifest does not list")
        link.unlink()
        link.symlink_to("zImage--6.18.bin")
        self.assert_refused(rf"{IMAGE}.ext4: it was changed")
        link.unlink()
        link.symlink_to(link.name)
        self.assert_refused(rf"{IMAGE}.ext4: it cannot be read")
        # A directory of the image that is a link leads out just the same.
        shutil.move(self.deploy / "bootfiles", self.scratch / "bootfiles")
        (self.deploy / "bootfiles").symlink_to(self.scratch / "bootfiles")
        self.assert_refused("bootfiles/start.elf: it is a link")

    def test_no_file(self) -> None:
        path = self.deploy / "zImage--6.18.bin"
        path.unlink()
        os.mkfifo(path)
        self.assert_refused("zImage--6.18.bin: it cannot be read")

    def test_a_file_that_nobody_signed(self) -> None:
        (self.deploy / "notes.txt").write_text("not of this image")
        self.assert_accepted()
        (self.deploy / f"{IMAGE}.wic").write_text("flash me")
        self.assert_refused(rf"{IMAGE}.wic: it has the image's name, but is not in the manifest")

    def test_expired(self) -> None:
        ca = Path(self.maker.path("ca.crt"))
        for name, reason in (("expired", "of the CA, has expired; have"), ("early", "is not valid yet; is")):
            with self.subTest(name):
                self.sign(self.maker.path(f"{name}.key"), self.maker.path(f"{name}.crt"))
                self.assert_refused(reason, ca=ca)

    def test_not_for_code(self) -> None:
        self.sign(self.maker.path("mail.key"), self.maker.path("mail.crt"))
        self.assert_refused(
            "the certificate of CN=Mail of the maker is not for signing code", ca=Path(self.maker.path("ca.crt"))
        )

    def test_a_maker_s_key(self) -> None:
        ca = Path(self.maker.path("ca.crt"))
        self.sign(self.maker.path("signer.key"), self.maker.path("signer.crt"))
        said = self.assert_accepted(ca=ca)
        self.assertNotIn("development", said)
        self.sign(self.maker.path("below.key"), self.maker.path("below.crt"))
        self.assert_refused("does not stand for", ca=ca)
        self.sign(self.maker.path("below.key"), self.maker.path("below.crt"), self.maker.path("sub.crt"))
        self.assert_accepted(ca=ca)

    def test_several_images(self) -> None:
        shutil.copy(self.deploy / MANIFEST, self.deploy / "core-image-qemuarm.rootfs.sha256sums")
        shutil.copy(self.deploy / SIGNATURE, self.deploy / "core-image-qemuarm.rootfs.sha256sums.p7s")
        status, said = self.verify()
        self.assertEqual(status, 2)
        self.assertIn(f"choose one with --image: core-image-qemuarm.rootfs, {IMAGE}", said)
        for name in (IMAGE, "edgeweb-image"):
            self.assert_accepted(self.deploy, "--image", name)
        self.assert_refused("there is no manifest edgeweb-imag", self.deploy, "--image", "edgeweb-imag")

    def test_usage(self) -> None:
        status, said = self.verify("--help")
        self.assertEqual((status, "--image NAME" in said), (0, True), said)
        for options, reason in (
            ((self.deploy, "--nonsense"), "unrecognized arguments"),
            ((self.scratch / "nowhere",), "does not exist"),
            ((self.deploy / "zImage",), "neither a directory nor a manifest"),
            ((self.deploy / MANIFEST, "--image", IMAGE), "--image chooses in a directory"),
        ):
            with self.subTest(reason):
                status, said = self.verify(*options)
                self.assertEqual(status, 2, said)
                self.assertIn(reason, said)
        done = run(VERIFY, self.deploy)
        self.assertEqual((done.returncode, "--ca" in done.stderr), (2, True))
        for ca in (self.scratch / "no.crt", self.deploy / "zImage"):
            status, said = self.verify(ca=ca)
            self.assertEqual(status, 2, said)
            self.assertIn("holds no certificate", said)


class ManifestTest(SigningTest):
    def manifest(self, names: list[str]) -> str:
        path = self.scratch / "manifest"
        signing.write_manifest(str(self.deploy), names, str(path))
        return path.read_text()

    def test_same_in_same_out(self) -> None:
        first = self.manifest(self.names)
        self.assertEqual(first, self.manifest(list(reversed(self.names)) + self.names[:2]))
        names = [line.split("  ", 1)[1] for line in first.splitlines()]
        self.assertEqual(names, sorted(self.names))

    def test_what_is_no_file_is_left_out(self) -> None:
        (self.deploy / "nowhere").symlink_to("gone")
        self.assertEqual(self.manifest([*self.names, "nowhere", "bootfiles"]), self.manifest(self.names))

    def test_refused(self) -> None:
        (self.deploy / "passwd").symlink_to("/etc/passwd")
        (self.deploy / "two\nlines").touch()
        for names, reason in (
            (["passwd"], "leads out of"),
            (["../deploy/../outside"], "leads out of"),
            (["two\nlines"], "cannot be listed"),
            (["bootfiles"], "no file to sign"),
        ):
            with self.subTest(names), self.assertRaisesRegex(signing.SigningError, reason):
                self.manifest(names)


class CheckTest(SigningTest):
    """What the class says of a key before it uses it."""

    def setUp(self) -> None:
        super().setUp()
        self.key, self.certificate = self.scratch / "k", self.scratch / "c"
        shutil.copy(self.maker.path("signer.key"), self.key)
        shutil.copy(self.maker.path("signer.crt"), self.certificate)

    def check(self, key: object = None, certificate: object = None, chain: object = "", pass_file: object = "") -> None:
        paths = (self.key if key is None else key, self.certificate if certificate is None else certificate)
        signing.check(*map(str, (*paths, chain, pass_file)))

    def assert_wrong(self, reason: str, **files: object) -> None:
        with self.assertRaisesRegex(signing.SigningError, reason) as caught:
            self.check(**files)
        self.assertNotIn("\n", str(caught.exception))

    def test_right(self) -> None:
        self.check()
        self.check(*development_files(self.development))
        self.check(self.maker.path("below.key"), self.maker.path("below.crt"), self.maker.path("sub.crt"))

    def test_paths(self) -> None:
        self.assert_wrong("IMAGE_SIGNING_KEY is not set", key="")
        self.assert_wrong("IMAGE_SIGNING_CERT is not set", certificate="")
        gone = self.scratch / "gone"
        variables = ("IMAGE_SIGNING_KEY", "IMAGE_SIGNING_CERT", "IMAGE_SIGNING_CHAIN", "IMAGE_SIGNING_KEY_PASS_FILE")
        for variable, argument in zip(variables, ("key", "certificate", "chain", "pass_file"), strict=True):
            with self.subTest(variable):
                self.assert_wrong(rf"{variable}: cannot read {gone} \(No such file", **{argument: gone})
                self.assert_wrong(f"{variable} is 'k'; give it the whole path", **{argument: "k"})
                self.assert_wrong(f"{variable}: .* is not a file|cannot read", **{argument: "/dev/null"})
        self.assert_wrong("PKCS#11 address, which is not supported", key="pkcs11:token=maker")

    def test_readable_by_others(self) -> None:
        for mode in (0o640, 0o604, 0o620, 0o602):
            self.key.chmod(mode)
            self.assert_wrong(f"IMAGE_SIGNING_KEY: others .* type: chmod 600 {self.key}")
        self.key.chmod(0o400)
        self.check()
        phrase = self.scratch / "phrase"
        phrase.write_text("secret\n")
        phrase.chmod(0o644)
        self.assert_wrong("IMAGE_SIGNING_KEY_PASS_FILE: others", pass_file=phrase)

    def test_not_a_key(self) -> None:
        self.key.write_text("hello")
        self.assert_wrong("IMAGE_SIGNING_KEY: cannot use .*is it a private key in PEM form")
        shutil.copy(self.maker.path("expired.key"), self.key)
        self.assert_wrong("is not the key of")

    def test_certificate(self) -> None:
        self.certificate.write_text("hello")
        self.assert_wrong("IMAGE_SIGNING_CERT: .* holds no certificate")
        for name, reason in (
            ("expired", r"has expired \(20"),
            ("early", "is valid from 20.* on; is the clock right"),
            ("mail", "is not for signing code"),
            ("sub", "is not for signing code"),
        ):
            with self.subTest(name):
                self.assert_wrong(
                    reason, key=self.maker.path(f"{name}.key"), certificate=self.maker.path(f"{name}.crt")
                )

    def test_chain(self) -> None:
        self.assert_wrong("IMAGE_SIGNING_CHAIN: .* does not lead from", chain=self.maker.path("sub.crt"))
        self.assert_wrong("IMAGE_SIGNING_CHAIN: .* does not lead from", chain=self.key)

    def test_pass_phrase(self) -> None:
        locked = self.scratch / "locked"
        # Seen by this test only; the class takes it from a file.
        openssl("pkcs8", "-topk8", "-in", self.key, "-out", locked, "-passout", "pass:secret")
        locked.chmod(0o600)
        self.assert_wrong(
            "it has a pass phrase; name the file that holds it in IMAGE_SIGNING_KEY_PASS_FILE", key=locked
        )
        phrase = self.scratch / "phrase"
        phrase.write_text("wrong\n")
        phrase.chmod(0o600)
        self.assert_wrong("the pass phrase in .* is wrong", key=locked, pass_file=phrase)
        phrase.write_text("secret\n")
        self.check(key=locked, pass_file=phrase)
        (self.scratch / "m").write_text("manifest")
        files = (
            str(self.scratch / "m"),
            str(self.scratch / "m.p7s"),
            str(locked),
            str(self.certificate),
            "",
            str(phrase),
        )
        signing.sign(*files)
        self.assertGreater((self.scratch / "m.p7s").stat().st_size, 0)

    def test_development_key(self) -> None:
        self.assertTrue(signing.is_development(str(self.development / "signing.crt")))
        # Known by what it says, not by its name or place.
        shutil.copy(self.development / "signing.crt", self.certificate)
        self.assertTrue(signing.is_development(str(self.certificate)))
        self.assertFalse(signing.is_development(self.maker.path("signer.crt")))
        # A maker may develop things.
        self.maker.issue("department", "Acme Development GmbH, not for release")
        self.assertFalse(signing.is_development(self.maker.path("department.crt")))

    def test_no_openssl(self) -> None:
        path = os.environ["PATH"]
        self.addCleanup(os.environ.__setitem__, "PATH", path)
        os.environ["PATH"] = str(self.scratch)
        self.assert_wrong("the program openssl is not there")


class MakeCaTest(unittest.TestCase):
    FILES = ("ca.crt", "ca.key", "fit.crt", "fit.key", "signing.crt", "signing.key")

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.directory = Path(folder.name) / "keys"

    def contents(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.directory.iterdir()}

    def test_made(self) -> None:
        done = run(MAKE_CA, self.directory)
        self.assertEqual(done.returncode, 0, done.stderr)
        line = (
            f"export IMAGE_SIGNING_KEY={self.directory}/signing.key IMAGE_SIGNING_CERT={self.directory}/signing.crt\n"
        )
        self.assertEqual(done.stdout, line)
        self.assertEqual(tuple(sorted(self.contents())), self.FILES)
        for name in self.FILES:
            mode = stat.S_IMODE((self.directory / name).stat().st_mode)
            self.assertEqual(mode, 0o600 if name.endswith(".key") else 0o644, name)
        self.assertEqual(stat.S_IMODE(self.directory.stat().st_mode), 0o700)
        signing.check(*development_files(self.directory))
        text = run("openssl", "x509", "-in", self.directory / "signing.crt", "-noout", "-text").stdout
        self.assertIn("ASN1 OID: prime256v1", text)
        self.assertIn('OU = "development key, not for release"', text)
        # mkimage knows RSA keys by these two names.
        text = run("openssl", "x509", "-in", self.directory / "fit.crt", "-noout", "-text").stdout
        self.assertIn("Public-Key: (3072 bit)", text)

    def test_days(self) -> None:
        make_ca(self.directory, "--days", "2")
        for days, status in ((1, 0), (3, 1)):
            done = run("openssl", "x509", "-in", self.directory / "signing.crt", "-checkend", str(86400 * days))
            self.assertEqual(done.returncode, status)

    def test_nothing_is_replaced(self) -> None:
        make_ca(self.directory)
        before = self.contents()
        done = run(MAKE_CA, self.directory)
        self.assertEqual(done.returncode, 1)
        self.assertIn("is there already", done.stderr)
        self.assertEqual(self.contents(), before)
        # One of them is enough.
        for name in self.FILES[1:]:
            (self.directory / name).unlink()
        done = run(MAKE_CA, self.directory)
        self.assertEqual((done.returncode, list(self.contents())), (1, ["ca.crt"]))
        make_ca(self.directory, "--force")
        self.assertEqual(tuple(sorted(self.contents())), self.FILES)
        self.assertNotEqual(self.contents()["ca.crt"], before["ca.crt"])

    def test_failure_leaves_nothing(self) -> None:
        bin_ = self.directory.parent / "bin"
        bin_.mkdir()
        program = bin_ / "openssl"
        program.write_text(
            '#!/bin/sh\n[ "$1" = genpkey ] || { echo "no entropy" >&2; exit 1; }\nexec /usr/bin/openssl "$@"\n'
        )
        program.chmod(0o755)
        done = run(MAKE_CA, self.directory, PATH=f"{bin_}:/usr/bin:/bin")
        self.assertEqual(done.returncode, 1)
        self.assertIn("openssl req failed: no entropy", done.stderr)
        self.assertEqual(self.contents(), {})

    def test_interrupted(self) -> None:
        bin_ = self.directory.parent / "bin"
        bin_.mkdir()
        program = bin_ / "openssl"
        program.write_text('#!/bin/sh\n[ "$1" = req ] && kill -TERM "$PPID" && sleep 1\nexec /usr/bin/openssl "$@"\n')
        program.chmod(0o755)
        done = run(MAKE_CA, self.directory, PATH=f"{bin_}:/usr/bin:/bin")
        self.assertNotEqual(done.returncode, 0)
        self.assertEqual(self.contents(), {})

    def test_usage(self) -> None:
        done = run(MAKE_CA, "--help")
        self.assertEqual((done.returncode, "--force" in done.stdout), (0, True))
        for arguments, reason in (
            ((), "where to?"),
            (("--nonsense",), "unknown option '--nonsense'"),
            (("--days",), "--days needs a number"),
            (("--days", "soon", self.directory), "--days needs a number"),
            ((self.directory, "b"), "one directory"),
        ):
            with self.subTest(arguments):
                done = run(MAKE_CA, *arguments)
                self.assertEqual(done.returncode, 2, done.stderr)
                self.assertIn(reason, done.stderr)
        self.assertFalse(self.directory.exists())
        done = run(MAKE_CA, "/proc/keys/here")
        self.assertEqual(done.returncode, 1)


class ClassTest(unittest.TestCase):
    """What can be said of the class without BitBake."""

    def test_it_calls_what_is_there(self) -> None:
        called = set(re.findall(r"\bedgeweb_layer\.image_signing\.(\w+)", CLASS))
        self.assertLessEqual({"check", "is_development", "write_manifest", "sign", "SigningError"}, called)
        for name in called:
            self.assertTrue(hasattr(signing, name), name)

    def test_bitbake_loads_the_library(self) -> None:
        text = (LAYER / "conf" / "layer.conf").read_text()
        self.assertRegex(text, re.compile(r"^addpylib \$\{LAYERDIR\}/lib edgeweb_layer$", re.MULTILINE))

    def test_no_function_is_hidden_from_bitbake(self) -> None:
        functions = [name for name, value in vars(signing).items() if isinstance(value, Callable) and name[0] == "_"]
        self.assertEqual(functions, [])

    def test_the_fragment_forwards_every_variable(self) -> None:
        fragment = (ROOT / "conf" / "kas" / "signing.yml").read_text()
        variables = set(re.findall(r"^(IMAGE_SIGNING_\w+)\[doc\]", CLASS, re.MULTILINE))
        self.assertEqual(set(re.findall(r"^  (IMAGE_SIGNING_\w+): null$", fragment, re.MULTILINE)), variables)


if __name__ == "__main__":
    unittest.main()
