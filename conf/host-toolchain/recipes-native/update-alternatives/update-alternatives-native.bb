SUMMARY = "update-alternatives of the build machine, working in an image"
LICENSE = "GPL-2.0-or-later"
LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/GPL-2.0-or-later;md5=fed54355545ffd980b814dab4a3b312c"

PV = "${@host_package_version(d, 'dpkg')}"
PROVIDES += "virtual/update-alternatives-native"

SRC_URI = "file://update-alternatives"
S = "${UNPACKDIR}"

inherit native
INHIBIT_DEFAULT_DEPS = "1"

do_configure[noexec] = "1"
do_compile[noexec] = "1"
do_install () {
	install -d ${D}${bindir}
	install -m 0755 ${UNPACKDIR}/update-alternatives ${D}${bindir}/update-alternatives
}
