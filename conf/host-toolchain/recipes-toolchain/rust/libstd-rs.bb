SUMMARY = "Rust's standard library for ARM, of the version of the build machine's rustc"
DESCRIPTION = "As OE-Core's recipe of this name, but compiled from the source that Debian ships \
with its compiler: each version of rustc takes only the standard library of its own."
HOMEPAGE = "https://www.rust-lang.org"
SECTION = "devel"
LICENSE = "(MIT | Apache-2.0) & Unicode-3.0"
LIC_FILES_CHKSUM = "file://../../COPYRIGHT;md5=11a3899825f4376896e438c8c753f8dc"

PV = "${@host_package_version(d, 'rust-web-src')}"

RUSTSRC = "/usr/src/rustc-${PV}"
# The crate of this name stands for the whole library.
S = "${RUSTSRC}/library/sysroot"

RUSTLIB_DEP = ""
inherit cargo

CVE_PRODUCT = "rust"

# Both with and without link time optimisation can be done from this.
RUSTFLAGS += "-Cembed-bitcode=yes"
RUSTFLAGS += "-Zforce-unstable-if-unmarked"
RUSTFLAGS += "-L ${STAGING_LIBDIR} -C link-arg=-Wl,-soname,libstd.so"
# The source is not in WORKDIR.
RUSTFLAGS += "--remap-path-prefix=${RUSTSRC}=${TARGET_DBGSRC_DIR}"

CARGO_FEATURES ?= "panic-unwind backtrace"
CARGO_BUILD_FLAGS += "--features '${CARGO_FEATURES}'"
# Debian leaves out what only the library's own tests need.
CARGO_BUILD_FLAGS += "-Zavoid-dev-deps"
CARGO_VENDORING_DIRECTORY = "${RUSTSRC}/library/vendor"

# Read where it lies.
do_unpack[noexec] = "1"
do_patch[noexec] = "1"

do_compile:prepend () {
	# The standard library is written with unstable features.
	export RUSTC_BOOTSTRAP="1"
}

do_install () {
	install -d ${D}${rustlibdir}
	# Left by incremental builds only.
	rm -f ${B}/target/${RUST_TARGET_SYS}/${BUILD_DIR}/deps/*.d
	cp ${B}/target/${RUST_TARGET_SYS}/${BUILD_DIR}/deps/* ${D}${rustlibdir}
}
