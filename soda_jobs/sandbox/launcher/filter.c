/* The system-call filter: a deny list that answers with an error, because runtimes try what is not there and go on.
 *
 * It is written in BPF and not with libseccomp, so that any C compiler builds it and an image needs no library.
 * Namespaces and lost capabilities already refuse most of this; the filter takes the kernel code behind it out of
 * reach, closes two ways to hold memory that no process maps (memfd, System V shared memory), and keeps process 1
 * of the jail from being signalled.
 */
#define _GNU_SOURCE
#include "jail.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#if defined(__x86_64__)
#define MACHINE AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define MACHINE AUDIT_ARCH_AARCH64
#else
#error "no system-call filter for this machine"
#endif

#define LOW_HALF 0 /* of an argument, where the flags are; both machines have the low half first */

#define NEW_NAMESPACE                                                                                             \
    (CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET)

/* Numbers that old headers lack are the same on all machines. */
#define IO_URING_SETUP 425
#define OPEN_TREE 428
#define MOVE_MOUNT 429
#define FSOPEN 430
#define FSCONFIG 431
#define FSMOUNT 432
#define FSPICK 433
#define PIDFD_OPEN 434
#define CLONE3 435
#define PIDFD_GETFD 438
#define PROCESS_MADVISE 440
#define MOUNT_SETATTR 442
#define MEMFD_SECRET 447

static const unsigned denied[] = {
    /* namespaces and mounts */
    SYS_unshare, SYS_setns, SYS_mount, SYS_umount2, SYS_pivot_root, SYS_chroot, OPEN_TREE, MOVE_MOUNT, FSOPEN,
    FSCONFIG, FSMOUNT, FSPICK, MOUNT_SETATTR, SYS_name_to_handle_at, SYS_open_by_handle_at,
    /* other processes */
    SYS_ptrace, SYS_process_vm_readv, SYS_process_vm_writev, SYS_kcmp, PIDFD_GETFD, PROCESS_MADVISE,
    SYS_move_pages, SYS_migrate_pages,
    /* parts of the kernel that no program of ours needs and that have been broken before */
    SYS_bpf, SYS_perf_event_open, SYS_userfaultfd, SYS_keyctl, SYS_add_key, SYS_request_key, SYS_fanotify_init,
    IO_URING_SETUP, IO_URING_SETUP + 1, IO_URING_SETUP + 2, SYS_lookup_dcookie,
    /* memory that no process maps, and that no watch sees */
    SYS_memfd_create, MEMFD_SECRET, SYS_shmget,
    /* the machine */
    SYS_kexec_load, SYS_init_module, SYS_finit_module, SYS_delete_module, SYS_reboot, SYS_swapon, SYS_swapoff,
    SYS_acct, SYS_quotactl, SYS_syslog, SYS_settimeofday, SYS_clock_settime, SYS_adjtimex, SYS_clock_adjtime,
    SYS_sethostname, SYS_setdomainname, SYS_vhangup, SYS_nfsservctl,
#ifdef SYS_kexec_file_load
    SYS_kexec_file_load,
#endif
#if defined(__x86_64__)
    SYS_modify_ldt, SYS_iopl, SYS_ioperm, SYS_uselib, SYS_sysfs, SYS_ustat,
#endif
};
/* Denied when they are about process 1, which gVisor lets programs kill. */
static const unsigned denied_about_first[] = {
    SYS_kill, SYS_tkill, SYS_tgkill, SYS_rt_sigqueueinfo, SYS_rt_tgsigqueueinfo, SYS_prlimit64, PIDFD_OPEN,
};
#define COUNT(list) (sizeof list / sizeof *list)
#define RULES (COUNT(denied) + COUNT(denied_about_first))

static struct rule {
    unsigned number;
    bool is_about_first;
} rules[RULES];

#define FIELD(name, half) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, name) + (half))
#define UNLESS(what, value, skipped) BPF_JUMP(BPF_JMP | (what) | BPF_K, (value), 0, (skipped))
#define ANSWER(value) BPF_STMT(BPF_RET | BPF_K, (value))
#define REFUSE(error) ANSWER(SECCOMP_RET_ERRNO | (error))

