/* Messages over a sequenced-packet socket. Every length is checked: a bad message is empty, never a wild read. */
#define _GNU_SOURCE
#include "jail.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

uint64_t take_number(struct message *message) {
    uint64_t number = 0;
    if (message->is_bad || (size_t)(message->end - message->at) < sizeof number) {
        message->is_bad = true;
        return 0;
    }
    memcpy(&number, message->at, sizeof number);
    message->at += sizeof number;
    return number;
}

const char *take_text(struct message *message) {
    uint64_t length = take_number(message);
    const char *text = (const char *)message->at;
    if (message->is_bad || length >= (uint64_t)(message->end - message->at) || text[length] != 0) {
        message->is_bad = true;
        return "";
    }
    message->at += length + 1;
    return text;
}

size_t receive(int from, void *buffer, int *fds, int *count) {
    char ancillary[CMSG_SPACE(MAX_FDS * sizeof(int))];
    struct iovec part = {buffer, MAX_MESSAGE};
    struct msghdr header = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = ancillary, .msg_controllen = sizeof ancillary};
    ssize_t size;
    do
        size = recvmsg(from, &header, MSG_CMSG_CLOEXEC);
    while (size < 0 && errno == EINTR);
    *count = 0;
    for (struct cmsghdr *item = CMSG_FIRSTHDR(&header); item; item = CMSG_NXTHDR(&header, item))
        if (item->cmsg_level == SOL_SOCKET && item->cmsg_type == SCM_RIGHTS) {
            *count = (int)((item->cmsg_len - CMSG_LEN(0)) / sizeof(int));
            memcpy(fds, CMSG_DATA(item), (size_t)*count * sizeof(int));
        }
    return size < 0 ? 0 : (size_t)size;
}

void tell(int to, char kind, const uint64_t *numbers, int count) {
    char buffer[1 + 8 * sizeof(uint64_t)] = {kind};
    memcpy(buffer + 1, numbers, (size_t)count * sizeof(uint64_t));
    (void)!send(to, buffer, 1 + (size_t)count * sizeof(uint64_t), MSG_NOSIGNAL);
}

uint64_t microseconds(const struct rusage *usage) {
    return (uint64_t)(usage->ru_utime.tv_sec + usage->ru_stime.tv_sec) * 1000000 +
           (uint64_t)(usage->ru_utime.tv_usec + usage->ru_stime.tv_usec);
}

void fault(int to, const char *what, const char *where) {
    char buffer[256] = "F";
    snprintf(buffer + 1, sizeof buffer - 1, "%s%s%s: %s", what, *where ? " " : "", where, strerror(errno));
    (void)!send(to, buffer, strlen(buffer), MSG_NOSIGNAL);
    _exit(1);
}
