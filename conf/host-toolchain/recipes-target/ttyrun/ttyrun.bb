SUMMARY = "Starts a program if the specified terminal is there"
DESCRIPTION = "In place of the C program of this name, a small part of a large repository."
LICENSE = "MIT"
LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/MIT;md5=0835ade698e0bcf8506ecda2f7b4f302"

PV = "1.0"

SRC_URI = "file://ttyrun"
S = "${UNPACKDIR}"

inherit allarch
INHIBIT_DEFAULT_DEPS = "1"

do_configure[noexec] = "1"
do_compile[noexec] = "1"
do_install () {
	install -d ${D}${sbindir}
	install -m 0755 ${UNPACKDIR}/ttyrun ${D}${sbindir}
}
