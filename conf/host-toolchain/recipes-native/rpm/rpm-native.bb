SUMMARY = "rpmdeps of the build machine, which finds what packaged files provide and need"
LICENSE = "GPL-2.0-or-later"
LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/GPL-2.0-or-later;md5=fed54355545ffd980b814dab4a3b312c"

PV = "${@host_package_version(d, 'rpm')}"

inherit native
INHIBIT_DEFAULT_DEPS = "1"

do_configure[noexec] = "1"
do_compile[noexec] = "1"
do_install () {
	host_link /usr/lib/rpm/rpmdeps ${D}${libdir}/rpm
}
