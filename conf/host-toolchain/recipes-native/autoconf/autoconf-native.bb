SUMMARY = "autoreconf of the build machine, with the option that OE-Core adds to its own"
LICENSE = "GPL-3.0-or-later"
LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/GPL-3.0-or-later;md5=1c76c4cc354acaac30ed4d5eefea7245"

PV = "${@host_package_version(d, 'autoconf')}"

SRC_URI = "file://autoreconf"
S = "${UNPACKDIR}"

inherit native
INHIBIT_DEFAULT_DEPS = "1"

do_configure[noexec] = "1"
do_compile[noexec] = "1"
do_install () {
	install -d ${D}${bindir}
	install -m 0755 ${UNPACKDIR}/autoreconf ${D}${bindir}/autoreconf
}
