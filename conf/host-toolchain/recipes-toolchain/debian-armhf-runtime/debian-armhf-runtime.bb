SUMMARY = "C library, compiler libraries and kernel headers of Debian's armhf cross toolchain"
DESCRIPTION = "What Debian's cross compiler links against, as it is installed on the build machine: \
no other C library would fit it."
HOMEPAGE = "https://www.gnu.org/software/libc/"
SECTION = "libs"
LICENSE = "LGPL-2.1-or-later & GPL-3.0-with-GCC-exception & GPL-2.0-with-Linux-syscall-note"
LICENSE:${PN} = "LGPL-2.1-or-later"
LICENSE:libgcc = "GPL-3.0-with-GCC-exception"
LICENSE:libstdc++ = "GPL-3.0-with-GCC-exception"
LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/LGPL-2.1-or-later;md5=2a4f4fd2128ea2f65047ee63fbca9f68"

PV = "${@host_package_version(d, 'libc6-armhf-cross')}"
# The compiler's version stands for it in the signatures of all that it compiles.
DEBIAN_PACKAGES = "gcc-12-arm-linux-gnueabihf g++-12-arm-linux-gnueabihf libc6-armhf-cross libc6-dev-armhf-cross \
                   libgcc-s1-armhf-cross libstdc++6-armhf-cross linux-libc-dev-armhf-cross"
DEBIAN_VERSIONS := "${@' '.join('%s=%s' % (p, host_package_full_version(d, p)) for p in d.getVar('DEBIAN_PACKAGES').split())}"

CVE_PRODUCT = "glibc"

INHIBIT_DEFAULT_DEPS = "1"
PROVIDES += "virtual/libc virtual/libiconv virtual/libintl virtual/compilerlibs \
             glibc libgcc gcc-runtime linux-libc-headers"

COMPATIBLE_HOST = "arm.*-linux-gnueabi"
# Debian's code is for ARMv7 with hardware floating point.
COMPATIBLE_MACHINE = "(armv7a|armv7ve)"

ROOT_OF_TOOLCHAIN = "/usr/arm-linux-gnueabihf"

do_configure[noexec] = "1"
do_compile[noexec] = "1"

do_install[vardeps] += "DEBIAN_VERSIONS"
do_install () {
	install -d ${D}${base_libdir} ${D}${libdir}
	cp -R --no-dereference --preserve=mode,links ${ROOT_OF_TOOLCHAIN}/include ${D}${prefix}/

	# NAME.so.VERSION is for the device, all else for compiling.
	for file in ${ROOT_OF_TOOLCHAIN}/lib/*; do
		case ${file##*/} in
		libasan.*|libubsan.*|libgomp.*|libmemusage.so|libpcprofile.so|libc_malloc_debug.*) ;;
		lib*.so.*|ld-linux-*.so.*)
			cp --no-dereference --preserve=mode,links $file ${D}${base_libdir}/ ;;
		lib*.so)
			if [ -L $file ]; then
				ln -s ${@oe.path.relative(d.getVar('libdir'), d.getVar('base_libdir'))}/$(readlink $file) ${D}${libdir}/${file##*/}
			else
				# A linker script; the linker puts the sysroot before absolute paths.
				sed -e 's#${ROOT_OF_TOOLCHAIN}/lib/\([^ ]*\.so\.[0-9]*\)#${base_libdir}/\1#g' \
				    -e 's#${ROOT_OF_TOOLCHAIN}/lib/#${libdir}/#g' $file > ${D}${libdir}/${file##*/}
			fi ;;
		*.a|*.o)
			cp --preserve=mode $file ${D}${libdir}/ ;;
		esac
	done
}

PACKAGES =+ "libgcc libstdc++ libatomic"
FILES:libgcc = "${base_libdir}/libgcc_s.so.*"
FILES:libstdc++ = "${base_libdir}/libstdc++.so.*"
FILES:libatomic = "${base_libdir}/libatomic.so.*"
FILES:${PN} = "${base_libdir}/*.so.*"
FILES:${PN}-dev = "${includedir} ${libdir}/*.so ${libdir}/*.o ${libdir}/*_nonshared.a"

# The names that other recipes ask for.
RPROVIDES:${PN} = "glibc virtual-libc"
RPROVIDES:${PN}-dev = "glibc-dev libc6-dev libc-dev virtual-libc-dev libgcc-dev libstdc++-dev libatomic-dev linux-libc-headers-dev"
RPROVIDES:${PN}-staticdev = "glibc-staticdev libc-staticdev"
RDEPENDS:${PN}-dev = "${PN}"
DEBIANNAME:${PN} = "libc6"
DEBIANNAME:libgcc = "libgcc-s1"

# Compiled and stripped by Debian, with Debian's flags and paths: these checks are for what a recipe compiles.
INHIBIT_PACKAGE_DEBUG_SPLIT = "1"
INHIBIT_PACKAGE_STRIP = "1"
INHIBIT_SYSROOT_STRIP = "1"
INSANE_SKIP:${PN} = "already-stripped ldflags 32bit-time"
INSANE_SKIP:libgcc = "already-stripped ldflags 32bit-time"
INSANE_SKIP:libstdc++ = "already-stripped ldflags 32bit-time"
INSANE_SKIP:libatomic = "already-stripped ldflags 32bit-time"
