"""`scripts/verify-image`: the signature of an image's manifest, and every file that the manifest lists."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import re
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

from scripts.lib.steps import MIB, Failure, main_guard, step

MANIFEST = ".sha256sums"
SIGNATURE = ".p7s"
LONGEST_MANIFEST = 16 * MIB
LINE = re.compile(r"([0-9a-f]{64})  ([^\x00-\x1f\x7f\\]+)")
# As scripts/make-signing-ca writes it.
DEVELOPMENT_UNIT = "OU=development key, not for release"
HELP = """\
Checks the signature that meta-edgeweb's image-signing.bbclass put beside an image, with the maker's CA
and no other, and then every file that the signed manifest lists.

Refused with the reason: a file that was changed, is missing, or is not on the list although its name is
the image's; another maker's key; an expired certificate, or one that is not for signing code; a manifest
or a signature that is missing or damaged; a name or a link that leads out of the directory.
"""
STATUS = """\
Exit status: 0 all is as it was signed; 1 refused; 2 wrong usage, nothing was checked.

An image that runqemu has started from is changed by running, unless it was started with "snapshot".
"""


class Refused(Failure):
    """The image is not what its maker signed, or nothing proves that it is."""


def find_manifest(path: Path, image: str | None) -> Path:
    """The manifest meant by a path: itself, or the one in a directory."""
    if not path.is_dir():
        if image:
            raise Failure(f"--image chooses in a directory, and {path} is none", 2)
        if not path.name.endswith(MANIFEST):
            raise Failure(
                f"{path} is neither a directory nor a manifest (*{MANIFEST}); see scripts/verify-image --help", 2
            )
        return path
    found = sorted(path.glob(f"*{MANIFEST}"))
    if image:
        stems = {manifest: manifest.name.removesuffix(MANIFEST) for manifest in found}
        exact = [manifest for manifest, stem in stems.items() if stem == image]
        found = exact or [manifest for manifest, stem in stems.items() if stem.startswith(f"{image}-")]
    if not found:
        raise Refused(f"there is no manifest {image or ''}*{MANIFEST} in {path}: nothing there is signed")
    if len(found) > 1:
        names = ", ".join(manifest.name.removesuffix(MANIFEST) for manifest in found)
        raise Failure(f"there are several images in {path}; choose one with --image: {names}", 2)
    return found[0]


def read(path: Path, what: str) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(LONGEST_MANIFEST + 1)
    except OSError as error:
        raise Refused(
            f"the {what} {path} cannot be read ({error.strerror}): nothing proves who made the image"
        ) from None
    if len(data) > LONGEST_MANIFEST:
        raise Refused(f"the {what} {path} is larger than {LONGEST_MANIFEST // MIB} MiB, which no real one is")
    return data


def openssl(*arguments: str | Path, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["openssl", *arguments], input=data, capture_output=True, check=False, start_new_session=True)


def verify_signature(manifest: bytes, signature: Path, ca: Path) -> str:
    """The signer's name. Raises Refused unless the CA's authority is behind the signature of these very bytes."""
    read(signature, "signature")
    with tempfile.TemporaryDirectory() as folder:
        signer = Path(folder) / "signer.crt"
        # Only the CA named counts, not the machine's own. OpenSSL 3.0 knows no purpose "codesign": asked below.
        done = openssl(
            *("cms", "-verify", "-binary", "-inform", "DER", "-in", signature, "-content", "/dev/stdin"),
            *("-CAfile", ca, "-no-CApath", "-no-CAstore", "-purpose", "any"),
            *("-signer", signer, "-out", "/dev/null"),
            data=manifest,
        )
        said = done.stderr.decode(errors="replace")
        if done.returncode:
            raise Refused(f"{signature}: {signature_reason(said, ca)}")
        certificates = signer.read_text()
        if certificates.count("-----BEGIN CERTIFICATE-----") != 1:
            raise Refused(f"{signature}: it is signed by several, where one is expected")
        details = openssl(
            *("x509", "-in", signer, "-noout", "-ext", "keyUsage,extendedKeyUsage"),
            *("-subject", "-nameopt", "utf8,sep_comma_plus_space,-esc_msb"),
        ).stdout.decode(errors="replace")
    name = re.search(r"^subject=(.*)$", details, re.MULTILINE)
    usage = details.replace(name[0], "") if name else details
    subject = name[1].strip() if name else "?"
    if "Code Signing" not in usage or "Digital Signature" not in usage:
        raise Refused(
            f"{signature}: the certificate of {subject} is not for signing code, so what it signed does not count"
        )
    return subject


def signature_reason(said: str, ca: Path) -> str:
    """openssl's many words in the reader's terms."""
    verdict = re.search(r"Verify error: ?(.*)", said)
    if verdict and "expired" in verdict[1]:
        return "a certificate of the signer, or of the CA, has expired; have the image signed anew"
    if verdict and "not yet valid" in verdict[1]:
        return "a certificate of the signer, or of the CA, is not valid yet; is this machine's clock right?"
    if verdict:
        return f"signed with a key that the CA in {ca} does not stand for ({verdict[1].strip()})"
    if "no signers" in said:
        return "it holds no signature"
    if "verification failure" in said or "digest" in said:
        return "the manifest was changed after it was signed, or this is the signature of another one"
    return f"it is damaged, or no CMS signature (openssl: {(said.strip().splitlines() or ['says nothing'])[-1]})"


def parse_manifest(path: Path, data: bytes) -> dict[str, str]:
    """Names and sums. Signed or not: a name that leads out of the directory is refused."""
    listed: dict[str, str] = {}
    try:
        lines = data.decode().removesuffix("\n").split("\n")
    except UnicodeDecodeError:
        raise Refused(f"{path} is not the text that sha256sum writes") from None
    for number, line in enumerate(lines, 1):
        match = LINE.fullmatch(line)
        if not match:
            raise Refused(f"{path}:{number}: not a line that sha256sum writes: {line[:80]!r}")
        name = match[2]
        if any(part in ("", ".", "..") for part in name.split("/")):
            raise Refused(f"{path}:{number}: {name!r} leads out of the image's directory")
        if name in listed:
            raise Refused(f"{path}:{number}: {name!r} is listed twice")
        listed[name] = match[1]
    if not listed:
        raise Refused(f"{path} lists no file")
    return listed


def hash_file(path: Path) -> str:
    # Without O_NONBLOCK a pipe in the place of a file would wait for a writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(0, "it is not a file")
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_files(directory: Path, listed: dict[str, str]) -> list[str]:
    """What is wrong with the files listed, one line each."""
    top = directory.resolve()
    hashes: dict[Path, str] = {}
    problems = []
    for name, expected in listed.items():
        path = directory / name
        try:
            real = path.resolve(strict=True)
            # A link is fine where it leads to a file that is itself on the list.
            if not real.is_relative_to(top) or str(real.relative_to(top)) not in listed:
                problems.append(f"{name}: it is a link to {real}, which the manifest does not list")
                continue
            if real not in hashes:
                hashes[real] = hash_file(real)
        except FileNotFoundError:
            problems.append(f"{name}: it is missing")
            continue
        except (OSError, RuntimeError) as error:
            problems.append(f"{name}: it cannot be read ({getattr(error, 'strerror', None) or error})")
            continue
        if hashes[real] != expected:
            problems.append(f"{name}: it was changed after it was signed")
    return problems


def unlisted(directory: Path, image: str, listed: dict[str, str]) -> list[str]:
    """Files with the image's name that nobody signed: easily taken for a part of it."""
    known = {*listed, image + MANIFEST, image + MANIFEST + SIGNATURE}
    names = sorted(path.name for path in directory.iterdir() if path.name.startswith((f"{image}.", f"{image}-")))
    return [
        f"{name}: it has the image's name, but is not in the manifest; move it away"
        for name in names
        if name not in known
    ]


