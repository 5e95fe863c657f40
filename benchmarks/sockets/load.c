/* The load generator: opens WebSockets in sets, sends to their rooms, and accounts for every message of every client.

   load <port> <pid of the server> <file with further header lines> <text before> <text after> [engineio]

   One command a line on stdin, one line of JSON on stdout for each (see `commands` at the end); `error` in it spoils the
   run. It ends with stdin. Between commands it goes on reading, and answers pings.

   A message is text that begins and ends as the command line says; between stand its number within its set, the time it
   was sent at, and as many x as its size asks for. A set is a number of clients of one room. Its first client sends. A
   message is over when all clients of the set have it. Times are monotonic nanoseconds. */

#define _GNU_SOURCE
#include "load.h"

static struct sockaddr_in server;
static clockid_t server_clock;
static char headers[8192];
const char *before, *after;
int engineio;

static struct set sets[SETS];
static int poller, ticker, pending, broken;
static char buffer[BUFFER * 2];

static void die(const char *what)
{
    perror(what);
    exit(1);
}

/* Answer the command with an error. What comes after it is only the end. */
static void fail(const char *format, ...)
{
    if (broken++)
        return;
    va_list values;
    va_start(values, format);
    printf("{\"error\": \"");
    vprintf(format, values);
    printf("\"}\n");
    fflush(stdout);
    va_end(values);
}

/* Writing */

static void listen_for(struct client *client, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = client};
    if (epoll_ctl(poller, EPOLL_CTL_MOD, client->fd, &event) && errno != ENOENT)
        die("epoll_ctl");
}

static void put(struct client *client, const char *data, size_t length)
{
    ssize_t sent = client->held ? 0 : send(client->fd, data, length, MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN)
        return; /* gone: reading says so */
    if (sent < 0)
        sent = 0;
    if ((size_t)sent == length)
        return;
    client->out = realloc(client->out, client->held + length - (size_t)sent);
    memcpy(client->out + client->held, data + sent, length - (size_t)sent);
    client->held += length - (size_t)sent;
    listen_for(client, EPOLLIN | EPOLLOUT);
}

static void go_on(struct client *client)
{
    ssize_t sent = send(client->fd, client->out, client->held, MSG_NOSIGNAL);
    if (sent <= 0)
        return;
    client->held -= (size_t)sent;
    memmove(client->out, client->out + sent, client->held);
    if (!client->held)
        listen_for(client, EPOLLIN);
}

static void say(struct client *client, int opcode, const char *data, size_t length)
{
    char out[256 + HEAD_MAX];
    if (length <= 256)
        put(client, out, frame(out, opcode, data, length, 0x5a17c3e9));
}

/* A client's life */

static void finish(struct client *client)
{
    if (client->fd >= 0)
        close(client->fd);
    client->fd = -1;
    if (client->state == JOINING || client->state == CONNECTING || client->state == LEAVING)
        pending--;
    if (client->state == JOINED || client->state == LEAVING)
        client->set->open--;
    client->state = GONE;
    free(client->rest), free(client->out);
    client->rest = client->out = NULL;
    client->have = client->held = 0;
}

static void lost_server(struct client *client, const char *why)
{
    int state = client->state;
    finish(client);
    if (state != LEAVING && !client->set->quiet)
        fail("client %u of %s was closed: %s", client->index, client->set->path, why);
    client->set->closed++;
}

static void joined(struct client *client)
{
    client->state = JOINED;
    client->next = client->set->sent;
    client->set->open++;
    pending--;
}

static void start(struct set *set, uint32_t index)
{
    struct client *client = &set->clients[index];
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), yes = 1;
    if (fd < 0)
        die("socket");
    *client = (struct client){.fd = fd, .set = set, .index = index, .state = CONNECTING};
    pending++;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    if (set->buffer_bytes)
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &set->buffer_bytes, sizeof set->buffer_bytes);
    /* From several addresses: one has too few ports for tens of thousands of connections that come and go. */
    struct sockaddr_in from = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK + index % ADDRESSES)};
    setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &yes, sizeof yes);
    if (bind(fd, (struct sockaddr *)&from, sizeof from))
        die("bind");
    if (connect(fd, (struct sockaddr *)&server, sizeof server) && errno != EINPROGRESS)
        die("connect");
    struct epoll_event event = {.events = EPOLLOUT, .data.ptr = client};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event))
        die("epoll_ctl");
}

