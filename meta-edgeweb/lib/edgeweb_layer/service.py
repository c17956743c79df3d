# SPDX-License-Identifier: MIT
"""The unit, the init script and their like of a network service, from edgeweb-service.bbclass's variables."""

import re

# EDGEWEB_SERVICE_<name> is a recipe's word for each of them.
SETTINGS = (
    "NAME",
    "DESCRIPTION",
    "COMMAND",
    "CHECK",
    "HEALTH",
    "RELOAD",
    "LOGPIPE",
    "STDOUT_CONSOLE",
    "USER",
    "TYPE",
    "WATCHDOG",
    "FATAL_STATUS",
    "CAPABILITIES",
    "ADDRESS_FAMILIES",
    "START_TIMEOUT",
    "STOP_TIMEOUT",
)
TYPES = ("exec", "notify")
# Debian's and shadow's rule for account names; also right for file and unit names.
NAME = re.compile(r"[a-z_][a-z0-9_-]{0,30}")
SIGNAL = re.compile(r"[A-Z]+[0-9+]*")
# What the shell, systemd or the templates would read as something else.
NEVER = re.compile(r"['\"`$\\%@;&|<>\n]")
PLACEHOLDER = re.compile(r"@([A-Z_]+)@")
OPTIONAL = re.compile(r"@([A-Z_]+)\?@")


def wrong(settings):
    """What is wrong with the settings, a line each; nothing when all is well."""
    found = []
    for key in SETTINGS:
        if bad := NEVER.search(settings[key]):
            found.append(f"EDGEWEB_SERVICE_{key} holds {bad[0]!r}, which the shell or systemd would read; take it out")
    for key in ("NAME", "USER"):
        if not NAME.fullmatch(settings[key]):
            found.append(
                f"EDGEWEB_SERVICE_{key} is {settings[key]!r}; lower case letters, digits, - and _, at most 31, please"
            )
    if settings["USER"] == "root":
        found.append(
            "EDGEWEB_SERVICE_USER is root; name a user of its own, and EDGEWEB_SERVICE_CAPABILITIES if it needs any"
        )
    for key in ("COMMAND", "CHECK", "HEALTH"):
        value = settings[key]
        if not value.startswith("/") and (value or key == "COMMAND"):
            found.append(f"EDGEWEB_SERVICE_{key} is {value!r}; it begins with the full path of a program")
    if settings["TYPE"] not in TYPES:
        found.append(f"EDGEWEB_SERVICE_TYPE is {settings['TYPE']!r}; one of {', '.join(TYPES)}")
    if settings["RELOAD"] and not SIGNAL.fullmatch(settings["RELOAD"]):
        found.append(f"EDGEWEB_SERVICE_RELOAD is {settings['RELOAD']!r}; the name of a signal, such as HUP, or empty")
    if not re.fullmatch(r"AF_[A-Z0-9]+( +AF_[A-Z0-9]+)*", settings["ADDRESS_FAMILIES"]):
        found.append(f"EDGEWEB_SERVICE_ADDRESS_FAMILIES is {settings['ADDRESS_FAMILIES']!r}; such as AF_INET AF_UNIX")
    if settings["LOGPIPE"] not in ("0", "1"):
        found.append(f"EDGEWEB_SERVICE_LOGPIPE is {settings['LOGPIPE']!r}; 1 for its output in the log, or 0")
    if settings["STDOUT_CONSOLE"] not in ("0", "1"):
        found.append(
            f"EDGEWEB_SERVICE_STDOUT_CONSOLE is {settings['STDOUT_CONSOLE']!r}; 1 for its output on the console, or 0"
        )
    elif settings["STDOUT_CONSOLE"] == settings["LOGPIPE"] == "1":
        found.append("EDGEWEB_SERVICE_STDOUT_CONSOLE is 1, but EDGEWEB_SERVICE_LOGPIPE takes its output; one of them")
    if settings["WATCHDOG"] and settings["TYPE"] != "notify":
        found.append("EDGEWEB_SERVICE_WATCHDOG is set, but only a service of type notify can feed it; empty it")
    for key in ("WATCHDOG", "START_TIMEOUT", "STOP_TIMEOUT"):
        if not re.fullmatch(r"[1-9][0-9]{0,3}", settings[key]) and (settings[key] or key != "WATCHDOG"):
            found.append(f"EDGEWEB_SERVICE_{key} is {settings[key]!r}; a number of seconds, 1 to 9999")
    return found


def render(template, settings):
    """
    Fills a template: @KEY@ is a setting's value, and a line that begins with @KEY?@ is left out
    when the setting is empty. Besides the settings it wants the directories BINDIR, SYSCONFDIR and
    LOCALSTATEDIR. Raises KeyError for a key that is unknown.
    """
    timeout = settings["START_TIMEOUT"]
    logpipe = f"{settings['BINDIR']}/edgeweb logpipe --tag {settings['NAME']} -- "
    values = dict(
        settings,
        LOGPIPE=logpipe if settings["LOGPIPE"] == "1" else "",
        CONSOLE="yes" if settings["STDOUT_CONSOLE"] == "1" else "",
        NOTIFY="yes" if settings["TYPE"] == "notify" else "",
        RELOAD_CHECK=settings["CHECK"] and settings["RELOAD"],
        # systemd counts the whole start; the init script waits for health only and leaves the service running.
        UNIT_START_TIMEOUT=str(3 * int(timeout)),
    )
    lines = []
    for line in template.splitlines():
        condition = OPTIONAL.match(line)
        if condition and not values[condition[1]]:
            continue
        text = line[condition.end() :] if condition else line
        lines.append(PLACEHOLDER.sub(lambda found: values[found[1]], text))
    return "".join(f"{line}\n" for line in lines)
