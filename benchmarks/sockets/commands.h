/* The commands of load.c. Each runs to its end, and then answers. */

enum { PATIENCE_S = 30 };

struct span {
    uint64_t wall, server, own, frames, reads, lost, repeated, disordered, received;
    uint32_t sent;
};

static struct span look(const struct set *set)
{
    return (struct span){
        clock_ns(CLOCK_MONOTONIC), clock_ns(server_clock), clock_ns(CLOCK_PROCESS_CPUTIME_ID) - idle_ns, set->frames, set->reads,
        set->lost, set->repeated, set->disordered, set->received, set->sent,
    };
}

/* Wait until `done` stops being 0 or nothing more happens for a long time. */
#define UNTIL(done, set, progress)                                                                     \
    for (uint64_t last_ = clock_ns(CLOCK_MONOTONIC), seen_ = (progress); !broken && !(done);) {        \
        turn(100);                                                                                     \
        uint64_t now_ = clock_ns(CLOCK_MONOTONIC);                                                     \
        if ((progress) != seen_)                                                                       \
            last_ = now_, seen_ = (progress);                                                          \
        else if (now_ - last_ > PATIENCE_S * 1000000000ull)                                            \
            give_up(set);                                                                              \
    }

static void give_up(const struct set *set)
{
    uint64_t missing = 0;
    for (uint32_t number = set->oldest; number < set->sent; number++)
        missing += set->count - set->got[number % RING];
    fail("%s: nothing came for %d s; %u of %u clients connected, %d on their way, %llu messages lost", set->path,
         PATIENCE_S, set->open, set->count, pending, (unsigned long long)missing);
}

/* Wait until the server has nothing left to do: it used less than 1 ms in 60 ms. */
static void settle(void)
{
    for (uint64_t before_ns = 0, now_ns = 0; !broken; before_ns = now_ns) {
        uint64_t until = clock_ns(CLOCK_MONOTONIC) + 60000000u;
        while (clock_ns(CLOCK_MONOTONIC) < until)
            turn(20);
        now_ns = clock_ns(server_clock);
        if (now_ns - before_ns < 1000000u)
            return;
    }
}

