SUMMARY = "merge_config.sh, which merges fragments into a kernel-like configuration"
LICENSE = "MIT"
LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/MIT;md5=0835ade698e0bcf8506ecda2f7b4f302"

PV = "1.0"

SRC_URI = "file://merge_config.sh"
S = "${UNPACKDIR}"

inherit native
INHIBIT_DEFAULT_DEPS = "1"

do_configure[noexec] = "1"
do_compile[noexec] = "1"
do_install () {
	install -d ${D}${bindir}
	install -m 0755 ${UNPACKDIR}/merge_config.sh ${D}${bindir}/merge_config.sh
}
