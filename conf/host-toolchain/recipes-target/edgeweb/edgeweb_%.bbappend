# After an edit, seconds instead of minutes: what cargo has compiled is kept, and the binary is
# linked without optimising across crates.
export CARGO_PROFILE_RELEASE_LTO = "off"
export CARGO_PROFILE_RELEASE_CODEGEN_UNITS = "16"

# do_configure removes ${B}/target, and with it a link to this. Gone after -c clean, like all of WORKDIR.
CARGO_KEPT_TARGET = "${WORKDIR}/cargo-target"

python keep_cargo_target () {
    import glob
    import os

    kept = d.getVar('CARGO_KEPT_TARGET')
    # cargo looks at flags, crates and the version of rustc, but not at what is in the sysroot or
    # behind a wrapper. When one of these changes, or the list of crates, it begins with nothing.
    key = sorted('%s %s' % (task.pn, task.unihash) for task in d.getVar('BB_TASKDEPDATA', False).values()
                 if task.taskname == 'do_populate_sysroot')
    for path in sorted(glob.glob(d.getVar('WRAPPER_DIR') + '/*')) + [d.getVar('CARGO_LOCK_PATH')]:
        with open(path) as file:
            key.append(file.read())
    key = '\n'.join(key)
    record = os.path.join(kept, 'made-for')
    if not os.path.exists(record) or open(record).read() != key:
        bb.utils.remove(kept, recurse=True)
        bb.utils.mkdirhier(kept)
        with open(record, 'w') as file:
            file.write(key)

    # do_install takes every program that lies here, those of an earlier Cargo.toml, too.
    built = os.path.join(kept, d.getVar('CARGO_TARGET_SUBDIR'))
    for program in glob.glob(built + '/*') + glob.glob(built + '/examples/*'):
        if os.path.isfile(program):
            os.unlink(program)

    # cargo takes a file for changed when it is newer than the last build. An older file
    # that was put back is changed as well, so all of this crate counts as new.
    for directory, _, files in os.walk(d.getVar('S')):
        for name in [directory] + [os.path.join(directory, file) for file in files]:
            os.utime(name)

    bb.utils.remove(d.expand('${B}/target'), recurse=True)
    os.symlink(kept, d.expand('${B}/target'))
}
keep_cargo_target[vardepsexclude] += "BB_TASKDEPDATA"
do_configure[postfuncs] += "keep_cargo_target"

# What python3-native would bring is the machine's own.
do_update_crates:prepend() {
	nativepython3() { python3 "$@"; }
}
