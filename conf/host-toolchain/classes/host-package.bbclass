# Recipes that hand on what a package of the build machine has installed.

# The upstream part of an installed Debian package's version: "2.36" of "2:2.36-9+deb12u4".
# Without the package the recipe is left out, and BitBake's error says what to install.
def host_package_version(d, package):
    import re
    version = host_package_full_version(d, package)
    return re.sub(r'([+~]dfsg|[+]git|-).*', '', version.split(':', 1)[-1])

def host_package_full_version(d, package):
    import glob
    import subprocess
    # The parse cache must not outlive an upgrade of the package.
    for record in glob.glob('/var/lib/dpkg/info/%s.list' % package) + glob.glob('/var/lib/dpkg/info/%s:*.list' % package):
        bb.parse.mark_dependency(d, record)
    # By full path: while a task runs, PATH has only what HOSTTOOLS names.
    query = subprocess.run(['/usr/bin/dpkg-query', '-W', '-f', '${db:Status-Abbrev}${Version}', package],
                           stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    if query.returncode or not query.stdout.startswith('ii'):
        raise bb.parse.SkipRecipe('the Debian package %s is not installed on this machine; install it with apt-get' % package)
    return query.stdout[3:].strip()

# host_link FILE DIRECTORY [NAME]: a program of the build machine, found in a sysroot.
host_link () {
	[ -e "$1" ] || bbfatal "$1 is missing on this machine, although its Debian package is installed; reinstall it"
	install -d "$2"
	ln -s "$1" "$2/${3:-$(basename "$1")}"
}
