/* Tries every wall of a jail and prints what came of it, one `name answer` a line; an answer is an errno, or `ok`. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static void say(const char *name, long result) {
    printf("%s %s\n", name, result < 0 ? strerrorname_np(errno) : "ok");
    fflush(stdout);
}

static void count(const char *name, long number) { printf("%s %ld\n", name, number); }

static long clone_with(unsigned long flags) {
    long pid = syscall(SYS_clone, flags | SIGCHLD, 0, 0, 0, 0);
    if (pid == 0)
        _exit(0);
    if (pid > 0)
        waitpid((pid_t)pid, NULL, 0);
    return pid;
}

static void namespaces(void) {
    say("unshare_user", unshare(CLONE_NEWUSER));
    say("unshare_mount", unshare(CLONE_NEWNS));
    say("unshare_pid", unshare(CLONE_NEWPID));
    say("unshare_net", unshare(CLONE_NEWNET));
    say("clone_user", clone_with(CLONE_NEWUSER));
    say("clone_pid", clone_with(CLONE_NEWPID));
    say("clone_plain", clone_with(0));
    char arguments[88] = {0};
    say("clone3", syscall(435, arguments, sizeof arguments));
    int own = open("/proc/self/ns/user", O_RDONLY);
    say("setns", setns(own, 0));
    close(own);
    say("mount", mount("none", "/tmp", "tmpfs", 0, NULL));
    say("remount", mount("none", "/usr", NULL, MS_REMOUNT | MS_BIND, NULL));
    say("umount", umount2("/proc", MNT_DETACH));
    say("pivot_root", syscall(SYS_pivot_root, "/tmp", "/tmp"));
    say("chroot", chroot("/tmp"));
    say("fsopen", syscall(430, "tmpfs", 0));
    say("open_tree", syscall(428, AT_FDCWD, "/", 1));
    say("hostname", sethostname("x", 1));
}

static void others(void) {
    char byte = 0;
    struct iovec here = {&byte, 1}, there = {&byte, 1};
    say("ptrace_init", ptrace(PTRACE_ATTACH, 1, 0, 0));
    say("ptrace_self", ptrace(PTRACE_TRACEME, 0, 0, 0));
    say("process_vm_readv", process_vm_readv(1, &here, 1, &there, 1, 0));
    say("process_vm_writev", process_vm_writev(1, &here, 1, &there, 1, 0));
    say("kcmp", syscall(SYS_kcmp, 1, getpid(), 0, 0, 0));
    say("pidfd_getfd", syscall(438, 0, 0, 0));
    static const char *const secrets[] = {"environ", "mem", "maps", "root/etc", "cwd/", "map_files", "fd/3", "exe"};
    for (unsigned i = 0; i < sizeof secrets / sizeof *secrets; i++) {
        char path[64], name[64];
        snprintf(path, sizeof path, "/proc/1/%s", secrets[i]);
        snprintf(name, sizeof name, "init_%s", secrets[i]);
        say(name, open(path, O_RDONLY));
    }
    char leads_to[64];
    say("init_fd_link", readlink("/proc/1/fd/3", leads_to, sizeof leads_to));
    say("init_mem_write", open("/proc/1/mem", O_WRONLY));
    long seen = 0;
    DIR *folder = opendir("/proc");
    for (struct dirent *entry; (entry = readdir(folder));)
        seen += entry->d_name[0] >= '1' && entry->d_name[0] <= '9';
    closedir(folder);
    count("processes_seen", seen);
}

static void kernel(void) {
    char words[256] = {0};
    say("bpf", syscall(SYS_bpf, 0, words, 64));
    say("perf", syscall(SYS_perf_event_open, words, 0, -1, -1, 0));
    say("userfaultfd", syscall(SYS_userfaultfd, 0));
    say("keyctl", syscall(SYS_keyctl, 0, 0, 0, 0, 0));
    say("add_key", syscall(SYS_add_key, "user", "x", "x", 1, -1));
    say("request_key", syscall(SYS_request_key, "user", "x", NULL, 0));
    say("io_uring", syscall(425, 1, words));
    say("memfd", syscall(SYS_memfd_create, "x", 0));
    say("shmget", syscall(SYS_shmget, 1, 4096, 01600));
    say("kexec", syscall(SYS_kexec_load, 0, 0, NULL, 0));
    say("init_module", syscall(SYS_init_module, words, 1, ""));
    say("finit_module", syscall(SYS_finit_module, 0, "", 0));
    say("open_by_handle", syscall(SYS_open_by_handle_at, 0, words, 0));
    say("reboot", syscall(SYS_reboot, 0, 0, 0, 0));
#ifdef __x86_64__
    say("x32_getpid", syscall(0x40000000 | SYS_getpid));
#endif
}

static void sockets(void) {
    int pair[2];
    say("inet", socket(AF_INET, SOCK_STREAM, 0));
    say("inet6", socket(AF_INET6, SOCK_DGRAM, 0));
    say("netlink", socket(AF_NETLINK, SOCK_RAW, 0));
    say("packet", socket(AF_PACKET, SOCK_RAW, 0));
    say("unix", close(socket(AF_UNIX, SOCK_STREAM, 0)));
    say("socketpair", socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    close(pair[0]);
    close(pair[1]);
}

static void state(void) {
    long open_ones = 0, words = 0, limit;
    for (int i = 0; i < 4096; i++)
        open_ones += fcntl(i, F_GETFD) >= 0;
    for (char **word = environ; *word; word++)
        words++;
    count("descriptors", open_ones);
    count("descriptors_from_4", fcntl(4, F_GETFD) >= 0);
    count("environment", words);
    count("uid", getuid());
    count("gid", getgid());
    count("is_session_leader", getsid(0) == getpid());
    count("no_new_privileges", prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0));
    count("seccomp_mode", prctl(PR_GET_SECCOMP, 0, 0, 0, 0));
    long kept = 0;
    for (int i = 0; i < 64; i++)
        kept += prctl(PR_CAPBSET_READ, i, 0, 0, 0) > 0;
    count("bounding_set", kept);
    char line[256], name[64];
    unsigned long long value;
    FILE *status = fopen("/proc/self/status", "r");
    while (fgets(line, sizeof line, status))
        if (sscanf(line, "Cap%60[A-Za-z]: %llx", name, &value) == 2)
            printf("capabilities_%s %llu\n", name, value);
    fclose(status);
    static const struct { const char *name; int which; } limits[] = {{"files", RLIMIT_NOFILE}, {"core", RLIMIT_CORE},
        {"tasks", RLIMIT_NPROC}, {"file_size", RLIMIT_FSIZE}};
    for (unsigned i = 0; i < sizeof limits / sizeof *limits; i++) {
        struct rlimit now;
        getrlimit((__rlimit_resource_t)limits[i].which, &now);
        limit = (long)now.rlim_max;
        printf("limit_%s %ld\n", limits[i].name, limit);
    }
}

static void disk(void) {
    static char block[1 << 20];
    static const char *const readonly[] = {"/x", "/usr/x", "/etc/x", "/dev/x", "/proc/sys/kernel/hostname"};
    for (unsigned i = 0; i < sizeof readonly / sizeof *readonly; i++) {
        char name[64];
        snprintf(name, sizeof name, "write_%s", readonly[i]);
        say(name, open(readonly[i], O_WRONLY | O_CREAT, 0600));
    }
    say("device", mknod("/tmp/null", S_IFCHR | 0600, 0x0103));
    signal(SIGXFSZ, SIG_IGN);
    long megabytes = 0, files = 0;
    char path[64];
    for (int file = 0; file < 16; file++) {
        snprintf(path, sizeof path, "/var/tmp/big%d", file);
        int handle = open(path, O_WRONLY | O_CREAT, 0600);
        if (handle < 0)
            break;
        while (write(handle, block, sizeof block) == sizeof block)
            megabytes++;
        close(handle);
    }
    count("disk_megabytes", megabytes);
    for (int file = 0; file < 16; file++) {
        snprintf(path, sizeof path, "/var/tmp/big%d", file);
        unlink(path);
    }
    for (;; files++) {
        snprintf(path, sizeof path, "/dev/shm/%ld", files);
        int handle = open(path, O_WRONLY | O_CREAT, 0600);
        if (handle < 0)
            break;
        close(handle);
    }
    count("disk_files", files);
}

int main(void) {
    state();
    namespaces();
    others();
    kernel();
    sockets();
    disk();
    struct rlimit none = {0, 0};
    say("kill_init", kill(1, SIGKILL));
    say("tgkill_init", syscall(SYS_tgkill, 1, 1, SIGKILL));
    say("limit_init", prlimit(1, RLIMIT_CPU, &none, NULL));
    say("pidfd_init", syscall(434, 1, 0));
    kill(-1, SIGKILL);
    count("end", 1);
    return 0;
}
