SUMMARY = "The device's web service and its configuration"
DESCRIPTION = "What edgeweb in DISTRO_FEATURES puts into the core-image recipes."

inherit packagegroup

RDEPENDS:${PN} = "edgeweb edgeweb-conf"