static const struct sock_filter head[] = {
    FIELD(arch, 0),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, MACHINE, 1, 0),
    REFUSE(ENOSYS), /* a second set of numbers, such as 32-bit calls */
    FIELD(nr, 0),
#if defined(__x86_64__)
    BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, SYS_shmget, 1, 0),
    ANSWER(SECCOMP_RET_ALLOW), /* what programs call most has the lowest numbers; none of those is denied */
    BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, 0x40000000, 0, 1),
    REFUSE(ENOSYS), /* x32 */
#endif
    UNLESS(BPF_JEQ, CLONE3, 1),
    REFUSE(ENOSYS), /* its flags lie in memory, where a filter cannot look; the C library falls back to clone */
    UNLESS(BPF_JEQ, SYS_clone, 4),
    FIELD(args[0], LOW_HALF),
    UNLESS(BPF_JSET, NEW_NAMESPACE, 1),
    REFUSE(EPERM),
    ANSWER(SECCOMP_RET_ALLOW),
    UNLESS(BPF_JEQ, SYS_socketpair, 4),
    FIELD(args[0], LOW_HALF),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AF_UNIX, 1, 0),
    REFUSE(EAFNOSUPPORT),
    ANSWER(SECCOMP_RET_ALLOW),
    UNLESS(BPF_JEQ, SYS_socket, 7),
    FIELD(args[0], LOW_HALF),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AF_UNIX, 4, 0),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AF_INET, 2, 0),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AF_INET6, 1, 0),
    REFUSE(EAFNOSUPPORT),
    REFUSE(ENETUNREACH), /* what a machine without a network says */
    ANSWER(SECCOMP_RET_ALLOW),
};
static unsigned append(struct sock_filter *to, const struct sock_filter *from, unsigned count) {
    for (unsigned i = 0; i < count; i++)
        to[i] = from[i];
    return count;
}

static unsigned answer(struct sock_filter *to, const struct rule *rule) {
    const struct sock_filter always[] = {UNLESS(BPF_JEQ, rule->number, 1), REFUSE(EPERM)};
    const struct sock_filter about_first[] = {UNLESS(BPF_JEQ, rule->number, 4), FIELD(args[0], LOW_HALF),
        UNLESS(BPF_JEQ, 1, 1), REFUSE(EPERM), ANSWER(SECCOMP_RET_ALLOW)};
    return rule->is_about_first ? append(to, about_first, COUNT(about_first)) : append(to, always, COUNT(always));
}

/* Whether the number is denied, by halves: in gVisor each new process asks this of every number there is. */
static unsigned search(struct sock_filter *to, const struct rule *from, unsigned count) {
    if (count > 2) {
        unsigned lower = search(to + 1, from, count / 2);
        to[0] = (struct sock_filter)BPF_JUMP(
            BPF_JMP | BPF_JGE | BPF_K, from[count / 2].number, (unsigned char)lower, 0);
        return 1 + lower + search(to + 1 + lower, from + count / 2, count - count / 2);
    }
    unsigned length = 0;
    for (unsigned i = 0; i < count; i++)
        length += answer(to + length, &from[i]);
    to[length++] = (struct sock_filter)ANSWER(SECCOMP_RET_ALLOW);
    return length;
}

static void add_rule(unsigned place, unsigned number, bool is_about_first) {
    for (; place > 0 && rules[place - 1].number > number; place--)
        rules[place] = rules[place - 1];
    rules[place] = (struct rule){number, is_about_first};
}

int filter_system_calls(void) {
    static struct sock_filter program[COUNT(head) + 6 * RULES];
    static unsigned length;
    if (!length) {
        for (unsigned i = 0; i < COUNT(denied); i++)
            add_rule(i, denied[i], false);
        for (unsigned i = 0; i < COUNT(denied_about_first); i++)
            add_rule(COUNT(denied) + i, denied_about_first[i], true);
        length = append(program, head, COUNT(head));
        length += search(program + length, rules, RULES);
    }
    struct sock_fprog filter = {(unsigned short)length, program};
    return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter);
}