static void ask(struct client *client)
{
    char request[sizeof headers + 1024], nonce[16];
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(client->fd, SOL_SOCKET, SO_ERROR, &error, &size);
    if (error) {
        lost_server(client, strerror(error));
        return;
    }
    if (getrandom(nonce, sizeof nonce, 0) != sizeof nonce)
        die("getrandom");
    base64((uint8_t *)nonce, sizeof nonce, client->key);
    client->state = JOINING;
    listen_for(client, EPOLLIN);
    int length = snprintf(request, sizeof request,
                          "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                          "Sec-WebSocket-Key: %s\r\nSec-WebSocket-Version: 13\r\n%s\r\n",
                          client->set->path, ntohs(server.sin_port), client->key, headers);
    put(client, request, (size_t)length);
}

/* Read the answer to the handshake; return its length, 0 where more is needed. */
static size_t answered(struct client *client, char *data, size_t have)
{
    char accept[ACCEPT_LENGTH + 1], *end = memmem(data, have, "\r\n\r\n", 4);
    if (!end)
        return 0;
    *end = 0;
    accept_of(client->key, accept);
    char *value = strcasestr(data, "\r\nsec-websocket-accept:");
    if (value)
        value += 23, value += strspn(value, " ");
    if (strncmp(data, "HTTP/1.1 101", 12) || !value || strncmp(value, accept, ACCEPT_LENGTH)) {
        data[strcspn(data, "\r\n\"\\")] = 0;
        fail("client %u of %s: bad answer to the handshake: %s", client->index, client->set->path, data);
    } else if (strcasestr(data, "\r\nsec-websocket-extensions:")) {
        fail("client %u of %s: an extension that nobody offered", client->index, client->set->path);
    }
    if (!engineio)
        joined(client);
    return (size_t)(end + 4 - data);
}

/* Messages */

static uint64_t number_at(const char *text, int digits)
{
    uint64_t value = 0;
    for (int i = 0; i < digits; i++)
        value = value * 10 + (uint64_t)(text[i] - '0');
    return value;
}

static void arrived(struct client *client, const char *text, size_t length, uint64_t now)
{
    struct set *set = client->set;
    const char *mark = memchr(text, '#', length < 64 ? length : 64);
    if (length != set->size || !mark || (size_t)(mark - text) + STAMP > length) {
        char seen[41] = {0};
        memcpy(seen, text, length < 40 ? length : 40);
        for (char *at = seen; (at = strpbrk(at, "\"\\\r\n\t"));)
            *at = '\'';
        fail("client %u of %s: expected a message of %u bytes; got %zu: %s", client->index, set->path, set->size, length, seen);
        return;
    }
    uint32_t number = (uint32_t)number_at(mark + 1, 10);
    set->received++;
    if (set->quiet)
        return;
    if (number >= set->sent) {
        fail("client %u of %s: message %u of %u", client->index, set->path, number, set->sent);
        return;
    }
    if (number >= client->next) {
        uint32_t gap = number - client->next;
        set->lost += gap;
        client->seen = gap < 63 ? client->seen << (gap + 1) | 1 : 1;
        client->next = number + 1;
    } else {
        uint32_t ago = client->next - 1 - number;
        if (ago >= 64 || client->seen >> ago & 1) {
            set->repeated++;
            return;
        }
        client->seen |= (uint64_t)1 << ago;
        set->disordered++, set->lost--;
    }
    if (set->timing) {
        if (set->timed == set->room)
            set->times = realloc(set->times, (set->room = set->room * 2 + 65536) * sizeof *set->times);
        set->times[set->timed++] = (uint32_t)((now - number_at(mark + 12, 20)) / 100);
    }
    if (number >= set->begun)
        set->begun = number + 1;
    set->got[number % RING]++;
    while (set->oldest < set->sent && set->got[set->oldest % RING] == set->count)
        set->got[set->oldest++ % RING] = 0;
}

static void engineio_text(struct client *client, const char *text, size_t length, uint64_t now)
{
    if (length && text[0] == '2')
        say(client, TEXT, "3", 1);
    else if (length && text[0] == '0')
        say(client, TEXT, "40", 2);
    else if (length > 1 && !memcmp(text, "40", 2) && client->state == JOINING)
        joined(client);
    else if (length > 1 && !memcmp(text, "42", 2))
        arrived(client, text, length, now);
}

