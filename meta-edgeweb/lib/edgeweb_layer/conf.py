# SPDX-License-Identifier: MIT
"""Reads just enough of edgeweb.toml to judge its values on the build machine, whose Python may have no tomllib."""

import re

TABLE = re.compile(r"\s*\[+\s*([\w.\"-]+)\s*\]+")
STRING = re.compile(r"\"((?:[^\"\\]|\\.)*)\"|'([^']*)'")
SETTING = re.compile(r"\s*([\w.\"-]+)\s*=\s*(.*)")


def values(path):
    """Every string in the file as (key, line number, value); comments are not values."""
    table = ""
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if found := TABLE.fullmatch(line.split("#")[0].rstrip()):
                table = found[1] + "."
            elif found := SETTING.match(line):
                for double, single in STRING.findall(without_comment(found[2])):
                    yield table + found[1], number, double or single


def without_comment(text):
    """The text up to the first # that is in no string."""
    position = 0
    while position < len(text):
        if text[position] == "#":
            return text[:position]
        found = STRING.match(text, position)
        position = found.end() if found else position + 1
    return text
