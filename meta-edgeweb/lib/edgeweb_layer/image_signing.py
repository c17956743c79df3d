# SPDX-License-Identifier: MIT
"""Signs the files of an image: what image-signing.bbclass calls, free of BitBake.

No function's name begins with an underscore: BitBake would not see that it changed.
"""

import calendar
import hashlib
import os
import re
import stat
import subprocess
import time

# The organizational unit in certificates of scripts/make-signing-ca.
DEVELOPMENT_UNIT = "development key, not for release"


class SigningError(Exception):
    """One line: what is wrong, where, and what to do next."""


def run_openssl(*arguments):
    """Standard output of openssl. It asks nobody for a pass phrase: there is no terminal and no input."""
    try:
        done = subprocess.run(
            ["openssl", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            start_new_session=True,
            check=False,
        )
    except FileNotFoundError:
        raise SigningError("the program openssl is not there; a build with host tools wants it installed") from None
    if done.returncode:
        # "40B7…:error:0480006C:PEM routines:get_name:no start line:../crypto/…:" has the reason in the middle.
        reasons = re.findall(r":error:[0-9A-F]+:(?:[^:]*:){2}([^:\n]+)", done.stderr)
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        raise SigningError(reasons[-1] if reasons else (lines or ["openssl says nothing"])[-1])
    return done.stdout


def check_file(variable, path, secret=False):
    """A file that a variable names, before anything is done with it."""
    if path.startswith("pkcs11:"):
        raise SigningError(
            f"{variable} is a PKCS#11 address, which is not supported; build without signing, "
            "and sign the manifest where the token is"
        )
    if not os.path.isabs(path):
        raise SigningError(f"{variable} is '{path}'; give it the whole path of a file")
    try:
        status = os.stat(path)
        with open(path, "rb"):
            pass
    except OSError as error:
        raise SigningError(f"{variable}: cannot read {path} ({error.strerror}); see scripts/make-signing-ca") from None
    if not stat.S_ISREG(status.st_mode):
        raise SigningError(f"{variable}: {path} is not a file")
    if secret and status.st_mode & 0o077:
        raise SigningError(f"{variable}: others than its owner may use {path}; type: chmod 600 {path}")


def pass_phrase(pass_file):
    # By file: a command line shows in the process list, an environment in the log.
    return ["-passin", f"file:{pass_file}"] if pass_file else []


def certificate_date(certificate, name):
    text = run_openssl("x509", "-in", certificate, "-noout", f"-{name}", "-dateopt", "iso_8601").partition("=")[2]
    return calendar.timegm(time.strptime(text.strip(), "%Y-%m-%d %H:%M:%SZ"))


def utc(moment):
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(moment))


def is_development(certificate):
    names = run_openssl(
        "x509", "-in", certificate, "-noout", "-subject", "-issuer", "-nameopt", "multiline,utf8,-esc_msb"
    )
    return DEVELOPMENT_UNIT in re.findall(r"^ *organizationalUnitName *= (.*)$", names, re.MULTILINE)


def check_certificate(certificate, chain):
    """Whatever would make scripts/verify-image refuse the signature is better said before there is one."""
    try:
        begin, end = (certificate_date(certificate, name) for name in ("startdate", "enddate"))
        usage = run_openssl("x509", "-in", certificate, "-noout", "-ext", "keyUsage,extendedKeyUsage")
    except SigningError as error:
        raise SigningError(f"IMAGE_SIGNING_CERT: {certificate} holds no certificate ({error})") from None
    if time.time() > end:
        raise SigningError(f"IMAGE_SIGNING_CERT: {certificate} has expired ({utc(end)}); have a new one issued")
    if time.time() < begin:
        raise SigningError(f"IMAGE_SIGNING_CERT: {certificate} is valid from {utc(begin)} on; is the clock right?")
    if "Code Signing" not in usage or "Digital Signature" not in usage:
        raise SigningError(
            f"IMAGE_SIGNING_CERT: {certificate} is not for signing code (keyUsage digitalSignature, "
            "extendedKeyUsage codeSigning); have one issued that is"
        )
    if chain:
        try:
            # The chain is not trusted here; whoever checks the image has the CA. It only has to lead there.
            run_openssl("verify", "-no-CApath", "-no-CAstore", "-partial_chain", "-trusted", chain, certificate)
        except SigningError as error:
            raise SigningError(
                f"IMAGE_SIGNING_CHAIN: {chain} does not lead from {certificate} to its issuer ({error})"
            ) from None


