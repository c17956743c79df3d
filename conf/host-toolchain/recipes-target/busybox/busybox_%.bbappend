# BusyBox has password hashing of its own; libxcrypt would be one more thing to fetch and build.
FILESEXTRAPATHS:prepend := "${THISDIR}/${PN}:"
SRC_URI += "file://own-crypt.cfg"
DEPENDS:remove = "virtual/crypt"
