# SPDX-License-Identifier: MIT
"""Python that the layer's classes, and the repository's scripts, share."""

# What BitBake's addpylib makes known to recipes, and takes into their signatures.
BBIMPORTS = ["conf", "service"]
