/* Small steps on files, descriptors, limits and mounts. */
#define _GNU_SOURCE
#include "jail.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

int put(const char *path, const char *text) {
    int file = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    if (file < 0)
        return -1;
    ssize_t written = write(file, text, strlen(text));
    close(file);
    return written < 0 ? -1 : 0;
}

/* All folders above the last part of `path`. */
void make_folders_to(char *path) {
    for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = 0;
        mkdir(path, 0755);
        *slash = '/';
    }
}

void close_from(int first) {
    if (syscall(SYS_close_range, first, ~0U, 0) < 0)
        for (int i = first; i < 1024; i++)
            close(i);
}

/* As low as wanted, or lower where it is. */
int set_limit(int which, rlim_t wanted) {
    struct rlimit limit = {wanted, wanted};
    if (setrlimit(which, &limit) == 0)
        return 0;
    if (getrlimit(which, &limit) < 0)
        return -1;
    limit.rlim_cur = limit.rlim_max < wanted ? limit.rlim_max : wanted;
    return setrlimit(which, &limit);
}

int bind_read_only(const char *source, const char *target) {
    if (mount(source, target, NULL, MS_BIND | MS_REC, NULL) < 0)
        return -1;
    struct statvfs found;
    if (statvfs(target, &found) < 0)
        return -1;
    /* Flags that a new user namespace may not take away from a mount. */
    unsigned long kept = 0;
    kept |= found.f_flag & ST_NOSUID ? MS_NOSUID : 0;
    kept |= found.f_flag & ST_NODEV ? MS_NODEV : 0;
    kept |= found.f_flag & ST_NOEXEC ? MS_NOEXEC : 0;
    kept |= found.f_flag & ST_NOATIME ? MS_NOATIME : 0;
    kept |= found.f_flag & ST_NODIRATIME ? MS_NODIRATIME : 0;
    kept |= found.f_flag & ST_RELATIME ? MS_RELATIME : 0;
    return mount("none", target, NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | kept, NULL);
}
