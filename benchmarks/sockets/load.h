/* What load.c and commands.h share. */

#ifndef LOAD_H
#define LOAD_H

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "wire.h"

enum { BUFFER = 1 << 18, EVENTS = 1024, SETS = 8, RING = 1 << 15, ADDRESSES = 8, BURST_MAX = 64 };
/* "#", a number of 10 digits, a space, a time of 20 digits, a space. */
enum { STAMP = 33 };

enum state { GONE, CONNECTING, JOINING, JOINED, LEAVING };

struct client {
    int fd;
    enum state state;
    uint32_t index, next; /* the number of the message it expects */
    uint64_t seen;        /* of the 64 messages before: which have come */
    struct set *set;
    size_t have, held;
    char *rest, *out; /* what has come of a frame; what the socket did not take yet */
    char key[KEY_LENGTH + 1];
};

struct set {
    char path[128];
    uint32_t count, open, size; /* clients, those connected, bytes of a text */
    uint32_t sent, oldest;      /* the number of the next message; of the oldest that not all have */
    uint32_t begun;             /* messages that somebody has */
    uint32_t *got;              /* how many clients have each message that is on its way */
    struct client *clients;
    int buffer_bytes, quiet, timing; /* quiet: its messages are another set's, and may get lost */
    uint64_t received, frames, reads, lost, repeated, disordered, closed;
    uint32_t *times; /* from send to receipt, in 100 ns */
    size_t timed, room;
};

#endif
