SUMMARY = "apt of the build machine, with a configuration for installing into an image"
LICENSE = "GPL-2.0-or-later"
LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/GPL-2.0-or-later;md5=fed54355545ffd980b814dab4a3b312c"

PV = "${@host_package_version(d, 'apt')}"

DEPENDS = "dpkg-native"
SRC_URI = "file://apt.conf.sample"
S = "${UNPACKDIR}"

inherit native
INHIBIT_DEFAULT_DEPS = "1"

do_configure[noexec] = "1"
do_compile[noexec] = "1"
# apt-ftparchive
do_install[vardeps] += "APT_UTILS_VERSION"
APT_UTILS_VERSION := "${@host_package_version(d, 'apt-utils')}"
do_install () {
	for program in apt-get apt-cache apt-config apt-ftparchive; do
		host_link /usr/bin/$program ${D}${bindir}
	done
	install -d ${D}${sysconfdir}/apt ${D}${localstatedir}/lib/apt/lists/partial ${D}${localstatedir}/cache/apt/archives/partial ${D}${localstatedir}/log/apt
	sed 's#@SYSROOT@#${STAGING_DIR_NATIVE}#' ${UNPACKDIR}/apt.conf.sample > ${D}${sysconfdir}/apt/apt.conf.sample
}
