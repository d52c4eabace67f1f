/* The read-only root that all programs of one launcher share: toolchain, devices, a few settings, and the places
 * where each program's own scratch folder and /proc go. Made once, in a mount namespace that programs get copies of.
 */
#define _GNU_SOURCE
#include "jail.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define STAGING "/sys" /* covered by the new root until it becomes the root; a jail needs nothing of it */

static const char *const SYSTEM[] = {"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32",
    "/etc/alternatives", "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d"};
static const char *const DEVICES[] = {"null", "zero", "full", "random", "urandom"};
static const char *const LINKS[][2] = {{"fd", "/proc/self/fd"}, {"stdin", "/proc/self/fd/0"},
    {"stdout", "/proc/self/fd/1"}, {"stderr", "/proc/self/fd/2"}};
static const char *const OVER[] = {"/tmp", "/var/tmp", "/dev/shm", BOX};
#define EACH(item, list) for (unsigned item = 0; item < sizeof list / sizeof *list; item++)

static void folder(int control, const char *path) {
    char target[PATH_MAX];
    snprintf(target, sizeof target, "%s%s/", STAGING, path);
    make_folders_to(target);
    if (access(target, F_OK) < 0)
        fault(control, "mkdir", target);
}

/* Is it below a folder that each program gets anew? */
static bool is_covered(const char *path) {
    EACH(i, OVER)
        if (strncmp(path, OVER[i], strlen(OVER[i])) == 0 && path[strlen(OVER[i])] == '/')
            return true;
    return false;
}

static void show(int control, const char *source) {
    char target[PATH_MAX], aim[PATH_MAX];
    struct stat found, taken;
    snprintf(target, sizeof target, "%s%s%s", STAGING, is_covered(source) ? HELD : "", source);
    if (lstat(source, &found) < 0 || lstat(target, &taken) == 0)
        return;
    make_folders_to(target);
    if (S_ISLNK(found.st_mode)) {
        ssize_t length = readlink(source, aim, sizeof aim - 1);
        aim[length < 0 ? 0 : length] = 0;
        if (length < 0 || symlink(aim, target) < 0)
            fault(control, "link", source);
        return;
    }
    if (S_ISDIR(found.st_mode))
        mkdir(target, 0755);
    else
        put(target, "");
    if (bind_read_only(source, target) < 0)
        fault(control, "mount", source);
}

static void show_devices(int control) {
    char source[PATH_MAX], target[PATH_MAX];
    EACH(i, DEVICES) {
        snprintf(source, sizeof source, "/dev/%s", DEVICES[i]);
        snprintf(target, sizeof target, STAGING "/dev/%s", DEVICES[i]);
        put(target, "");
        if (mount(source, target, NULL, MS_BIND, NULL) < 0)
            fault(control, "mount", source);
    }
    EACH(i, LINKS) {
        snprintf(target, sizeof target, STAGING "/dev/%s", LINKS[i][0]);
        if (symlink(LINKS[i][1], target) < 0)
            fault(control, "link", target);
    }
}

static void show_java_settings(int control) {
    glob_t found;
    if (glob("/etc/java-*", 0, NULL, &found) != 0)
        return;
    for (size_t i = 0; i < found.gl_pathc; i++)
        show(control, found.gl_pathv[i]);
    globfree(&found);
}

/* Files of a box that a warm interpreter wants to see when it starts; each program's own cover them. */
static void fill_box(int control, struct message *message) {
    char target[PATH_MAX];
    for (uint64_t left = take_number(message); left && !message->is_bad; left--) {
        snprintf(target, sizeof target, "%s" BOX "/%s", STAGING, take_text(message));
        make_folders_to(target);
        if (put(target, take_text(message)) < 0)
            fault(control, "write", target);
    }
    for (uint64_t left = take_number(message); left && !message->is_bad; left--) {
        snprintf(target, sizeof target, "%s" BOX "/%s", STAGING, take_text(message));
        make_folders_to(target);
        if (symlink(take_text(message), target) < 0)
            fault(control, "link", target);
    }
}

static void become_root(int control) {
    if (mount("none", STAGING, NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV, NULL) < 0)
        fault(control, "mount", "the root read-only");
    if (chdir(STAGING) < 0 || syscall(SYS_pivot_root, ".", ".") < 0)
        fault(control, "pivot_root", "");
    if (umount2(".", MNT_DETACH) < 0)
        fault(control, "umount", "the old root");
    if (chdir(BOX) < 0)
        fault(control, "chdir", BOX);
}

/* Message: paths shown beside the system; files (name, text) and links (name, aim) of the box. */
void build_root(int control, struct message *message) {
    umask(022);
    if (mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
        fault(control, "mount", "/");
    if (mount("tmpfs", STAGING, "tmpfs", MS_NOSUID | MS_NODEV, "size=4m,nr_inodes=2048,mode=755") < 0)
        fault(control, "mount", "a tmpfs");
    folder(control, HELD);
    EACH(i, SYSTEM)
        show(control, SYSTEM[i]);
    show_java_settings(control);
    EACH(i, OVER)
        folder(control, OVER[i]);
    folder(control, SCRATCH);
    folder(control, "/proc");
    folder(control, "/etc");
    for (uint64_t left = take_number(message); left && !message->is_bad; left--)
        show(control, take_text(message));
    show_devices(control);
    put(STAGING "/etc/passwd", "program:x:" INNER_ID ":" INNER_ID "::" BOX ":/bin/sh\n");
    /* A new /proc may only be mounted where an old one is in sight; each program's own covers it. */
    if (mount("/proc", STAGING "/proc", NULL, MS_BIND | MS_REC, NULL) < 0)
        fault(control, "mount", "/proc");
    fill_box(control, message);
    if (message->is_bad) {
        errno = EBADMSG;
        fault(control, "start", "");
    }
    become_root(control);
}