def size_of(directory: Path, listed: dict[str, str]) -> int:
    size = 0
    for name in listed:
        with contextlib.suppress(OSError):
            status = (directory / name).lstat()
            size += status.st_size if stat.S_ISREG(status.st_mode) else 0
    return size


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/verify-image",
        description=HELP,
        epilog=STATUS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("path", type=Path, help=f"the manifest (*{MANIFEST}), or the directory that it is in")
    parser.add_argument("--ca", type=Path, required=True, metavar="FILE", help="the maker's CA certificate (PEM)")
    parser.add_argument("--image", metavar="NAME", help="which image, where a directory holds several")
    options = parser.parse_args()
    if not options.path.exists() and not options.path.name.endswith(MANIFEST):
        raise Failure(f"{options.path} does not exist", 2)
    if openssl("x509", "-in", options.ca, "-noout").returncode:
        raise Failure(f"--ca: {options.ca} holds no certificate in PEM form, or cannot be read", 2)

    manifest = find_manifest(options.path, options.image)
    image = manifest.name.removesuffix(MANIFEST)
    data = read(manifest, "manifest")
    signer = verify_signature(data, manifest.with_name(manifest.name + SIGNATURE), options.ca)
    listed = parse_manifest(manifest, data)
    with step(f"checking {len(listed)} files, {size_of(manifest.parent, listed) / MIB:.0f} MiB"):
        problems = check_files(manifest.parent, listed) + unlisted(manifest.parent, image, listed)
    for problem in problems:
        print(f"verify-image: {problem}", file=sys.stderr)
    if problems:
        raise Refused(f"{image} in {manifest.parent} is not what {signer} has signed; do not use it")
    if DEVELOPMENT_UNIT in signer:
        print("verify-image: warning: signed with a development key, which is nobody's word", file=sys.stderr)
    print(f"{image}: {len(listed)} files are as {signer} has signed them")
    return 0


if __name__ == "__main__":
    sys.exit(main_guard("verify-image", main))
