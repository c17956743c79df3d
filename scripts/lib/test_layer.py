"""`scripts/test-layer`: what needs BitBake and its metadata, in steps that go on when one of them fails."""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from scripts.lib import bitbake, test
from scripts.lib.bitbake import HOST_TOOLCHAIN, OFFLINE, ROOT, Fragment, Kas, choose, fragments, join
from scripts.lib.layer import LAYER
from scripts.lib.steps import DYING_WITH_US, Failure, Parser, capture, main_guard, run, step

WORK = ROOT / "build" / "test-layer"
IMAGE = "edgeweb-image"
MACHINE = "qemuarm"
# Repositories of kas.yml that are not this one.
METADATA = ("bitbake", "openembedded-core", "meta-yocto")
# What a fragment is for.
NEEDS = {"fit-signing": ["beaglebone"]}
MESSAGE = re.compile(r"^(?:WARNING|ERROR): ")
OURS = re.compile(r"edgeweb", re.IGNORECASE)
ATTEMPTED = re.compile(r"Attempted (\d+) tasks .* all succeeded")
# At the head of a line: the generator's comments name one, too.
CRATE = re.compile(r"^ +(crate://[\w.-]+/[\w.+-]+/[\w.+-]+)", re.MULTILINE)
CHECKSUM = re.compile(r'^SRC_URI\[([\w.+-]+)\.sha256sum\] = "([0-9a-f]{64})"', re.MULTILINE)

DESCRIPTION = """\
Tests the layer with BitBake: all steps, or those that are named. Needs the layers that kas.yml names from the network,
or from local copies that KAS_PREMIRRORS names. Works in build/test-layer and leaves everything else as it is.
"""


class Wrong(Exception):
    """What a step found to be wrong; one line."""


@dataclass
class Session:
    """What the steps have in common: where they work and what joins every configuration."""

    kas: Kas
    common: list[Fragment]
    only: list[str]
    passed: int = 0

    @property
    def fast(self) -> Kas:
        """The build directory of the host-toolchain route; its shared state serves the steps that build again."""
        return replace(self.kas, build=WORK / "fast")

    def fast_copy(self, name: str) -> Kas:
        """The same with a copy of the tree, which a step may change."""
        return replace(self.fast, tree=copy_of_tree(name))

    def choose(self, *names: str) -> list[Fragment]:
        return bitbake.with_debian_sources([*choose(names), *self.common])

    def build(self, chosen: Sequence[Fragment], *options: str, target: str = "", kas: Kas | None = None) -> list[str]:
        """kas build; what BitBake said. A status other than 0 is what is wrong."""
        kas, said = kas or self.kas, []
        words = ["--target", target] if target else []
        put_into(kas.tree, chosen)
        if status := kas.run("build", *words, join(chosen), "--", *options, said=said):
            raise Wrong(f"kas build {join(chosen)} ended with status {status}: {last_error(said)}")
        return said

    def shell(
        self, chosen: Sequence[Fragment], command: str, *, kas: Kas | None = None, fails: bool = False
    ) -> list[str]:
        """A command in the build's environment; what it said."""
        kas, said = kas or self.kas, []
        put_into(kas.tree, chosen)
        status = kas.run("shell", join(chosen), "-c", command, said=said)
        if (status != 0) != fails:
            raise Wrong(f"'{command}' ended with status {status}: {last_error(said)}")
        return said

    def expect(self, right: bool, what: str, instead: str = "") -> None:
        if not right:
            raise Wrong(f"not so: {what}{': ' + instead if instead else ''}")
        print(f"    ok: {what}", flush=True)
        self.passed += 1


def last_error(said: Sequence[str]) -> str:
    return next((line for line in reversed(said) if line.startswith("ERROR")), said[-1] if said else "it says nothing")


def complaints(said: Iterable[str]) -> list[str]:
    """BitBake's warnings and errors that name something of this layer."""
    return [line for line in said if MESSAGE.match(line) and OURS.search(line.replace(str(ROOT), ""))]


def fragment(name: str, text: str) -> Fragment:
    """A kas file for one step."""
    return bitbake.write_fragment(WORK / f"{name}.yml", text)


def without_layer() -> Fragment:
    return fragment("without-layer", "repos:\n  edgeweb:\n    layers:\n      meta-edgeweb: disabled\n")


def put_into(tree: Path, chosen: Sequence[Fragment]) -> None:
    """What was written for a step is not part of a copy of the tree; kas joins only files of one repository."""
    for one in chosen:
        path = tree / one.path.relative_to(ROOT)
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(one.path, path)


