SUMMARY = "pseudo of the build machine"
DESCRIPTION = "Lets an ordinary user make files that belong to root."
LICENSE = "LGPL-2.1-only"
LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/LGPL-2.1-only;md5=1a6d268fd218675ffea8be556788b780"

PV = "${@host_package_version(d, 'pseudo')}"
PROVIDES += "virtual/fakeroot-native"

# OE-Core's.
FILESEXTRAPATHS:prepend := "${COREBASE}/meta/recipes-devtools/pseudo/files:"
SRC_URI = "file://fallback-passwd file://fallback-group"
S = "${UNPACKDIR}"

inherit native
INHIBIT_DEFAULT_DEPS = "1"

do_configure[noexec] = "1"
do_compile[noexec] = "1"
do_install () {
	host_link /usr/bin/pseudo ${D}${bindir}
	host_link /usr/bin/pseudolog ${D}${bindir}
	# PSEUDO_LIBDIR of bitbake.conf, and where Debian's program looks below its prefix.
	host_link /usr/lib/x86_64-linux-gnu/pseudo/libpseudo.so ${D}${libdir}/pseudo/lib
	host_link /usr/lib/x86_64-linux-gnu/pseudo/libpseudo.so ${D}${libdir}/x86_64-linux-gnu/pseudo

	# Who is who, while the root being made does not say so.
	install -D -m 0644 ${UNPACKDIR}/fallback-passwd ${D}${sysconfdir}/passwd
	install -D -m 0644 ${UNPACKDIR}/fallback-group ${D}${sysconfdir}/group
}
