# OpenSSH, and OpenSSL for it, would have to be built.
RRECOMMENDS:${PN}:remove = "openssh-sftp-server"
