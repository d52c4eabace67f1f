/* The loop of a launcher: open a jail, close a jail. One clone makes all namespaces of a jail. */
#define _GNU_SOURCE
#include "jail.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define NAMESPACES (CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNET)
#define STACK (256 << 10)
#define MAX_JAILS 64

static struct {
    uint64_t token;
    pid_t pid; /* 0: free */
} jails[MAX_JAILS];
static unsigned char buffer[MAX_MESSAGE];
static _Alignas(64) unsigned char stack[STACK];

static int place_of(uint64_t token) {
    for (int i = 0; i < MAX_JAILS; i++)
        if (jails[i].pid && jails[i].token == token)
            return i;
    return -1;
}

static int free_place(bool is_warm) {
    for (int i = 0; i < (is_warm ? 1 : MAX_JAILS); i++)
        if (!jails[i].pid)
            return i;
    return -1;
}

/* Message: token, then what jail.c reads; descriptors: the jail's socket, and perhaps the files' contents. */
static void open_jail(size_t size, const int *fds, int count, jmp_buf *program) {
    static struct opening opening; /* a warm interpreter shares it with process 1 of its one jail */
    opening = (struct opening){fds[0], count > 1 ? fds[1] : -1, {buffer + 1, buffer + size, false}, program};
    uint64_t token = take_number(&opening.message);
    int place = free_place(program != NULL);
    if (place < 0 || opening.message.is_bad) {
        errno = EAGAIN;
        fault(CONTROL, "open", "");
    }
    prctl(PR_SET_DUMPABLE, 1, 0, 0, 0); /* so that the new process may write its own id map */
    int flags = NAMESPACES | SIGCHLD | (program ? CLONE_VM : 0);
    pid_t pid = clone(live_as_first_process, stack + STACK, flags, &opening);
    int error = errno;
    if (!program) /* a warm interpreter is hidden by process 1, which shares its memory */
        prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    jails[place].token = token;
    jails[place].pid = pid > 0 ? pid : 0;
    for (int i = 0; i < count; i++)
        close(fds[i]);
    tell(CONTROL, pid < 0 ? 'N' : 'P', (uint64_t[]){pid < 0 ? (uint64_t)error : (uint64_t)pid}, 1);
}

/* Kill process 1, and with it the namespace; when it is reaped, all of it is gone. */
static void close_jail(uint64_t token) {
    int place = place_of(token);
    struct rusage usage;
    uint64_t used = 0;
    if (place >= 0) {
        kill(jails[place].pid, SIGKILL);
        if (wait4(jails[place].pid, NULL, 0, &usage) > 0)
            used = microseconds(&usage);
        jails[place].pid = 0;
    }
    tell(CONTROL, 'C', (uint64_t[]){used}, 1);
}

void serve(jmp_buf *program) {
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0); /* no ptrace, and nothing of ours readable in /proc */
    for (;;) {
        int fds[MAX_FDS], count;
        size_t size = receive(CONTROL, buffer, fds, &count);
        struct message message = {buffer + 1, buffer + size, false};
        if (size == 0)
            _exit(0);
        if (buffer[0] == 'O' && count > 0)
            open_jail(size, fds, count, program);
        else if (buffer[0] == 'C')
            close_jail(take_number(&message));
        else {
            errno = EBADMSG;
            fault(CONTROL, "request", "");
        }
    }
}