def check_key(key, certificate, pass_file):
    try:
        public = run_openssl("pkey", "-in", key, "-pubout", *pass_phrase(pass_file))
    except SigningError as error:
        with open(key, errors="replace") as file:
            encrypted = "ENCRYPTED" in file.read()
        if encrypted and not pass_file:
            advice = "it has a pass phrase; name the file that holds it in IMAGE_SIGNING_KEY_PASS_FILE"
        elif encrypted:
            advice = f"the pass phrase in {pass_file} is wrong, or the key is damaged: {error}"
        else:
            advice = f"is it a private key in PEM form? {error}"
        raise SigningError(f"IMAGE_SIGNING_KEY: cannot use {key} ({advice})") from None
    if public != run_openssl("x509", "-in", certificate, "-noout", "-pubkey"):
        raise SigningError(f"IMAGE_SIGNING_KEY: {key} is not the key of {certificate}; name two that belong together")


def check(key, certificate, chain, pass_file):
    """Raises a SigningError unless all that signing needs is in order."""
    for variable, path, secret in (
        ("IMAGE_SIGNING_KEY", key, True),
        ("IMAGE_SIGNING_CERT", certificate, False),
        ("IMAGE_SIGNING_CHAIN", chain, False),
        ("IMAGE_SIGNING_KEY_PASS_FILE", pass_file, True),
    ):
        if path:
            check_file(variable, path, secret)
        elif variable in ("IMAGE_SIGNING_KEY", "IMAGE_SIGNING_CERT"):
            raise SigningError(
                f"{variable} is not set; name a file, or make one for trying with scripts/make-signing-ca"
            )
    check_certificate(certificate, chain)
    check_key(key, certificate, pass_file)


def file_hash(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def write_manifest(directory, names, manifest):
    """`sha256sum` of the named files: links by what they lead to, sorted, so that same in is same out."""
    top = os.path.realpath(directory)
    hashes = {}
    lines = []
    for name in sorted(set(names)):
        # sha256sum escapes such names, and few readers know how.
        if re.search(r"[\x00-\x1f\x7f\\\ud800-\udfff]", name):
            raise SigningError(
                f"the file {name!r} cannot be listed in a manifest; give it a name without such characters"
            )
        path = os.path.realpath(os.path.join(directory, name))
        if os.path.commonpath((top, path)) != top:
            raise SigningError(f"{name} leads out of {directory}, so it cannot be signed with the rest")
        if not os.path.isfile(path):
            continue  # a directory, or a link to one: what is in it has a name of its own
        if path not in hashes:
            hashes[path] = file_hash(path)
        lines.append(f"{hashes[path]}  {name}\n")
    if not lines:
        raise SigningError(f"there is no file to sign in {directory}")
    with open(manifest, "w", encoding="utf-8") as file:
        file.writelines(lines)


def sign(manifest, signature, key, certificate, chain, pass_file):
    """A detached CMS signature (DER) over the manifest's bytes, with the signer's certificates inside."""
    try:
        run_openssl(
            *("cms", "-sign", "-binary", "-outform", "DER", "-md", "sha256", "-nosmimecap"),
            *("-in", manifest, "-out", signature, "-signer", certificate, "-inkey", key),
            *(("-certfile", chain) if chain else ()),
            *pass_phrase(pass_file),
        )
    except SigningError as error:
        raise SigningError(f"openssl cannot sign {manifest} with {key} ({error})") from None
