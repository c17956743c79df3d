SUMMARY = "useradd and its like of the build machine, for the accounts of an image"
LICENSE = "BSD-3-Clause"
LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/BSD-3-Clause;md5=550794465ba0ec5312d6919e203a55f9"

PV = "${@host_package_version(d, 'passwd')}"

SRC_URI = "file://account-program"
S = "${UNPACKDIR}"

inherit native
INHIBIT_DEFAULT_DEPS = "1"

do_configure[noexec] = "1"
do_compile[noexec] = "1"
do_install () {
	install -d ${D}${sbindir}
	for program in useradd usermod userdel groupadd groupmod groupdel groupmems chpasswd; do
		install -m 0755 ${UNPACKDIR}/account-program ${D}${sbindir}/$program
	done
}
