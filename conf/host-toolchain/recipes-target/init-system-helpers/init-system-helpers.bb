SUMMARY = "The scripts service and invoke-rc.d, as the build machine has them"
LICENSE = "BSD-3-Clause & GPL-2.0-only"
LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/BSD-3-Clause;md5=550794465ba0ec5312d6919e203a55f9"

PV = "${@host_package_version(d, 'init-system-helpers')}"

inherit allarch
INHIBIT_DEFAULT_DEPS = "1"

do_configure[noexec] = "1"
do_compile[noexec] = "1"
do_install () {
	install -d ${D}${sbindir}
	install -m 0755 /usr/sbin/service /usr/sbin/invoke-rc.d ${D}${sbindir}
}

PACKAGES = "${PN} ${PN}-service ${PN}-invoke-rc.d"
ALLOW_EMPTY:${PN} = "1"
FILES:${PN} = ""
FILES:${PN}-service = "${sbindir}/service"
FILES:${PN}-invoke-rc.d = "${sbindir}/invoke-rc.d"
RRECOMMENDS:${PN} = "${PN}-invoke-rc.d ${PN}-service"
