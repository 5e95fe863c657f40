/* The limit of one process on one core: epoll, one room, and one send() a socket for each message, with a frame that is
   built once. What a client sends goes to everybody as it is; every frame leaves on its own.

   Prints its port, serves until stdin ends. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "wire.h"

enum { BUFFER = 1 << 16, EVENTS = 1024, SOCKETS = 1 << 16 };

struct client {
    int fd, place; /* its place among the members; -1 before the handshake */
    size_t have;
    char *rest; /* what has come of a request or a frame that is not whole */
};

static struct client *clients[SOCKETS];
static int members[SOCKETS], count;
static int poller;
static char buffer[BUFFER * 2], out[BUFFER + HEAD_MAX];

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static void drop(struct client *client)
{
    if (client->place >= 0) {
        members[client->place] = members[--count];
        clients[members[client->place]]->place = client->place;
    }
    clients[client->fd] = NULL;
    close(client->fd);
    free(client->rest);
    free(client);
}

/* A client that does not take a whole frame at once would need a queue. Here it is an error: nothing may get lost. */
static void say(int fd, const char *data, size_t length)
{
    if (send(fd, data, length, MSG_NOSIGNAL) != (ssize_t)length && errno != EPIPE && errno != ECONNRESET)
        die("limit: a client does not read");
}

static void broadcast(const char *text, size_t length)
{
    size_t size = frame(out, TEXT, text, length, 0);
    for (int i = 0; i < count; i++)
        say(members[i], out, size);
}

static size_t greet(struct client *client, char *data, size_t have)
{
    char *end = memmem(data, have, "\r\n\r\n", 4), accept[ACCEPT_LENGTH + 1], answer[256];
    if (!end)
        return 0;
    *end = 0;
    char *key = strcasestr(data, "\r\nsec-websocket-key:");
    if (!key)
        return SIZE_MAX;
    key += 20;
    key += strspn(key, " ");
    accept_of(key, accept);
    int length = snprintf(answer, sizeof answer,
                          "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                          "Sec-WebSocket-Accept: %s\r\n\r\n", accept);
    say(client->fd, answer, (size_t)length);
    client->place = count;
    members[count++] = client->fd;
    return (size_t)(end + 4 - data);
}

/* Take one frame; return its length, 0 where more is needed, SIZE_MAX where the client has gone. */
static size_t take(struct client *client, char *data, size_t have)
{
    struct head head;
    if (!read_head(data, have, &head) || have - head.size < head.length)
        return 0;
    char *payload = data + head.size;
    if (!head.mask || !head.final || head.length > BUFFER)
        return SIZE_MAX;
    for (size_t i = 0; i < head.length; i++)
        payload[i] ^= (char)head.mask[i & 3];
    if (head.opcode == TEXT) {
        broadcast(payload, head.length);
    } else if (head.opcode == PING || head.opcode == CLOSE) {
        size_t size = frame(out, head.opcode == PING ? PONG : CLOSE, payload, head.length, 0);
        say(client->fd, out, size);
        if (head.opcode == CLOSE)
            return SIZE_MAX;
    }
    return head.size + head.length;
}

static void read_from(struct client *client)
{
    if (client->have)
        memcpy(buffer, client->rest, client->have);
    ssize_t got = recv(client->fd, buffer + client->have, BUFFER, 0);
    if (got <= 0) {
        if (got == 0 || (errno != EAGAIN && errno != EINTR))
            drop(client);
        return;
    }
    size_t have = client->have + (size_t)got, at = 0;
    while (at < have) {
        size_t used = client->place < 0 ? greet(client, buffer + at, have - at) : take(client, buffer + at, have - at);
        if (used == SIZE_MAX) {
            drop(client);
            return;
        }
        if (!used)
            break;
        at += used;
    }
    client->have = have - at;
    if (client->have > BUFFER) {
        drop(client);
        return;
    }
    if (client->have) {
        client->rest = realloc(client->rest, client->have);
        memcpy(client->rest, buffer + at, client->have);
    }
}

static void take_in(int listener)
{
    int fd, yes = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        if (fd >= SOCKETS)
            die("limit: too many clients");
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
        struct client *client = calloc(1, sizeof *client);
        client->fd = fd, client->place = -1;
        clients[fd] = client;
        struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
        if (epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event))
            die("epoll_ctl");
    }
    if (errno != EAGAIN && errno != ECONNABORTED)
        die("accept");
}

int main(void)
{
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    if (bind(listener, (struct sockaddr *)&address, size) || listen(listener, 2048)
        || getsockname(listener, (struct sockaddr *)&address, &size))
        die("listen");
    poller = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = listener}, found[EVENTS];
    epoll_ctl(poller, EPOLL_CTL_ADD, listener, &event);
    event.data.fd = 0;
    epoll_ctl(poller, EPOLL_CTL_ADD, 0, &event);
    printf("{\"port\": %d}\n", ntohs(address.sin_port));
    fflush(stdout);
    for (;;) {
        int ready = epoll_wait(poller, found, EVENTS, -1);
        for (int i = 0; i < ready; i++) {
            int fd = found[i].data.fd;
            if (fd == listener)
                take_in(listener);
            else if (fd == 0)
                return 0;
            else if (clients[fd])
                read_from(clients[fd]);
        }
    }
}
