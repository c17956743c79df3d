# BusyBox has flock, too; util-linux and what it needs would have to be built.
RDEPENDS:${PN}:remove = "util-linux-flock"
