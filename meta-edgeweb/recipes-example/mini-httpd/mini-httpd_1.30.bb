SUMMARY = "Web server of 1999, as an example for edgeweb-service.bbclass"
DESCRIPTION = "A daemon that knows nothing of systemd, of health checks or of this layer gets a hardened \
unit, an init script and a monitor from a handful of variables. It is in no image unless you ask for it."
HOMEPAGE = "https://www.acme.com/software/mini_httpd/"
SECTION = "net"
LICENSE = "BSD-2-Clause"
LIC_FILES_CHKSUM = "file://mini_httpd.c;beginline=1;endline=26;md5=ff05f86674b4a63b2b661168fcca70eb"

SRC_URI = "\
    https://www.acme.com/software/mini_httpd/mini_httpd-${PV}.tar.gz \
    file://0001-Accept-no-password.patch \
"
SRC_URI[sha256sum] = "9c4481802af8dde2e164062185c279e9274525c3af93d014fdc0b80cf30bca6e"
S = "${UNPACKDIR}/mini_httpd-${PV}"

inherit edgeweb-service

EXCLUDE_FROM_WORLD = "1"

EDGEWEB_SERVICE_COMMAND = "${sbindir}/mini_httpd -D -p 8081 -d ${datadir}/mini-httpd"
# A page is there. BusyBox's wget will do.
EDGEWEB_SERVICE_HEALTH = "${bindir}/wget -q -O /dev/null http://127.0.0.1:8081/"
# It writes to standard error what it cannot do.
EDGEWEB_SERVICE_LOGPIPE = "1"

# setgroups and initgroups, which are an error now when they are not declared.
CFLAGS:append = " -include grp.h"

do_compile() {
    oe_runmake mini_httpd CC="${CC}" CFLAGS="${CFLAGS}" LDFLAGS="${LDFLAGS}" CRYPT_LIB=
}

do_install() {
    install -D -m 0755 mini_httpd ${D}${sbindir}/mini_httpd
    install -D -m 0644 index.html ${D}${datadir}/mini-httpd/index.html
}
