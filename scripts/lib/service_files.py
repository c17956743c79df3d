"""The files that edgeweb-service.bbclass gives a service, without BitBake: by the class's own templates and code."""

from __future__ import annotations

import re
from pathlib import Path

from scripts.lib.layer import LAYER, library
from scripts.lib.steps import Failure

CLASS = LAYER / "classes-recipe" / "edgeweb-service.bbclass"
TEMPLATES = LAYER / "files" / "edgeweb-service"
EDGEWEB = LAYER / "recipes-edgeweb" / "edgeweb" / "edgeweb.inc"
CONFIGURATION = LAYER / "recipes-edgeweb" / "edgeweb-conf" / "files" / "edgeweb.toml"

# As bitbake.conf sets them.
DIRECTORIES = {"bindir": "/usr/bin", "sbindir": "/usr/sbin", "datadir": "/usr/share"}
DIRECTORIES |= {"sysconfdir": "/etc", "localstatedir": "/var"}
ASSIGNMENT = re.compile(r'^(EDGEWEB_SERVICE_\w+|SUMMARY) \??= "([^"]*)"$', re.MULTILINE)
CHOICE = re.compile(r"\$\{@bb\.utils\.contains\('PACKAGECONFIG', 'systemd', '(\w*)', '(\w*)', d\)\}")
VARIABLE = re.compile(r"\$\{(\w+)\}")

renderer = library("service")


def settings(recipe: Path = EDGEWEB, *, systemd: bool, **changed: str) -> dict[str, str]:
    """
    What a recipe sets, as far as a line alone says it, over the class's defaults. `systemd` is whether that is
    in PACKAGECONFIG; `changed` is what a maker's append would set.
    """
    try:
        text = CLASS.read_text() + recipe.read_text()
    except FileNotFoundError as error:
        raise Failure(f"the layer's file {error.filename} is missing; is this a whole checkout?") from None
    raw = dict(ASSIGNMENT.findall(text)) | {f"EDGEWEB_SERVICE_{key}": value for key, value in changed.items()}
    known = DIRECTORIES | {"BPN": recipe.stem.split("_")[0]}

    def expand(value: str) -> str:
        value = CHOICE.sub(lambda found: found[1 if systemd else 2], value)
        return VARIABLE.sub(lambda found: known.get(found[1]) or expand(raw[found[1]]), value)

    values = {key: expand(raw[f"EDGEWEB_SERVICE_{key}"]) for key in renderer.SETTINGS}
    if reasons := renderer.wrong(values):
        raise Failure(f"{recipe}: {reasons[0]}")
    return values


def render(template: str, values: dict[str, str]) -> str:
    """A template of the class, filled in with what `settings` gave."""
    places = {key: DIRECTORIES[key.lower()] for key in ("BINDIR", "SYSCONFDIR", "LOCALSTATEDIR")}
    return renderer.render((TEMPLATES / template).read_text(), values | places)
