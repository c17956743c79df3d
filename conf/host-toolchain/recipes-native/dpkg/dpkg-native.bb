SUMMARY = "dpkg of the build machine, made to work on a root that is not its own"
LICENSE = "GPL-2.0-or-later"
LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/GPL-2.0-or-later;md5=fed54355545ffd980b814dab4a3b312c"

PV = "${@host_package_version(d, 'dpkg')}"

SRC_URI = "file://dpkg"
S = "${UNPACKDIR}"

inherit native
INHIBIT_DEFAULT_DEPS = "1"

do_configure[noexec] = "1"
do_compile[noexec] = "1"
do_install () {
	install -d ${D}${bindir}
	install -m 0755 ${UNPACKDIR}/dpkg ${D}${bindir}/dpkg
	for program in dpkg-deb dpkg-query dpkg-split; do
		host_link /usr/bin/$program ${D}${bindir}
	done
}