/* Take one frame; return its length, 0 where more is needed. */
static size_t take(struct client *client, const char *data, size_t have, uint64_t now)
{
    struct head head;
    if (!read_head(data, have, &head))
        return 0;
    if (head.mask || !head.final || head.reserved || head.length > BUFFER - HEAD_MAX) {
        fail("client %u of %s: a frame that is masked, fragmented, compressed or too long", client->index,
             client->set->path);
        return have;
    }
    if (have - head.size < head.length)
        return 0;
    const char *payload = data + head.size;
    client->set->frames++;
    if (head.opcode == TEXT) {
        if (engineio)
            engineio_text(client, payload, head.length, now);
        else if (client->state == JOINED)
            arrived(client, payload, head.length, now);
    } else if (head.opcode == PING) {
        say(client, PONG, payload, head.length);
    } else if (head.opcode == CLOSE && client->state != LEAVING) {
        char why[64];
        snprintf(why, sizeof why, "close code %d", head.length > 1 ? (uint8_t)payload[0] << 8 | (uint8_t)payload[1] : 1005);
        lost_server(client, why);
        return have;
    } else if (head.opcode != PONG && head.opcode != CLOSE) {
        fail("client %u of %s: a frame with opcode %d", client->index, client->set->path, head.opcode);
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
            lost_server(client, got ? strerror(errno) : "end of the stream");
        return;
    }
    uint64_t now = clock_ns(CLOCK_MONOTONIC);
    size_t have = client->have + (size_t)got, at = 0;
    client->set->reads++;
    if (client->state == JOINING && client->key[0]) {
        at = answered(client, buffer, have);
        if (at)
            client->key[0] = 0;
    }
    while (!client->key[0] && at < have && client->state != GONE) {
        size_t used = take(client, buffer + at, have - at, now);
        if (!used)
            break;
        at += used;
    }
    if (client->state == GONE)
        return;
    client->have = have - at;
    if (client->have > BUFFER) {
        fail("client %u of %s: no end of a frame", client->index, client->set->path);
        client->have = 0;
    } else if (client->have) {
        client->rest = realloc(client->rest, client->have);
        memcpy(client->rest, buffer + at, client->have);
    } else if (client->rest) {
        free(client->rest);
        client->rest = NULL;
    }
}

/* While something is measured the sockets are asked again and again, without sleep: to wake a sleeper on another core
   costs whoever sends to it, more than all else on some virtual machines, and real clients sleep on machines of their own. */
static int awake;
static uint64_t idle_ns;

static int look_for(struct epoll_event *found, int wait_ms)
{
    if (!awake)
        return epoll_wait(poller, found, EVENTS, wait_ms);
    uint64_t began = clock_ns(CLOCK_MONOTONIC), now = began;
    for (;;) {
        int ready = epoll_wait(poller, found, EVENTS, 0);
        if (ready)
            return ready;
        uint64_t then = now;
        now = clock_ns(CLOCK_MONOTONIC);
        idle_ns += now - then;
        if (now - began >= (uint64_t)wait_ms * 1000000u)
            return 0;
    }
}

/* Serve the sockets once, waiting up to `wait_ms`. Returns whether stdin has something. */
static int turn(int wait_ms)
{
    static struct epoll_event found[EVENTS];
    int ready = look_for(found, wait_ms), asked = 0;
    for (int i = 0; i < ready; i++) {
        struct client *client = found[i].data.ptr;
        if (found[i].data.ptr == &ticker) {
            uint64_t ticks;
            if (read(ticker, &ticks, sizeof ticks) < 0 && errno != EAGAIN)
                die("timerfd");
        } else if (found[i].data.ptr == NULL) {
            asked = 1;
        } else if (client->fd < 0) {
            continue;
        } else if (client->state == CONNECTING) {
            ask(client);
        } else {
            if (found[i].events & EPOLLOUT)
                go_on(client);
            if (client->fd >= 0 && found[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR))
                read_from(client);
        }
    }
    return asked;
}

#include "commands.h"

int main(int argc, char **argv)
{
    if (argc < 6) {
        fprintf(stderr, "load <port> <pid> <file of headers> <text before> <text after> [engineio]\n");
        return 2;
    }
    server = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    server.sin_port = htons((uint16_t)atoi(argv[1]));
    /* The clock of another process: the time on a core of all its threads, of those that ended, too. */
    if (clock_getcpuclockid(atoi(argv[2]), &server_clock))
        die("the server's clock");
    FILE *file = fopen(argv[3], "r");
    if (!file)
        die(argv[3]);
    headers[fread(headers, 1, sizeof headers - 1, file)] = 0;
    fclose(file);
    before = argv[4], after = argv[5], engineio = argc > 6;

    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    poller = epoll_create1(EPOLL_CLOEXEC);
    ticker = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, 0, &event))
        die("stdin must be a pipe");
    event.data.ptr = &ticker;
    epoll_ctl(poller, EPOLL_CTL_ADD, ticker, &event);
    char line[1024];
    size_t have = 0;
    for (;;) {
        if (!turn(-1))
            continue;
        ssize_t got = read(0, line + have, sizeof line - 1 - have);
        if (got <= 0)
            return broken ? 1 : 0;
        line[have += (size_t)got] = 0;
        char *end = strchr(line, '\n');
        if (!end)
            continue;
        *end = 0;
        have = 0; /* the next line comes only after the answer */
        command(line);
    }
}