static int smaller(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static double part(const uint32_t *times, size_t count, double share)
{
    return count ? times[(size_t)((double)(count - 1) * share + 0.5)] / 10000.0 : 0;
}

static void answer(const struct set *set, struct span from)
{
    struct span to = look(set);
    double seconds = (double)(to.wall - from.wall) / 1e9;
    if (to.lost != from.lost || to.repeated != from.repeated || to.disordered != from.disordered)
        fail("%s: %llu messages lost, %llu repeated, %llu out of order", set->path,
             (unsigned long long)(to.lost - from.lost), (unsigned long long)(to.repeated - from.repeated),
             (unsigned long long)(to.disordered - from.disordered));
    if (broken)
        return;
    if (to.received - from.received != (uint64_t)(to.sent - from.sent) * set->count) {
        fail("%s: %llu messages received, %u sent to %u clients", set->path,
             (unsigned long long)(to.received - from.received), to.sent - from.sent, set->count);
        return;
    }
    printf("{\"messages\": %u, \"deliveries\": %llu, \"seconds\": %.6f, \"server_s\": %.9f, \"generator_s\": %.9f, "
           "\"frames\": %llu, \"reads\": %llu",
           to.sent - from.sent, (unsigned long long)(to.received - from.received), seconds,
           (double)(to.server - from.server) / 1e9, (double)(to.own - from.own) / 1e9,
           (unsigned long long)(to.frames - from.frames), (unsigned long long)(to.reads - from.reads));
}

static void answered_all(void)
{
    if (!broken)
        printf("}\n");
    fflush(stdout);
}

/* Write the set's next messages into one write of its first client. */
static void speak(struct set *set, int count)
{
    static char out[BURST_MAX * (HEAD_MAX + 65536)], text[65536];
    size_t length = 0, front = strlen(before), back = strlen(after);
    for (int i = 0; i < count; i++) {
        memcpy(text, before, front);
        int stamp = snprintf(text + front, sizeof text - front, "#%010u %020llu ", set->sent++,
                             (unsigned long long)clock_ns(CLOCK_MONOTONIC));
        size_t filled = front + (size_t)stamp;
        memset(text + filled, 'x', set->size - filled - back);
        memcpy(text + set->size - back, after, back);
        length += frame(out + length, TEXT, text, set->size, 0x3c96a50f);
    }
    put(&set->clients[0], out, length);
}

/* open <set> <path> <clients> <at a time> <bytes of a text> <quiet> <receive buffer>: `quiet` counts, and expects nothing */
static void command_open(struct set *set, const char *rest)
{
    char path[128];
    uint32_t count, together, size, started = 0;
    int quiet, buffer_bytes;
    if (sscanf(rest, "%127s %u %u %u %d %d", path, &count, &together, &size, &quiet, &buffer_bytes) != 6
        || size > 65535 || size < strlen(before) + strlen(after) + STAMP) {
        fail("open: %s", rest);
        return;
    }
    *set = (struct set){.count = count, .size = size, .quiet = quiet, .buffer_bytes = buffer_bytes};
    strcpy(set->path, path);
    set->clients = calloc(count, sizeof *set->clients);
    set->got = calloc(RING, sizeof *set->got);
    struct span from = look(set);
    while (started < count && !broken) {
        UNTIL(pending < (int)together, set, set->open);
        while (started < count && pending < (int)together && !broken)
            start(set, started++);
    }
    UNTIL(pending == 0, set, set->open);
    double seconds = (double)(clock_ns(CLOCK_MONOTONIC) - from.wall) / 1e9;
    settle();
    struct span to = look(set);
    if (!broken)
        printf("{\"clients\": %u, \"seconds\": %.6f, \"server_s\": %.9f", set->open, seconds,
               (double)(to.server - from.server) / 1e9);
}

/* close <set> <at a time>: with a close frame, until the server has closed */
static void command_close(struct set *set, const char *rest)
{
    int together = atoi(rest);
    uint32_t count = set->open;
    struct span from = look(set);
    for (uint32_t i = 0; i < set->count && !broken; i++) {
        struct client *client = &set->clients[i];
        if (client->state != JOINED)
            continue;
        UNTIL(pending < together, set, set->open);
        client->state = LEAVING;
        pending++;
        say(client, CLOSE, "\x03\xe8", 2);
    }
    UNTIL(pending == 0, set, set->open);
    double seconds = (double)(clock_ns(CLOCK_MONOTONIC) - from.wall) / 1e9;
    settle();
    struct span to = look(set);
    if (!broken)
        printf("{\"clients\": %u, \"seconds\": %.6f, \"server_s\": %.9f", count, seconds,
               (double)(to.server - from.server) / 1e9);
    free(set->clients), free(set->got), free(set->times);
    *set = (struct set){0};
}

/* saturate <set> <seconds> <writes at least> <messages a write> <ahead>: as many as the server takes

   The next write leaves when all have everything: so each is alone, and the server has no two that it could handle, and
   write, at once. With `ahead` it leaves when somebody has what the last write brought, and all what the one before. */
static void command_saturate(struct set *set, const char *rest)
{
    double seconds;
    uint32_t least, together, ahead;
    if (sscanf(rest, "%lf %u %u %u", &seconds, &least, &together, &ahead) != 4 || together < 1 || together > BURST_MAX) {
        fail("saturate: %s", rest);
        return;
    }
    struct span from = look(set);
    uint64_t until = from.wall + (uint64_t)(seconds * 1e9);
    awake = 1;
    while (!broken && (clock_ns(CLOCK_MONOTONIC) < until || set->sent - from.sent < least * together)) {
        speak(set, (int)together);
        UNTIL(set->sent - set->oldest <= ahead * together && set->begun == set->sent, set, set->received);
    }
    UNTIL(set->oldest == set->sent, set, set->received);
    awake = 0;
    answer(set, from);
}

/* rate <set> <messages> <messages a second> <fresh>: with the times from send to receipt, also those of all calls since
   the last one that was `fresh` */
static void command_rate(struct set *set, const char *rest)
{
    double each_second;
    uint32_t count;
    int fresh;
    if (sscanf(rest, "%u %lf %d", &count, &each_second, &fresh) != 3 || each_second <= 0) {
        fail("rate: %s", rest);
        return;
    }
    struct span from = look(set);
    size_t first = set->timed = fresh ? 0 : set->timed;
    uint64_t next = from.wall;
    set->timing = awake = 1;
    while (!broken && set->sent - from.sent < count) {
        if (clock_ns(CLOCK_MONOTONIC) >= next) {
            if (set->sent - set->oldest == RING)
                give_up(set);
            speak(set, 1);
            next += (uint64_t)(1e9 / each_second);
            continue;
        }
        struct itimerspec at = {.it_value = {(time_t)(next / 1000000000u), (long)(next % 1000000000u)}};
        timerfd_settime(ticker, TFD_TIMER_ABSTIME, &at, NULL);
        turn(1000);
    }
    UNTIL(set->oldest == set->sent, set, set->received);
    set->timing = awake = 0;
    answer(set, from);
    if (broken)
        return;
    size_t timed = set->timed - first;
    uint32_t *times = malloc((set->timed + 1) * sizeof *times);
    for (int all = 0; all < 2; all++) {
        const char *name = all ? "all_" : "";
        size_t many = all ? set->timed : timed;
        memcpy(times, set->times + (all ? 0 : first), many * sizeof *times);
        qsort(times, many, sizeof *times, smaller);
        printf(", \"%sp50_ms\": %.4f, \"%sp99_ms\": %.4f, \"%smax_ms\": %.4f", name, part(times, many, 0.5), name,
               part(times, many, 0.99), name, part(times, many, 1));
    }
    free(times);
}

/* stop <set>: read nothing more */
static void command_stop(struct set *set, const char *rest)
{
    (void)rest;
    for (uint32_t i = 0; i < set->count; i++)
        if (set->clients[i].fd >= 0)
            epoll_ctl(poller, EPOLL_CTL_DEL, set->clients[i].fd, NULL);
    printf("{\"received\": %llu", (unsigned long long)set->received);
}

/* drain <set>: read again, until nothing comes for half a second; what came, and how many clients the server has closed */
static void command_drain(struct set *set, const char *rest)
{
    (void)rest;
    for (uint32_t i = 0; i < set->count; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = &set->clients[i]};
        if (set->clients[i].fd >= 0)
            epoll_ctl(poller, EPOLL_CTL_ADD, set->clients[i].fd, &event);
    }
    uint64_t before_count = UINT64_MAX;
    while (before_count != set->received && !broken) {
        before_count = set->received;
        for (uint64_t until = clock_ns(CLOCK_MONOTONIC) + 500000000u; clock_ns(CLOCK_MONOTONIC) < until;)
            turn(50);
    }
    printf("{\"received\": %llu, \"closed\": %llu", (unsigned long long)set->received, (unsigned long long)set->closed);
}

static const struct {
    const char *name;
    void (*run)(struct set *, const char *);
} commands[] = {
    {"open", command_open}, {"close", command_close}, {"saturate", command_saturate}, {"rate", command_rate},
    {"stop", command_stop}, {"drain", command_drain},
};

static void command(char *line)
{
    char name[16];
    int number, used = 0;
    if (sscanf(line, "%15s %d %n", name, &number, &used) == 2 && number >= 0 && number < SETS)
        for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
            if (!strcmp(commands[i].name, name)) {
                commands[i].run(&sets[number], line + used);
                answered_all();
                return;
            }
    fail("no such command: %s", line);
}
