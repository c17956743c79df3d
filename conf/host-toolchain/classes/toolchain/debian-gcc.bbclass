# Debian's gcc for recipes of the target. OE-Core's own class, but nothing here is
# built by a recipe: TARGET_PREFIX leads to the programs of the build machine.
inherit toolchain/gcc

# Set by that class, and unknown to gcc 12.
DEBUG_PREFIX_MAP_EXTRA:toolchain-gcc = ""

# The first two are no recipes: see ASSUME_PROVIDED in tcmode-host-toolchain.inc.
PREFERRED_PROVIDER_virtual/${MLPREFIX}cross-cc = "debian-gcc"
PREFERRED_PROVIDER_virtual/${MLPREFIX}cross-c++ = "debian-g++"
PREFERRED_PROVIDER_virtual/${MLPREFIX}compilerlibs = "debian-armhf-runtime"
