/* SPDX-License-Identifier: MIT
 * Stands in for the service in test_init.py: it does what the init script relies on, and misbehaves
 * when a file of that name is in /behave: bad-config, dies, slow (no health), mute (health that hangs),
 * deaf (no SIGTERM), pipeless (a logpipe that hangs; else it says that it was there, and becomes the command).
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int behaves(const char *how)
{
    char path[64];
    snprintf(path, sizeof path, "/behave/%s", how);
    return access(path, F_OK) == 0;
}

static void note(const char *name, const char *text)
{
    char path[64];
    snprintf(path, sizeof path, "/run/edgeweb/%s", name);
    int file = open(path, O_CREAT | O_WRONLY | O_TRUNC, 0644);
    if (file < 0 || write(file, text, strlen(text)) < 0)
        _exit(1);
    close(file);
}

static void on_term(int signal)
{
    (void)signal;
    if (behaves("deaf"))
        return;
    unlink("/run/edgeweb/healthy");
    _exit(0);
}

static void on_hup(int signal)
{
    (void)signal;
    note("reloaded", "");
}

int main(int argc, char **argv)
{
    const char *command = argc > 1 ? argv[1] : "";
    char who[32];

    if (strcmp(command, "health") == 0) {
        while (behaves("mute"))
            pause();
        return access("/run/edgeweb/healthy", F_OK) == 0 ? 0 : 1;
    }
    if (strcmp(command, "check-config") == 0) {
        if (!behaves("bad-config"))
            return 0;
        fprintf(stderr, "/etc/edgeweb/edgeweb.toml: http.port: not a number\n");
        return 2;
    }
    if (strcmp(command, "logpipe") == 0 && argc > 5 && strcmp(argv[4], "--") == 0) {
        note("tag", argv[3]);
        while (behaves("pipeless"))
            pause();
        execv(argv[5], argv + 5);
        return 127;
    }
    if (strcmp(command, "serve") != 0)
        return 2;
    if (behaves("dies"))
        return 1;
    signal(SIGTERM, on_term);
    signal(SIGHUP, on_hup);
    snprintf(who, sizeof who, "%d:%d", (int)getuid(), (int)getgid());
    note("who", who);
    printf("who may see this?\n");
    fflush(stdout);
    if (!behaves("slow"))
        note("healthy", "");
    for (;;)
        pause();
}
