SUMMARY = "upx of the build machine, which makes executables smaller"
LICENSE = "GPL-2.0-or-later"
LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/GPL-2.0-or-later;md5=fed54355545ffd980b814dab4a3b312c"

PV = "${@host_package_version(d, 'upx-ucl')}"

inherit native
INHIBIT_DEFAULT_DEPS = "1"

do_configure[noexec] = "1"
do_compile[noexec] = "1"
do_install () {
	host_link /usr/bin/upx-ucl ${D}${bindir} upx
}
