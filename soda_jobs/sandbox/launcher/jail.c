/* Process 1 of a program's namespaces: it raises the walls, starts one job at a time, and when it ends all end.
 *
 * It never runs code of a program. In a warm interpreter it shares the interpreter's memory, so that the program,
 * its child, is the only copy of that memory that is ever made; hence no malloc and no stdio streams here.
 */
#define _GNU_SOURCE
#include "jail.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/capability.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define MAX_WORDS 256
#define NEVER_FULL 4096 /* bytes that a full disk may still have free */
#define STANDARD_FDS 4  /* input, output, errors, and what tests say */

static unsigned char job[MAX_MESSAGE];

/* -- walls */

static void map_ids(int control) {
    static const char same[] = INNER_ID " " INNER_ID " 1";
    if (put("/proc/self/uid_map", same) < 0)
        fault(control, "id map", "");
    if (put("/proc/self/gid_map", same) == 0)
        return; /* the launcher had to deny setgroups, which holds here too */
    if (put("/proc/self/setgroups", "deny") < 0 || put("/proc/self/gid_map", same) < 0)
        fault(control, "id map", "");
}

/* One tmpfs, so that its limits are for all four folders together. Message: its options; folders shown there. */
static void mount_scratch(int control, struct message *message) {
    static const char *const places[][2] = {{SCRATCH "/box", BOX}, {SCRATCH "/tmp", "/tmp"},
        {SCRATCH "/vartmp", "/var/tmp"}, {SCRATCH "/shm", "/dev/shm"}};
    if (mount("tmpfs", SCRATCH, "tmpfs", MS_NOSUID | MS_NODEV, take_text(message)) < 0)
        fault(control, "mount", "a tmpfs");
    for (int i = 0; i < 4; i++)
        if (mkdir(places[i][0], i ? 01777 : 0755) < 0 ||
            mount(places[i][0], places[i][1], NULL, MS_BIND, NULL) < 0)
            fault(control, "mount", places[i][1]);
    if (umount2(SCRATCH, MNT_DETACH) < 0)
        fault(control, "umount", SCRATCH);
    char source[PATH_MAX], target[PATH_MAX];
    for (uint64_t left = take_number(message); left && !message->is_bad; left--) {
        const char *path = take_text(message);
        snprintf(source, sizeof source, HELD "%s", path);
        snprintf(target, sizeof target, "%s/", path);
        make_folders_to(target);
        if (mount(source, path, NULL, MS_BIND | MS_REC, NULL) < 0)
            fault(control, "mount", path);
    }
}

static void give_up_privileges(int control) {
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct none[2] = {{0}};
    for (unsigned long i = 0; prctl(PR_CAPBSET_DROP, i, 0, 0, 0) == 0; i++)
        ;
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || syscall(SYS_capset, &header, none) < 0)
        fault(control, "capset", "");
    if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0) /* no ptrace, and nothing of ours readable in /proc */
        fault(control, "prctl", "");
}

/* -- files: names and sizes in the message; contents behind them, or in a file of their own */

static void copy_file(struct opening *opening, int file, uint64_t size, const unsigned char **contents) {
    while (size) {
        ssize_t done = opening->content >= 0 ? sendfile(file, opening->content, NULL, size)
                                             : write(file, *contents, size);
        if (done <= 0)
            fault(opening->control, "write", "");
        size -= (uint64_t)done;
        *contents += done;
    }
}

static void write_files(struct opening *opening) {
    struct message names = opening->message, *message = &opening->message;
    uint64_t files = take_number(message);
    for (uint64_t i = 0; i < files && !message->is_bad; i++) {
        take_text(message);
        take_number(message);
    }
    for (uint64_t left = take_number(message); left && !message->is_bad; left--) {
        char path[PATH_MAX];
        snprintf(path, sizeof path, BOX "/%s", take_text(message));
        make_folders_to(path);
        if (symlink(take_text(message), path) < 0)
            fault(opening->control, "link", path);
    }
    const unsigned char *contents = message->at;
    take_number(&names);
    for (uint64_t i = 0; i < files && !message->is_bad; i++) {
        char path[PATH_MAX];
        snprintf(path, sizeof path, BOX "/%s", take_text(&names));
        uint64_t size = take_number(&names);
        make_folders_to(path);
        int file = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
        if (file < 0)
            fault(opening->control, "open", path);
        if (opening->content < 0 && size > (uint64_t)(message->end - contents))
            message->is_bad = true;
        else
            copy_file(opening, file, size, &contents);
        close(file);
    }
}

static void raise_walls(struct opening *opening) {
    int control = opening->control;
    prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    map_ids(control);
    mount_scratch(control, &opening->message);
    if (mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) < 0)
        fault(control, "mount", "/proc");
    if (sethostname("sandbox", 7) < 0)
        fault(control, "sethostname", "");
    if (chdir(BOX) < 0)
        fault(control, "chdir", BOX);
    write_files(opening);
    umask(022);
    if (opening->message.is_bad) {
        errno = EBADMSG;
        fault(control, "open", "");
    }
    give_up_privileges(control);
}

