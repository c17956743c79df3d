SUMMARY = "Configuration of edgeweb"
DESCRIPTION = "A recipe of its own, so that a maker's edgeweb.toml does not rebuild the service: \
put yours into an append's files/, or files of your own into SRC_URI. Certificates, keys and users of yours \
(EDGEWEB_CONF_TLS, EDGEWEB_CONF_USERS) are installed so that the service can read them, and nobody else."
HOMEPAGE = "https://github.com/edgeweb/edgeweb"
SECTION = "net"
LICENSE = "MIT"
# nooelint: oelint.var.licenseremotefile
LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/MIT;md5=0835ade698e0bcf8506ecda2f7b4f302"

SRC_URI = "file://edgeweb.toml"
S = "${UNPACKDIR}"

inherit allarch useradd

# What a maker leaves standing by mistake, as a regular expression for a value.
EDGEWEB_CONF_PLACEHOLDERS ?= "change[-_ ]?me|placeholder|to ?do|fix ?me|x{3,}|your[-_ ].*|.*\bexample\.(com|net|org)\b.*|<.*>|@\w+@"

# Files of SRC_URI for /etc/edgeweb/tls: client-ca.crt, client-ca.crl, or server.crt with server.key. A key in an image
# is known to everybody who has the image: only for images that are made for one device each.
EDGEWEB_CONF_TLS ?= ""
# A file of SRC_URI for /etc/edgeweb/users.toml: the first users, with hashes of their passwords.
EDGEWEB_CONF_USERS ?= ""

# The service's, as edgeweb-service.bbclass makes it: who comes first makes it, the other finds it.
USERADD_PACKAGES = "${PN}"
USERADD_PARAM:${PN} = "\
    --system --user-group --no-create-home --home-dir ${localstatedir}/lib/edgeweb --shell /bin/false edgeweb \
"

do_configure[noexec] = "1"
do_compile[noexec] = "1"

do_install() {
    install -D -m 0644 ${UNPACKDIR}/edgeweb.toml ${D}${sysconfdir}/edgeweb/edgeweb.toml
    # Root's to write, the service's to read.
    install -d -m 0750 -g edgeweb ${D}${sysconfdir}/edgeweb/tls
    for file in ${EDGEWEB_CONF_TLS}; do
        install -m 0640 -g edgeweb ${UNPACKDIR}/$file ${D}${sysconfdir}/edgeweb/tls/
    done
    if [ -n "${EDGEWEB_CONF_USERS}" ]; then
        install -m 0640 -g edgeweb ${UNPACKDIR}/${EDGEWEB_CONF_USERS} ${D}${sysconfdir}/edgeweb/users.toml
    fi
}

python edgeweb_conf_placeholders () {
    import re
    path = d.expand("${D}${sysconfdir}/edgeweb/edgeweb.toml")
    for key, number, value in edgeweb_layer.conf.values(path):
        if re.fullmatch(d.getVar("EDGEWEB_CONF_PLACEHOLDERS"), value, re.IGNORECASE):
            bb.warn("edgeweb.toml, line %d: %s = \"%s\" is a placeholder; put the real value into the file of your "
                    "append, or take the line out" % (number, key, value))
}
do_install[postfuncs] += "edgeweb_conf_placeholders"

CONFFILES:${PN} = "${sysconfdir}/edgeweb/edgeweb.toml"
