SUMMARY = "Configuration of edgeweb"
DESCRIPTION = "A recipe of its own, so that a maker's edgeweb.toml does not rebuild the service: \
put yours into an append's files/, or files of your own into SRC_URI."
HOMEPAGE = "https://github.com/edgeweb/edgeweb"
SECTION = "net"
LICENSE = "MIT"
# nooelint: oelint.var.licenseremotefile
LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/MIT;md5=0835ade698e0bcf8506ecda2f7b4f302"

SRC_URI = "file://edgeweb.toml"
S = "${UNPACKDIR}"

inherit allarch

# What a maker leaves standing by mistake, as a regular expression for a value.
EDGEWEB_CONF_PLACEHOLDERS ?= "change[-_ ]?me|placeholder|to ?do|fix ?me|x{3,}|your[-_ ].*|.*\bexample\.(com|net|org)\b.*|<.*>|@\w+@"

do_configure[noexec] = "1"
do_compile[noexec] = "1"

do_install() {
    install -D -m 0644 ${UNPACKDIR}/edgeweb.toml ${D}${sysconfdir}/edgeweb/edgeweb.toml
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
