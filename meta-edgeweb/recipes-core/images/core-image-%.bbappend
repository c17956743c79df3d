# Nothing at all, unless the distribution asks for it: images of others keep their signatures.
# nooelint: oelint.spaces.lineend
require ${@bb.utils.contains('DISTRO_FEATURES', 'edgeweb', 'core-image-edgeweb.inc', '', d)}
