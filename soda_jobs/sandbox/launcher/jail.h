/* What the parts of the launcher share: messages, and the three steps from a bare process to a jail. */
#ifndef SODA_JAIL_H
#define SODA_JAIL_H

#include <setjmp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>

#define CONTROL 3 /* the descriptor on which a launcher, and process 1 of a jail, is spoken to */
#define MAX_MESSAGE (1 << 16)
#define MAX_FDS 4
#define BOX "/box"
#define HELD "/.shown" /* where the root keeps a folder that programs see below /tmp */
#define SCRATCH "/.scratch"
#define INNER_ID "1000"

/* -- messages (wire.c): numbers are 8 bytes, texts a number and that many bytes with a 0 at the end, both in the
 * machine's own order, because both ends are on one machine. */

struct message {
    const unsigned char *at, *end;
    bool is_bad; /* something was missing; all that is taken from then on is empty */
};

uint64_t take_number(struct message *message);
const char *take_text(struct message *message);

/* Bytes of the next message, 0 at the end of file, and the descriptors that came with it. */
size_t receive(int from, void *buffer, int *fds, int *count);

void tell(int to, char kind, const uint64_t *numbers, int count);

/* Say what failed, with errno's words, and end. */
_Noreturn void fault(int to, const char *what, const char *where);

uint64_t microseconds(const struct rusage *usage); /* of CPU time */

/* -- steps */

/* root.c: in new user and mount namespaces, make the read-only root that all programs of this launcher share. */
void build_root(int control, struct message *message);

/* jail.c: process 1 of one program's namespaces. Does not return, but in a program of a warm interpreter. */
struct opening {
    int control;             /* its end of the jail's socket */
    int content;             /* files, when they are too large for the message; -1 */
    struct message message;
    jmp_buf *program;        /* where a program of a warm interpreter begins; NULL: programs are executed */
};
int live_as_first_process(void *opening);

/* serve.c: open and close jails on request, until the other end is closed. `program`: see `opening`. */
_Noreturn void serve(jmp_buf *program);

/* filter.c: the system-call filter, for this process and all that come from it. */
int filter_system_calls(void);

/* files.c */
int put(const char *path, const char *text);
void make_folders_to(char *path);
int bind_read_only(const char *source, const char *target);
void close_from(int first);
int set_limit(int which, rlim_t wanted);

#endif
