# SPDX-License-Identifier: MIT
"""Python that the layer's classes, and the repository's scripts, share."""

# BitBake imports these for the layer's classes, and signs tasks with the functions they call.
BBIMPORTS = ["conf", "image_signing", "service"]
