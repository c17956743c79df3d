# SPDX-License-Identifier: MIT
#
# Everything that a network service needs on a device besides its program: a hardened systemd unit, an
# init script for SysV (start, stop, restart, reload, status, monitor), something that restarts it when
# it does not answer, a user of its own, /run and /var/lib directories.
#
#   inherit edgeweb-service
#   EDGEWEB_SERVICE_COMMAND = "${sbindir}/tankd --foreground"
#
# The program stays in the foreground, and does not change its user itself.

# The service's name: of the unit, the init script, the user, the directories under /run and /var/lib.
EDGEWEB_SERVICE_NAME ?= "${BPN}"
EDGEWEB_SERVICE_DESCRIPTION ?= "${SUMMARY}"
# The program with its arguments.
EDGEWEB_SERVICE_COMMAND ?= ""
# Says by its exit status whether the configuration is right: a wrong one is never started or reloaded.
EDGEWEB_SERVICE_CHECK ?= ""
# Says by its exit status whether the service is well. Empty: it is, when it runs.
EDGEWEB_SERVICE_HEALTH ?= ""
# The signal that makes it read its configuration again (HUP). Empty: it has to be restarted.
EDGEWEB_SERVICE_RELOAD ?= ""
# "1": what it writes to its output goes into the log, by way of edgeweb: lines that begin with [ERR], <3> and
# their like as errors, the rest of standard error as warnings (see `edgeweb logpipe --help`).
EDGEWEB_SERVICE_LOGPIPE ?= "0"
# "1": what it writes to its standard output is shown on the device's console, too, as for a code that only who
# stands before the device may know. Not together with EDGEWEB_SERVICE_LOGPIPE.
EDGEWEB_SERVICE_STDOUT_CONSOLE ?= "0"
EDGEWEB_SERVICE_USER ?= "${EDGEWEB_SERVICE_NAME}"
# notify for a program that tells systemd when it is ready (sd_notify), else exec.
EDGEWEB_SERVICE_TYPE ?= "exec"
# Seconds (s) within which a program of type notify says that it is alive, or is restarted.
EDGEWEB_SERVICE_WATCHDOG ?= ""
# Exit status after which systemd does not start it again.
EDGEWEB_SERVICE_FATAL_STATUS ?= ""
# What the unit grants, such as CAP_NET_BIND_SERVICE for a port below 1024. An init script cannot: the service then has
# none, and such a port wants net.ipv4.ip_unprivileged_port_start in /etc/sysctl.d (README.md says how).
EDGEWEB_SERVICE_CAPABILITIES ?= ""
# What kinds of sockets the unit lets it open.
EDGEWEB_SERVICE_ADDRESS_FAMILIES ?= "AF_INET AF_INET6 AF_UNIX"
# s until its health answers; s from SIGTERM to SIGKILL.
EDGEWEB_SERVICE_START_TIMEOUT ?= "10"
EDGEWEB_SERVICE_STOP_TIMEOUT ?= "15"
# "1": what does not answer is restarted. On SysV cron asks each minute; under systemd the watchdog does,
# or for a program without one, and with a health command, a timer.
EDGEWEB_SERVICE_MONITOR ?= "1"
# The package with a cron that reads /etc/cron.d.
EDGEWEB_SERVICE_CRON ?= "cronie"

inherit systemd update-rc.d useradd

# As an append would: after the recipe's own, so that a maker's template of that name is taken instead.
# nooelint: oelint.vars.fileextrapaths,oelint.vars.outofcontext
FILESEXTRAPATHS:append := ":${EDGEWEB_LAYERDIR}/files/edgeweb-service"
SRC_URI:append = " \
    file://monitor.cron.in \
    file://monitor.timer.in \
    file://monitor.unit.in \
    file://service.init.in \
    file://service.tmpfiles.in \
    file://service.unit.in \
    file://service.volatiles.in \
"

EDGEWEB_SERVICE_SYSTEMD = "${@bb.utils.contains('DISTRO_FEATURES', 'systemd', '1', '', d)}"
EDGEWEB_SERVICE_SYSVINIT = "${@bb.utils.contains('DISTRO_FEATURES', 'sysvinit', '1', '', d)}"
# Which units the package holds; the timer only where nothing better watches the service.
EDGEWEB_SERVICE_TIMER = "${@'${EDGEWEB_SERVICE_NAME}-monitor.timer' if '${EDGEWEB_SERVICE_MONITOR}' == '1' \
    and '${EDGEWEB_SERVICE_HEALTH}' and not '${EDGEWEB_SERVICE_WATCHDOG}' else ''}"

SYSTEMD_SERVICE:${PN} = "${EDGEWEB_SERVICE_NAME}.service ${EDGEWEB_SERVICE_TIMER}"
# After the network and syslog, and gone before they are.
INITSCRIPT_NAME = "${EDGEWEB_SERVICE_NAME}"
INITSCRIPT_PARAMS ?= "defaults 90 10"

