SUMMARY = "cargo of the build machine"
LICENSE = "MIT"
LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/MIT;md5=0835ade698e0bcf8506ecda2f7b4f302"

PV = "${@host_package_version(d, 'cargo-web')}"

inherit native
INHIBIT_DEFAULT_DEPS = "1"

do_configure[noexec] = "1"
do_compile[noexec] = "1"
do_install () {
	# By full path: a rustup of the person's own may come first in their PATH.
	host_link /usr/bin/cargo ${D}${bindir}
}