/* -- one job */

struct start {
    int fds[MAX_FDS];
    char *argv[MAX_WORDS + 1], *env[MAX_WORDS + 1];
    struct rlimit limits[RLIM_NLIMITS];
    bool is_limited[RLIM_NLIMITS];
};

static bool take_words(struct message *message, char **words) {
    uint64_t count = take_number(message);
    if (count > MAX_WORDS)
        return false;
    for (uint64_t i = 0; i < count; i++)
        words[i] = (char *)take_text(message);
    words[count] = NULL;
    return true;
}

/* Message: limits (resource, value); argv; environment. */
static bool take_start(struct message *message, struct start *start) {
    memset(start->is_limited, 0, sizeof start->is_limited);
    for (uint64_t left = take_number(message); left && !message->is_bad; left--) {
        uint64_t which = take_number(message), value = take_number(message);
        if (which >= RLIM_NLIMITS)
            return false;
        start->is_limited[which] = true;
        start->limits[which] = (struct rlimit){value, value};
    }
    return take_words(message, start->argv) && take_words(message, start->env) && !message->is_bad;
}

/* In the job's own process: from here on only what the program may have. */
static int become_program(struct start *start) {
    setsid();
    for (int i = 0; i < STANDARD_FDS; i++)
        if (dup2(start->fds[i], i) < 0)
            return -1;
    close_from(STANDARD_FDS);
    for (int i = 0; i < RLIM_NLIMITS; i++)
        if (start->is_limited[i] && set_limit(i, start->limits[i].rlim_max) < 0)
            return -1;
    /* Last, and not in process 1: in gVisor each copy of a filter costs as much as a file's worth of calls. */
    return filter_system_calls();
}

static pid_t start_by_execution(struct start *start, volatile int *error) {
    pid_t pid = vfork();
    if (pid == 0) {
        if (become_program(start) == 0)
            execve(start->argv[0], start->argv, start->env);
        *error = errno;
        _exit(127);
    }
    return pid;
}

/* The interpreter's memory was copied when nothing in it was under way: the program goes on from there. */
static pid_t start_by_copy(struct start *start, jmp_buf *program) {
    pid_t pid = fork();
    if (pid == 0) {
        if (become_program(start) < 0)
            _exit(127);
        prctl(PR_SET_DUMPABLE, 1, 0, 0, 0); /* its own memory, and as after execve */
        longjmp(*program, 1);
    }
    return pid;
}

/* Wait for the job, then end whatever it left behind, in whatever session or parent. Its CPU time in `used`. */
static int wait_for(pid_t wanted, uint64_t *used) {
    int status = 0, found, how = 0;
    struct rusage usage;
    for (;;) {
        pid_t pid = wait4(-1, &found, how, &usage);
        if (pid < 0 && errno == EINTR)
            continue;
        if (pid < 0)
            return status; /* no child: what loses its parent becomes ours, so nothing at all is left */
        if (pid == 0) {
            kill(-1, SIGKILL); /* everything in this process namespace but us */
            how = 0;
            continue;
        }
        *used += microseconds(&usage);
        if (pid == wanted) {
            status = found;
            how = WNOHANG;
        }
    }
}

static bool is_disk_full(void) {
    struct statfs disk;
    if (statfs(BOX, &disk) < 0)
        return false;
    return (uint64_t)disk.f_bavail * (uint64_t)disk.f_bsize <= NEVER_FULL || disk.f_ffree == 0;
}

int live_as_first_process(void *given) {
    struct opening opening = *(struct opening *)given;
    raise_walls(&opening);
    if (dup2(opening.control, CONTROL) < 0) /* frees what the launcher is spoken to by */
        fault(opening.control, "dup2", "");
    close_from(CONTROL + 1);
    for (;;) {
        struct start start;
        int count;
        size_t size = receive(CONTROL, job, start.fds, &count);
        if (size == 0)
            _exit(0);
        struct message message = {job + 1, job + size, false};
        if (count != STANDARD_FDS || job[0] != 'J' || !take_start(&message, &start)) {
            errno = EBADMSG;
            fault(CONTROL, "job", "");
        }
        volatile int error = 0;
        pid_t pid = opening.program ? start_by_copy(&start, opening.program) : start_by_execution(&start, &error);
        errno = error ? error : errno;
        if (pid < 0 || error)
            fault(CONTROL, start.argv[0] ? start.argv[0] : "", "did not start");
        close_from(CONTROL + 1);
        uint64_t used = 0;
        int status = wait_for(pid, &used);
        tell(CONTROL, 'E', (uint64_t[]){(uint64_t)status, status && is_disk_full(), used}, 3);
    }
}