def copy_of_tree(name: str) -> Path:
    """The tree as git would commit it, a repository of its own: what a step may change."""
    copy = WORK / "trees" / name
    shutil.rmtree(copy, ignore_errors=True)
    listed = capture(["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT)
    for path in filter(None, listed.split("\0")):
        if (ROOT / path).is_file():
            (copy / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / path, copy / path)
    capture(["git", "init", "-q", copy])
    return copy


def parse(session: Session) -> None:
    for names in ((), ("core-image",)):
        said = session.build(session.choose(*names), "-p")
        what = f"bitbake -p with {join(choose(names))} has no complaint about this layer"
        session.expect(not complaints(said), what, " / ".join(complaints(said)))


def lint(session: Session) -> None:
    python = test.venv_python()
    status = run([python, "-m", "unittest", "tests.layer.test_lint.OelintTest"], cwd=ROOT)
    session.expect(status == 0, "oelint-adv has nothing to say")


def locked_signatures(session: Session, chosen: Sequence[Fragment]) -> dict[str, str]:
    """Every task that core-image-minimal needs, with the hash of all that goes into it."""
    file = session.kas.build / "locked-sigs.inc"
    file.unlink(missing_ok=True)
    session.shell(chosen, "bitbake -S lockedsigs core-image-minimal")
    lines = re.findall(r"^ +(\S+:do_\w+|\S+:\w+):([0-9a-f]{64})", file.read_text(), re.MULTILINE)
    return dict(lines)


def signatures(session: Session) -> None:
    without = locked_signatures(session, [*session.choose(), without_layer()])
    session.expect(len(without) > 1000, f"core-image-minimal has {len(without)} tasks")
    beside = locked_signatures(session, session.choose())
    differing = sorted(task for task in without.keys() | beside.keys() if without.get(task) != beside.get(task))
    session.expect(
        not differing, "the layer alone changes no signature of core-image-minimal", ", ".join(differing[:5])
    )
    featured = locked_signatures(session, session.choose("core-image"))
    session.expect(
        any(task.startswith("edgeweb:") for task in featured),
        "core-image-minimal takes edgeweb in when it is in DISTRO_FEATURES",
    )


def check_layer(session: Session) -> None:
    said = session.shell(session.choose(), shlex.quote(str(ROOT / "ci" / "check-layer")))
    passed = any(re.search(r"meta-edgeweb \.\.\. PASS$", line) for line in said)
    session.expect(passed, "yocto-check-layer: PASS", last_error(said))


def development_keys(kas: Kas) -> Kas:
    """A build that signs needs keys: those of a development CA."""
    keys = WORK / "signing"
    if not keys.exists():
        capture([ROOT / "scripts" / "make-signing-ca", keys])
    names = {"IMAGE_SIGNING_KEY": "signing.key", "IMAGE_SIGNING_CERT": "signing.crt", "UBOOT_SIGN_KEYDIR": ""}
    return replace(kas, extra={**kas.extra, **{name: str(keys / file) for name, file in names.items()}})


def dry(session: Session) -> None:
    kas = development_keys(session.kas)
    wrong = []
    for name in session.only or ("", *fragments()):
        names = [*filter(None, [name]), *NEEDS.get(name, ())]
        if name and any(one.name == name or one.choices & choose(names)[0].choices for one in session.common):
            print(f"    left out: {name}, which does not go with {', '.join(one.name for one in session.common)}")
            continue
        began = time.monotonic()
        try:
            said = session.build(session.choose(*names), "-n", kas=kas)
            tasks = ATTEMPTED.search("\n".join(said))
            found = f"{tasks[1] if tasks else 'no'} tasks, {(time.monotonic() - began) / 60:.0f} min"
            what = f"bitbake -n with {join(choose(names))}: {found}"
            session.expect(tasks is not None and not complaints(said), what, " / ".join(complaints(said)))
        except Wrong as reason:
            print(f"    {reason}", flush=True)
            wrong.append(name or "kas.yml")
    if wrong:
        raise Wrong(f"bitbake -n fails with {', '.join(wrong)}")


def premirrored(url: str) -> str:
    """Where kas would clone from: each line of KAS_PREMIRRORS is an expression and its replacement."""
    for line in os.environ.get("KAS_PREMIRRORS", "").splitlines():
        pattern, _, replacement = line.partition(" ")
        if pattern and re.match(pattern, url):
            return re.sub(pattern, replacement.strip(), url)
    return url


def master(session: Session) -> None:
    lines = ["overrides:", "  repos:"]
    for name in METADATA:
        url = bitbake.MAIN.config["repos"][name]["url"]
        head = capture(["git", "ls-remote", premirrored(url), "refs/heads/master"]).split()
        if not head:
            raise Wrong(f"{url} has no branch master")
        lines += [f"    {name}:", "      branch: master", f"      commit: {head[0]}"]
    heads = fragment("master", "\n".join(lines) + "\n")
    work = WORK / "master"
    kas = replace(session.kas, work=work, build=work / "build")
    said = session.build([*session.choose(), heads], "-n", kas=kas)
    count = ATTEMPTED.search("\n".join(said))
    session.expect(count is not None, f"bitbake -n with the master branches: {count[1] if count else 'no'} tasks")
    session.expect(not complaints(said), "no complaint about this layer", " / ".join(complaints(said)))


def crates(text: str) -> tuple[set[str], dict[str, str]]:
    return set(CRATE.findall(text)), dict(CHECKSUM.findall(text))


def update_crates(session: Session) -> None:
    kas = session.fast_copy("update-crates")
    # The task wants python3-native, which is not built there.
    session.shell(session.choose(HOST_TOOLCHAIN), "bitbake -c update_crates edgeweb", kas=kas)
    folder = kas.tree / "meta-edgeweb" / "recipes-edgeweb" / "edgeweb"
    written = crates((folder / "edgeweb-crates.inc").read_text())
    recipe = crates(next(folder.glob("edgeweb_*.bb")).read_text())
    session.expect(len(recipe[0]) > 50, f"the recipe has {len(recipe[0])} crates")
    session.expect(written == recipe, "bitbake -c update_crates has the same crates and checksums as the recipe")


def layers(session: Session) -> None:
    """As the README shows it, in a build that does not have the layer yet."""
    chosen = [*session.choose(), without_layer()]
    flat = WORK / "flat"
    shutil.rmtree(flat, ignore_errors=True)
    layer = shlex.quote(str(LAYER))
    said = session.shell(
        chosen,
        f"bitbake-layers add-layer {layer} && bitbake-layers show-layers && bitbake-layers show-recipes edgeweb"
        f" && bitbake-layers flatten {shlex.quote(str(flat))} && bitbake-layers remove-layer {layer}",
    )
    text = "\n".join(said)
    session.expect(
        re.search(rf"^edgeweb +{re.escape(str(LAYER))} +\d+$", text, re.MULTILINE) is not None, "show-layers"
    )
    session.expect(re.search(r"^ +meta-edgeweb|^ +edgeweb +\d", text, re.MULTILINE) is not None, "show-recipes")
    session.expect(bool(list(flat.glob("recipes-*/edgeweb/edgeweb_*.bb"))), "flatten has the recipe")


def template(session: Session) -> None:
    """A build directory of oe-init-build-env, as the README shows it, with this tree beside the same layers."""
    if session.kas.run("checkout", join(session.choose())):
        raise Wrong("kas cannot check the layers out; the reason is above")
    work, build = session.kas.work, session.kas.work / "template"
    shutil.rmtree(build, ignore_errors=True)
    (build / "conf").mkdir(parents=True)
    # What the fragments that join every step say; BitBake reads it before local.conf.
    said_by_all = [text for one in session.common for text in one.config["local_conf_header"].values()]
    (build / "conf" / "site.conf").write_text("\n".join(said_by_all))
    (work / "edgeweb").unlink(missing_ok=True)
    (work / "edgeweb").symlink_to(ROOT)
    script = (
        "TEMPLATECONF=$PWD/edgeweb/meta-edgeweb/conf/templates/edgeweb . openembedded-core/oe-init-build-env template"
        " && bitbake -p && bitbake-getvar --value MACHINE && bitbake-getvar --value INIT_MANAGER"
    )
    try:
        with step("bitbake -p in a new build directory"):
            done = subprocess.run(
                [*DYING_WITH_US, "bash", "-c", script],
                cwd=work,
                env={**session.kas.environment(), "PATH": "/usr/bin:/bin:/usr/sbin:/sbin"},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
            )
    finally:
        replace(session.kas, build=build).end_server()
        (work / "edgeweb").unlink()
    said = done.stdout.splitlines()
    print("\n".join(f"    {line}" for line in said), flush=True)
    session.expect(done.returncode == 0, "TEMPLATECONF, oe-init-build-env, bitbake -p", last_error(said))
    session.expect(said[-2:] == [MACHINE, "systemd"], "machine and init system are kas.yml's", " ".join(said[-2:]))
    session.expect(not complaints(said), "no complaint about this layer", " / ".join(complaints(said)))


def image_of(kas: Kas) -> Path:
    return kas.build / "tmp" / "deploy" / "images" / MACHINE / f"{IMAGE}-{MACHINE}.rootfs.ext4"


def fast(session: Session) -> None:
    chosen = session.choose(HOST_TOOLCHAIN)
    for target in ("edgeweb", IMAGE):
        began = time.monotonic()
        said = session.build(chosen, target=target, kas=session.fast)
        minutes = (time.monotonic() - began) / 60
        session.expect(not complaints(said), f"bitbake {target}: {minutes:.1f} min", " / ".join(complaints(said)))
    session.expect(image_of(session.fast).is_file(), f"{os.path.relpath(image_of(session.fast), ROOT)} is there")


def rebuild(session: Session) -> None:
    """An edit of the service, and the image again. In a copy of the tree, over what `fast` has built."""
    kas = session.fast_copy("rebuild")
    chosen = session.choose(HOST_TOOLCHAIN)
    # The copy has another path than the tree; the first build is not the edit's.
    session.build(chosen, kas=kas)
    page = kas.tree / "service" / "web" / "index.html"
    page.write_text(page.read_text().replace("</body>", f"<!-- {time.time_ns()} -->\n</body>"))
    began = time.monotonic()
    session.build(chosen, kas=kas)
    print(f"    from an edit to the image: {time.monotonic() - began:.0f} s (90 s on an idle machine of two cores)")
    session.expect(image_of(kas).stat().st_mtime > time.time() - 600, "the image is a new one")


def reproducible(session: Session) -> None:
    """Compiled twice, in directories of different names and depths, from trees of different names and depths."""
    chosen = session.choose(HOST_TOOLCHAIN)
    sums = []
    for name in ("first", "the/second/of-two"):
        kas = replace(session.fast_copy(f"reproducible/{name}"), build=WORK / "reproducible" / "build" / name)
        # Only what is compiled here and now counts: -f leaves no way to take it from shared state.
        session.build(chosen, "-c", "compile", "-f", target="edgeweb", kas=kas)
        session.build(chosen, "-c", "package", target="edgeweb", kas=kas)
        found = list(kas.build.glob("tmp/work/*/edgeweb/*/packages-split/edgeweb/usr/bin/edgeweb"))
        if len(found) != 1:
            raise Wrong(f"{kas.build} has {len(found)} packaged binaries")
        sums.append(hashlib.sha256(found[0].read_bytes()).hexdigest())
        print(f"    {sums[-1]}  {found[0].relative_to(WORK)}")
    session.expect(sums[0] == sums[1], "two builds in different directories give the same binary")


def boot(session: Session) -> None:
    image = image_of(session.fast)
    if not image.exists():
        fast(session)
    status = run([ROOT / "scripts" / "run", "--image", image, "--check"])
    session.expect(status == 0, f"scripts/run --image {os.path.relpath(image, ROOT)} --check")


def errors(session: Session) -> None:
    """Wrong use of the layer says what is wrong and what to do, in BitBake's own words or in the layer's."""

    def says(said: Sequence[str], about: str, *words: str) -> None:
        text = " ".join(" ".join(said).split())
        for word in words:
            session.expect(word in text, f"{about}: '{word}'", last_error(said))

    kas = session.fast_copy("errors")
    conf = kas.tree / "meta-edgeweb" / "conf" / "layer.conf"
    right = conf.read_text()
    conf.write_text(re.sub(r'^(LAYERSERIES_COMPAT_edgeweb = )".*"$', r'\1"kirkstone"', right, flags=re.MULTILINE))
    said = session.shell(session.choose(), "bitbake -p", kas=kas, fails=True)
    says(said, "another series", "Layer edgeweb is not compatible with the core layer", "wrynose", "kirkstone")
    conf.write_text(right)

    lock = kas.tree / "service" / "Cargo.lock"
    lock.write_text(
        re.sub(r'^(name = "actix-web"\nversion = )".*"$', r'\1"4.0.0"', lock.read_text(), flags=re.MULTILINE)
    )
    said = session.shell(session.choose(HOST_TOOLCHAIN), "bitbake -c configure edgeweb", kas=kas, fails=True)
    says(said, "a Cargo.lock of other crates", "actix-web-4.0.0", "run scripts/update-recipe")

    none = fragment("no-init", 'local_conf_header:\n  edgeweb-init-manager: |\n    INIT_MANAGER = "none"\n')
    said = session.shell([*session.choose(), none], "bitbake -n edgeweb", fails=True)
    says(said, "no init system", "DISTRO_FEATURES has neither systemd nor sysvinit, so nothing would start edgeweb")


@dataclass(frozen=True)
class Step:
    name: str
    about: str
    minutes: str  # on two idle cores
    run: Callable[[Session], None]


STEPS = {
    step.name: step
    for step in (
        Step("parse", "bitbake -p without a complaint about this layer", "3", parse),
        Step("lint", "oelint-adv", "1", lint),
        Step("layers", "bitbake-layers add-layer, show-layers, flatten", "3", layers),
        Step("template", "TEMPLATECONF and oe-init-build-env", "2", template),
        Step("errors", "wrong use: another series, another Cargo.lock, no init system", "8", errors),
        Step(
            "signatures",
            "what the layer changes of core-image-minimal: nothing, unless it is asked to",
            "6",
            signatures,
        ),
        Step("update-crates", "bitbake -c update_crates against the generated recipe", "3", update_crates),
        Step("fast", "edgeweb and edgeweb-image by the host-toolchain route", "15", fast),
        Step("boot", "that image in QEMU, asked over the network", "2", boot),
        Step("rebuild", "an edit of the service and the image again", "5", rebuild),
        Step("reproducible", "two builds in different directories, the same binary", "10", reproducible),
        Step("check-layer", "yocto-check-layer", "15", check_layer),
        Step("dry", "bitbake -n with kas.yml, and with each fragment", "5 each", dry),
        Step("master", "bitbake -n with the master branches of BitBake, OE-Core and meta-yocto", "7", master),
    )
}


def parse_arguments() -> argparse.Namespace:
    steps = "\n".join(f"  {step.name:<14} {step.about} ({step.minutes})" for step in STEPS.values())
    parser = Parser(
        prog="scripts/test-layer",
        description=DESCRIPTION,
        epilog=f"steps, with their minutes on two idle cores:\n{steps}\n\n"
        "exit status: 0 everything passed, 1 something failed, 2 wrong usage, 130 ctrl-C, 143 SIGTERM",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("step", nargs="*", metavar="STEP", help="a step to run; all of them when none is named")
    parser.add_argument(
        "--only", action="append", default=[], metavar="FRAGMENT", help="for dry: not each, but this one"
    )
    parser.add_argument("--offline", action="store_true", help="as scripts/build-image has it")
    arguments = parser.parse_intermixed_args()
    for name in arguments.step:
        if name not in STEPS:
            parser.error(f"there is no step {name}")
    choose(arguments.only)
    return arguments


def run_step(chosen: Step, session: Session) -> bool:
    began = time.monotonic()
    print(f"\n==> {chosen.name}: {chosen.about}", flush=True)
    try:
        chosen.run(session)
        reason = None
    except (Wrong, Failure, OSError) as error:
        reason = str(error)
    print(f"==> {chosen.name}: {reason or 'ok'} ({time.monotonic() - began:.0f} s)", flush=True)
    return reason is None


def main() -> int:
    arguments = parse_arguments()
    bitbake.require_locale()
    # The build directories of the steps share what is fetched and built; BitBake wants the hashes beside it.
    shared = {
        "DL_DIR": WORK / "downloads",
        "SSTATE_DIR": WORK / "sstate-cache",
        "BB_HASHSERVE_DB_DIR": WORK / "sstate-cache",
    }
    extra = {name: str(path) for name, path in shared.items() if name not in os.environ}
    kas = Kas(WORK, WORK / "build", extra=extra)
    kas.require_directories(bitbake.FAST_SPACE * 3)
    common = choose([OFFLINE]) if arguments.offline else []
    session = Session(kas, common, arguments.only)
    results = {}
    try:
        for name in arguments.step or STEPS:
            results[name] = run_step(STEPS[name], session)
    finally:
        for one in (session.kas, session.fast):
            one.end_server()
    print()
    for name, right in results.items():
        print(f"{name:<14} {'ok' if right else 'FAILED'}")
    failed = list(results.values()).count(False)
    # A step that failed is one failure more than what it had passed before.
    print(f"{session.passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main_guard("test-layer", main))
