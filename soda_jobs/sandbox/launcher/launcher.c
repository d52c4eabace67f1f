/* The launcher: one process for each worker and toolchain, spoken to over descriptor 3.
 *
 * It makes namespaces of its own, has the worker map its ids, builds the root that programs share, and then opens
 * jails on request; or it becomes a warm interpreter that does. It holds no secret and never runs a program's code.
 */
#define _GNU_SOURCE
#include "jail.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <linux/capability.h>

#define MAX_WORDS 64
#define LIBRARY 4 /* what a warm interpreter loads first; see forkserver.c */

static unsigned char buffer[MAX_MESSAGE];

static void be_ordinary(void) {
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    for (int number = 1; number < NSIG; number++)
        signal(number, SIG_DFL);
    setsid();
    (void)put("/proc/self/oom_score_adj", "1000"); /* what runs below us is to go before what runs beside us */
    personality(ADDR_NO_RANDOMIZE);                /* undefined behaviour then does the same each time */
}

static void take_limits(struct message *message) {
    for (uint64_t left = take_number(message); left && !message->is_bad; left--) {
        int which = (int)take_number(message);
        rlim_t wanted = take_number(message);
        if (set_limit(which, wanted) < 0)
            fault(CONTROL, "setrlimit", "");
    }
}

/* As root we chose an id for the programs of this worker; it is ours too from here on. */
static void become_user(void) {
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct none[2] = {{0}};
    uid_t id = (uid_t)atoi(INNER_ID);
    if (getuid() != id && (syscall(SYS_setgroups, 0, NULL) < 0 || syscall(SYS_setresgid, id, id, id) < 0 ||
                              syscall(SYS_setresuid, id, id, id) < 0))
        fault(CONTROL, "setresuid", "");
    if (syscall(SYS_capset, &header, none) < 0)
        fault(CONTROL, "capset", "");
    prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0); /* lost with the change of user */
}

static void take_words(struct message *message, char **words) {
    uint64_t count = take_number(message);
    if (count > MAX_WORDS) {
        errno = E2BIG;
        fault(CONTROL, "start", "");
    }
    for (uint64_t i = 0; i < count; i++)
        words[i] = (char *)take_text(message);
    words[count] = NULL;
}

int main(void) {
    char *argv[MAX_WORDS + 1], *env[MAX_WORDS + 1];
    int fds[MAX_FDS], count;
    pid_t parent = getppid();
    prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    if (getppid() != parent)
        return 1;
    be_ordinary();
    if (unshare(CLONE_NEWUSER | CLONE_NEWNS) < 0)
        fault(CONTROL, "unshare", "");
    tell(CONTROL, 'U', NULL, 0);
    size_t size = receive(CONTROL, buffer, fds, &count); /* our ids are mapped */
    struct message message = {buffer + 1, buffer + size, size == 0 || buffer[0] != 'S'};
    take_limits(&message);
    build_root(CONTROL, &message);
    take_words(&message, argv);
    take_words(&message, env);
    if (message.is_bad) {
        errno = EBADMSG;
        fault(CONTROL, "start", "");
    }
    become_user();
    umask(0); /* process 1 of a jail sets the programs' */
    if (argv[0]) {
        if (count != 1 || (fds[0] != LIBRARY && dup2(fds[0], LIBRARY) < 0))
            fault(CONTROL, "dup2", "");
        fcntl(LIBRARY, F_SETFD, 0);
        fcntl(CONTROL, F_SETFD, 0);
        execve(argv[0], argv, env);
        fault(CONTROL, argv[0], "did not start");
    }
    tell(CONTROL, 'R', NULL, 0);
    serve(NULL);
}
