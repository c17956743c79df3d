SUMMARY = "Links in /etc/rc?.d of an image"
LICENSE = "MIT"
LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/MIT;md5=0835ade698e0bcf8506ecda2f7b4f302"

PV = "1.0"

SRC_URI = "file://update-rc.d"
S = "${UNPACKDIR}"

inherit native
INHIBIT_DEFAULT_DEPS = "1"

do_configure[noexec] = "1"
do_compile[noexec] = "1"
do_install () {
	install -d ${D}${sbindir}
	install -m 0755 ${UNPACKDIR}/update-rc.d ${D}${sbindir}/update-rc.d
}