USERADD_PACKAGES = "${PN}"
USERADD_PARAM:${PN} = "\
    --system --user-group --no-create-home --home-dir ${localstatedir}/lib/${EDGEWEB_SERVICE_NAME} \
    --shell /bin/false ${EDGEWEB_SERVICE_USER} \
"

# systemd.bbclass takes the init script away where the distribution has systemd, even when it has SysV, too.
RMINITDIR:class-target = "${@bb.utils.contains('DISTRO_FEATURES', 'systemd sysvinit', '', \
    bb.utils.contains('DISTRO_FEATURES', 'systemd', 'rm_sysvinit_initddir', 'rm_systemd_unitdir', d), d)}"

def edgeweb_service_settings(d):
    return {key: (d.getVar("EDGEWEB_SERVICE_" + key) or "").strip() for key in edgeweb_layer.service.SETTINGS}

# What is wrong is said while parsing, before anything is built.
# nooelint: oelint.task.noanonpython
python () {
    for reason in edgeweb_layer.service.wrong(edgeweb_service_settings(d)):
        raise bb.parse.SkipRecipe(reason)
    systemd, sysvinit = d.getVar("EDGEWEB_SERVICE_SYSTEMD"), d.getVar("EDGEWEB_SERVICE_SYSVINIT")
    if not systemd and not sysvinit:
        raise bb.parse.SkipRecipe("DISTRO_FEATURES has neither systemd nor sysvinit, so nothing would start %s; "
                                  "set INIT_MANAGER, or add sysvinit" % d.getVar("EDGEWEB_SERVICE_NAME"))
    if systemd and sysvinit:
        d.delVar("INHIBIT_UPDATERCD_BBCLASS")
    if d.getVar("EDGEWEB_SERVICE_LOGPIPE") == "1":
        d.appendVar("RDEPENDS:" + d.getVar("PN"), " edgeweb")
    if sysvinit and d.getVar("EDGEWEB_SERVICE_MONITOR") == "1":
        d.appendVar("RRECOMMENDS:" + d.getVar("PN"), " " + d.getVar("EDGEWEB_SERVICE_CRON"))
}

python edgeweb_service_install () {
    settings = edgeweb_service_settings(d)
    directories = {key: d.getVar(key.lower()) for key in ("BINDIR", "SYSCONFDIR", "LOCALSTATEDIR")}
    values = dict(settings, **directories)
    root, name, monitored = d.getVar("D"), settings["NAME"], d.getVar("EDGEWEB_SERVICE_MONITOR") == "1"

    def put(template, path, mode=0o644):
        with open(os.path.join(d.getVar("UNPACKDIR"), template)) as file:
            text = edgeweb_layer.service.render(file.read(), values)
        path = root + d.expand(path)
        bb.utils.mkdirhier(os.path.dirname(path))
        with open(path, "w") as file:
            file.write(text)
        os.chmod(path, mode)

    if d.getVar("EDGEWEB_SERVICE_SYSTEMD"):
        put("service.unit.in", "${systemd_system_unitdir}/%s.service" % name)
        put("service.tmpfiles.in", "${nonarch_libdir}/tmpfiles.d/%s.conf" % name)
        if d.getVar("EDGEWEB_SERVICE_TIMER"):
            put("monitor.unit.in", "${systemd_system_unitdir}/%s-monitor.service" % name)
            put("monitor.timer.in", "${systemd_system_unitdir}/%s-monitor.timer" % name)
    if d.getVar("EDGEWEB_SERVICE_SYSVINIT"):
        put("service.init.in", "${INIT_D_DIR}/%s" % name, 0o755)
        put("service.volatiles.in", "${sysconfdir}/default/volatiles/50_%s" % name)
        if monitored:
            put("monitor.cron.in", "${sysconfdir}/cron.d/%s-monitor" % name)
}
# Their names are put together above, where BitBake does not see them.
edgeweb_service_install[vardeps] += "${@' '.join('EDGEWEB_SERVICE_' + key for key in edgeweb_layer.service.SETTINGS)}"
do_install[postfuncs] += "edgeweb_service_install edgeweb_service_state_directory"

# In the image: a read-only root needs the place to mount on.
edgeweb_service_state_directory () {
    install -d -m 0700 -o ${EDGEWEB_SERVICE_USER} -g ${EDGEWEB_SERVICE_USER} \
        ${D}${localstatedir}/lib/${EDGEWEB_SERVICE_NAME}
}

FILES:${PN} += "\
    ${nonarch_libdir}/tmpfiles.d/${EDGEWEB_SERVICE_NAME}.conf \
    ${systemd_system_unitdir}/${EDGEWEB_SERVICE_NAME}-monitor.service \
"
