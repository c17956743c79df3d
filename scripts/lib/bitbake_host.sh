# shellcheck shell=bash
# Sourced by the scripts that run BitBake: what this machine must have, and the Python they run in.

# shellcheck source=scripts/lib/python.sh
source "${root:?}/scripts/lib/python.sh"

# What BitBake's own check of the machine asks for, and what kas and these scripts need.
# shellcheck disable=SC2034 # used by the scripts that source this
bitbake_packages=(
  build-essential bzip2 chrpath cpio diffstat file gawk git locales lz4 python3 python3-venv python3-websockets python3-yaml
  rpcsvc-proto socat texinfo wget xz-utils zstd
)
# The rest of the list in conf/host-toolchain/README.md.
# shellcheck disable=SC2034 # likewise
host_toolchain_packages=(
  gcc-arm-linux-gnueabihf g++-arm-linux-gnueabihf libc6-dev-armhf-cross
  rustc-web cargo-web rust-web-src
  apt-utils autoconf automake autotools-dev kmod libdw-dev libtool m4 passwd pigz pkgconf
  pseudo quilt rpm
)

# refuse_root: before anything is installed, because root would not get further than that.
refuse_root() {
  if [[ $(id -u) -eq 0 ]]; then
    echo "${0##*/}: BitBake refuses to run as root; do this as an ordinary user who may write to this tree" >&2
    exit 1
  fi
}

# bitbake_python PURPOSE MODULE [ARGUMENT...]: becomes Debian's Python, which has python3-yaml;
# another one on the person's PATH need not.
bitbake_python() {
  PATH=/usr/bin:$PATH run_python "$@"
}
