"""The Lua scripts of worker channels and of the registry that binds them to groups. Nothing here does I/O.

A queue is five keys in one slot of a cluster: ``:w`` the line (ZSET, id scored by id), ``:l`` what is leased (ZSET, id
scored by the lease's end), ``:m`` the messages (HASH, id -> bytes), ``:s`` their states (HASH, id -> "deliveries
deadline expiry", and under "n" the last id), ``:r`` the nodes that wait to be woken (ZSET by when they began to).

Ids are microseconds of the server's clock, made to rise: they never come again, even after the keys are gone, so a
late acknowledgement never meets another message. Every time is the server's. A message that comes back, because it was
released or its reader died, has its whole expiry before it again: what it spent being handled was no waiting.
Each script does a bounded piece of work: the server is never blocked.

Runs on Redis from 6.2 and on Valkey. Numbers are written with ``%.0f``, because Lua would round them to 14 digits.
"""

from __future__ import annotations

from hashlib import sha1

__all__ = ["ACK", "BIND", "BOUND", "LEASE", "NUDGE", "PARTS", "PUT", "RELEASE", "RENEW", "UNBIND", "Script"]

# What a queue's keys end in, in the order the scripts take them.
PARTS = (b":w", b":l", b":m", b":s", b":r")


class Script:
    """A Lua text and the digest by which the server knows it."""

    __slots__ = ("sha", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.sha = sha1(text.encode(), usedforsecurity=False).hexdigest()

    def __repr__(self) -> str:
        return f"<Script {self.sha[:8]}>"


_QUEUE = """
local t = redis.call('TIME')
local NOW_US = t[1] * 1000000 + t[2]
local NOW = math.floor(NOW_US / 1000)
local SOME = 100             -- how many messages one call clears away
local WAITER_MS = 5000       -- a node that began to wait longer ago is gone: readers look again every 2 s
local SLACK_MS = 3600000     -- what was abandoned is kept so long beyond its time, to be found and counted

local function digits(n) return string.format('%.0f', n) end

local function at(i)
  return {w = KEYS[i], l = KEYS[i + 1], m = KEYS[i + 2], s = KEYS[i + 3], r = KEYS[i + 4]}
end
local Q = at(1)

local function state(q, id)
  local found = redis.call('HGET', q.s, id)
  if not found then return nil end
  local count, deadline, expiry = string.match(found, '^(%d+) (%d+) (%d+)$')
  return tonumber(count), tonumber(deadline), tonumber(expiry)
end

local function note(q, id, count, deadline, expiry)
  redis.call('HSET', q.s, id, digits(count) .. ' ' .. digits(deadline) .. ' ' .. digits(expiry))
end

local function keep(q, ms)
  for _, key in ipairs({q.w, q.l, q.m, q.s}) do
    local left = redis.call('PTTL', key)
    if left ~= -2 and left < ms + SLACK_MS then redis.call('PEXPIRE', key, digits(2 * (ms + SLACK_MS))) end
  end
end

local function drop(q, id)
  redis.call('ZREM', q.w, id)
  redis.call('ZREM', q.l, id)
  redis.call('HDEL', q.m, id)
  redis.call('HDEL', q.s, id)
end

local function tidy(q)
  if redis.call('EXISTS', q.w, q.l) == 0 then redis.call('DEL', q.m, q.s) end
end

-- One node that waits, and that there still is, learns that there is something to read.
local function wake(q, publish)
  local channel = string.sub(q.w, 1, -3) .. 'w:'
  while true do
    local first = redis.call('ZPOPMIN', q.r)
    if not first[1] then return end
    if tonumber(first[2]) > NOW - WAITER_MS and redis.call(publish, channel .. first[1], '') > 0 then return end
  end
end

local function line_up(q, id, count, expiry)
  redis.call('ZADD', q.w, id, id)
  note(q, id, count, NOW + expiry, expiry)
end

local function append(q, blob, expiry)
  local last = tonumber(redis.call('HGET', q.s, 'n') or '0')
  local id = digits(math.max(last + 1, NOW_US))
  redis.call('HSET', q.s, 'n', id)
  redis.call('HSET', q.m, id, blob)
  line_up(q, id, 0, expiry)
  keep(q, expiry)
end

-- The head of the line alone: those behind it are younger, or are looked at when they are the head.
local function purge(q)
  local n = 0
  while n < SOME do
    local id = redis.call('ZRANGE', q.w, 0, 0)[1]
    if not id then break end
    local count, deadline = state(q, id)
    if count and deadline > NOW then break end
    drop(q, id)
    n = n + 1
  end
  return n
end

local function size(q) return redis.call('ZCARD', q.w) + redis.call('ZCARD', q.l) end

-- To the dead queue, KEYS 6 to 10; 1 when that is full, and the message is gone.
local function bury(id, publish, capacity, expiry)
  local blob = redis.call('HGET', Q.m, id)
  drop(Q, id)
  local dead = at(6)
  purge(dead)
  if not blob or size(dead) >= capacity then return 1 end
  append(dead, blob, expiry)
  wake(dead, publish)
  return 0
end
"""

# KEYS: the queue. ARGV: PUBLISH or SPUBLISH, capacity, expiry ms, message; to undo an ack: its id and delivery count.
# Returns {1 or 0 when full, expired}.
PUT = Script(
    _QUEUE
    + """
local capacity, expiry, blob = tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local expired = purge(Q)
if ARGV[5] then
  local id, count = ARGV[5], state(Q, ARGV[5])
  if not count or count == tonumber(ARGV[6]) then  -- or the ack never came, and nobody else has it
    redis.call('ZREM', Q.l, id)
    redis.call('HSET', Q.m, id, blob)
    line_up(Q, id, tonumber(ARGV[6]) - 1, expiry)
    keep(Q, expiry)
  end
elseif size(Q) >= capacity then
  return {0, expired}
else
  append(Q, blob, expiry)
end
wake(Q, ARGV[1])
return {1, expired}
"""
)

# KEYS: the queue, its dead queue. ARGV: PUBLISH or SPUBLISH, node, how many, lease ms, deliveries before it is dead (0:
# never), capacity and expiry ms of the dead queue, "1" if the node can be woken.
# Returns {expired, dead, dead that found no room, 1 when the rest is for another call, id, count, expiry ms, message…}.
LEASE = Script(
    _QUEUE
    + """
local publish, node, wanted, lease, most = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
-- First of all, a write that a full server allows: it then allows those that follow, and the queue can be drained.
redis.call('ZREM', Q.r, node)
local expired, dead, gone = 0, 0, 0
local lapsed = redis.call('ZRANGEBYSCORE', Q.l, '-inf', digits(NOW), 'LIMIT', 0, SOME)
for _, id in ipairs(lapsed) do
  redis.call('ZREM', Q.l, id)
  local count, _, expiry = state(Q, id)
  if not count then
    drop(Q, id)
    expired = expired + 1
  elseif most > 0 and count >= most then
    dead = dead + 1
    gone = gone + bury(id, publish, tonumber(ARGV[6]), tonumber(ARGV[7]))
  else
    line_up(Q, id, count, expiry)
  end
end
local reply = {0, 0, 0, 0}
local taken, work = 0, SOME
while taken < wanted and work > 0 do
  work = work - 1
  local id = redis.call('ZPOPMIN', Q.w)[1]
  if not id then break end
  local count, deadline, expiry = state(Q, id)
  local blob = count and deadline > NOW and redis.call('HGET', Q.m, id)
  if blob then
    taken = taken + 1
    redis.call('ZADD', Q.l, digits(NOW + lease), id)
    note(Q, id, count + 1, 0, expiry)
    table.insert(reply, id)
    table.insert(reply, count + 1)
    table.insert(reply, expiry)
    table.insert(reply, blob)
  else
    drop(Q, id)
    expired = expired + 1
  end
end
local left = redis.call('EXISTS', Q.w)
if left == 1 then
  wake(Q, publish)
elseif taken < wanted and ARGV[8] == '1' then
  redis.call('ZADD', Q.r, digits(NOW), node)
  redis.call('PEXPIRE', Q.r, 2 * WAITER_MS)
end
if taken > 0 or #lapsed > 0 then keep(Q, lease) end
if expired + dead > 0 then tidy(Q) end
reply[1], reply[2], reply[3] = expired, dead, gone
if taken < wanted and left == 1 then reply[4] = 1 end
return reply
"""
)

# KEYS: the queue. ARGV: ids. Returns how many there were. One whose lease had lapsed counts too: it was handled.
ACK = Script(
    _QUEUE
    + """
local n = 0
for _, id in ipairs(ARGV) do
  n = n + redis.call('HEXISTS', Q.m, id)
  drop(Q, id)
end
tidy(Q)
return n
"""
)

# KEYS: the queue, its dead queue. ARGV: PUBLISH or SPUBLISH, deliveries before it is dead, capacity and expiry ms of the
# dead queue; then for each: id, its delivery count (an older lease's word is void), "1" if nobody saw it.
# Returns {dead, dead that found no room}.
RELEASE = Script(
    _QUEUE
    + """
local publish, most = ARGV[1], tonumber(ARGV[2])
local dead, gone = 0, 0
for i = 5, #ARGV, 3 do
  local id = ARGV[i]
  local count, _, expiry = state(Q, id)
  if count == tonumber(ARGV[i + 1]) and redis.call('ZREM', Q.l, id) == 1 then
    if ARGV[i + 2] == '1' then
      line_up(Q, id, count - 1, expiry)
      wake(Q, publish)
    elseif most > 0 and count >= most then
      dead = dead + 1
      gone = gone + bury(id, publish, tonumber(ARGV[3]), tonumber(ARGV[4]))
    else
      line_up(Q, id, count, expiry)
      wake(Q, publish)
    end
    if expiry then keep(Q, expiry) end
  end
end
if dead > 0 then tidy(Q) end
return {dead, gone}
"""
)

# KEYS: the queue. ARGV: lease ms; then for each: id, its delivery count. Returns the ids that others have by now.
RENEW = Script(
    _QUEUE
    + """
redis.call('ZREM', Q.l, '')  -- a write that a full server allows: see LEASE
local lease, lost = tonumber(ARGV[1]), {}
for i = 2, #ARGV, 2 do
  local id = ARGV[i]
  -- One whose lease lapsed and that nobody took yet is in the line, or about to be: its reader lives after all.
  if state(Q, id) == tonumber(ARGV[i + 1]) then
    redis.call('ZREM', Q.w, id)
    redis.call('ZADD', Q.l, digits(NOW + lease), id)
  else
    table.insert(lost, id)
  end
end
keep(Q, lease)
return lost
"""
)

# KEYS: the queue. ARGV: PUBLISH or SPUBLISH. For a node that was woken when nobody of it waited any more.
NUDGE = Script(
    _QUEUE
    + """
if redis.call('EXISTS', Q.w) == 1 then wake(Q, ARGV[1]) end
return 0
"""
)

# KEYS: the registry. ARGV: ttl ms, member. Written only when a tenth of its time is over: every process then reads the
# registry again. Returns 1 when it was written.
BIND = Script(
    """
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local ttl = tonumber(ARGV[1])
local until_ms = redis.call('ZSCORE', KEYS[1], ARGV[2])
if until_ms and tonumber(until_ms) - now > 0.9 * ttl then return 0 end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now))
redis.call('ZADD', KEYS[1], string.format('%.0f', now + ttl), ARGV[2])
local last = redis.call('ZREVRANGE', KEYS[1], 0, 0, 'WITHSCORES')[2]
redis.call('PEXPIREAT', KEYS[1], string.format('%.0f', tonumber(last)))
return 1
"""
)

# KEYS: the registry. ARGV: members. Returns how many there were.
UNBIND = Script(
    """
local n = 0
for _, member in ipairs(ARGV) do n = n + redis.call('ZREM', KEYS[1], member) end
return n
"""
)

# KEYS: the registry. Returns {now ms, member, until ms, …}.
BOUND = Script(
    """
local t = redis.call('TIME')
local now = string.format('%.0f', t[1] * 1000 + math.floor(t[2] / 1000))
local reply = redis.call('ZRANGEBYSCORE', KEYS[1], now, '+inf', 'WITHSCORES')
table.insert(reply, 1, now)
return reply
"""
)
