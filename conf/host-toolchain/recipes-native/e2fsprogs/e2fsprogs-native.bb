SUMMARY = "Programs of the build machine that make ext4 file systems"
LICENSE = "GPL-2.0-only"
LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/GPL-2.0-only;md5=801f80980d171dd6425610833a22dbe6"

PV = "${@host_package_version(d, 'e2fsprogs')}"

inherit native
INHIBIT_DEFAULT_DEPS = "1"

do_configure[noexec] = "1"
do_compile[noexec] = "1"
do_install () {
	for program in mke2fs mkfs.ext2 mkfs.ext3 mkfs.ext4 e2fsck fsck.ext4 tune2fs debugfs resize2fs; do
		host_link /sbin/$program ${D}${base_sbindir}
	done
}
