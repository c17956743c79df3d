SUMMARY = "Stands for shadow on the device"
DESCRIPTION = "Accounts are made while the image is; on the device BusyBox has adduser and passwd."
LICENSE = "MIT"
LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/MIT;md5=0835ade698e0bcf8506ecda2f7b4f302"

PV = "1.0"

inherit allarch
INHIBIT_DEFAULT_DEPS = "1"
ALLOW_EMPTY:${PN} = "1"
