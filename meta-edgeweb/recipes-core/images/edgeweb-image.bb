SUMMARY = "Small image that boots a device with its web service"
DESCRIPTION = "What a board needs to boot, and edgeweb to look at it over the network."
LICENSE = "MIT"

inherit core-image

IMAGE_INSTALL = "packagegroup-core-boot packagegroup-edgeweb ${CORE_IMAGE_EXTRA_INSTALL}"
IMAGE_LINGUAS = ""
