"""The Lua scripts of presence. Nothing here does I/O.

A group is four kinds of keys in one slot of a cluster:

    :m:<node>  ZSET, all scores 0: the connections of one node, in the order of their channels
    :a         ZSET likewise: the last connection of each user whose grace runs
    :d         ZSET, user scored by when the grace ends
    :u         HASH, user -> how many connections; or "=" and the entry in ``:a`` while the grace runs

An entry is its channel, NUL, the length of the user's key, ":", the key, the info. Ordered by channel, because one
page of a roster then begins where the last one ended, whatever came and went meanwhile; and of one node, because so a
node's connections are counted in constant time, and hidden at once when it dies.

The leases are in a slot of their own, with what is known of each node:

    {leases}          ZSET, node scored by when its lease ends
    {leases}:s        ZSET, nodes that were claimed by who sweeps them (score 0), or swept (scored by when)
    {leases}:b        HASH, dead node -> by whom it is being swept, NUL, until when
    {leases}:g:<node> HASH, groups in which it has entries -> ""
    {leases}:o:<node> HASH, users who are connected to it -> ""

Hashes stand for sets: the account that SECURITY.md recommends may use no others. A script of a group never looks at
leases: whoever calls says which nodes live. Times are those of the server.
"""

from __future__ import annotations

from .scripts import Script

__all__ = [
    "CHANGE",
    "CLAIM",
    "END",
    "FINISH",
    "FORGET",
    "GROUPS",
    "NOTE",
    "ONLINE",
    "PAGE",
    "RENEW_NODE",
    "STATS",
    "SWEEP",
    "SWEPT",
]

_NOW = """
local t = redis.call('TIME')
local NOW = t[1] * 1000 + math.floor(t[2] / 1000)
local function digits(n) return string.format('%.0f', n) end
"""

_GROUP = (
    _NOW
    + """
local U, A, D, M = KEYS[1], KEYS[2], KEYS[3], KEYS[4]

local function user_of(entry)
  local at = string.find(entry, '\\0', 1, true)
  local colon = string.find(entry, ':', at, true)
  return string.sub(entry, colon + 1, colon + tonumber(string.sub(entry, at + 1, colon - 1)))
end

-- The count of a user's connections, or the entry of one whose grace runs.
local function of(user)
  local found = redis.call('HGET', U, user)
  if found and string.byte(found) == 61 then return 0, string.sub(found, 2) end
  return tonumber(found or '0'), nil
end

local function take_back(user, away)
  redis.call('ZREM', D, user)
  redis.call('ZREM', A, away)
end
"""
)

# KEYS: u, a, d, m of the node. ARGV: grace ms; then for each: "+" enters, "=" enters once more (nobody knows what came of
# the first), "-" leaves; its entry. Returns for each 1: the user's first; 2: the last, the grace runs; 3: it is
# not there; 0.
CHANGE = Script(
    _GROUP
    + """
local until_ms, words = digits(NOW + tonumber(ARGV[1])), {}
for i = 2, #ARGV, 2 do
  local kind, entry, word = ARGV[i], ARGV[i + 1], 0
  local user = user_of(entry)
  if kind == '-' then
    if redis.call('ZREM', M, entry) == 1 then
      local count = of(user) - 1
      if count > 0 then
        redis.call('HSET', U, user, count)
      else
        redis.call('HSET', U, user, '=' .. entry)
        redis.call('ZADD', A, 0, entry)
        redis.call('ZADD', D, until_ms, user)
        word = 2
      end
    else
      word = 3
    end
  elseif redis.call('ZADD', M, 0, entry) == 1 then
    local count, away = of(user)
    if away then take_back(user, away) elseif count == 0 then word = 1 end
    redis.call('HSET', U, user, count + 1)
  elseif kind == '=' and of(user) == 1 then
    word = 1
  end
  table.insert(words, word)
end
return words
"""
)

# KEYS: u, a, d. ARGV: how many. Returns {ms until the next is due, or -1, entry…}.
FINISH = Script(
    _GROUP
    + """
local reply = {-1}
for _, user in ipairs(redis.call('ZRANGEBYSCORE', D, '-inf', digits(NOW), 'LIMIT', 0, ARGV[1])) do
  local _, away = of(user)
  take_back(user, away or '')
  if away then
    redis.call('HDEL', U, user)
    table.insert(reply, away)
  end
end
local next = redis.call('ZRANGE', D, 0, 0, 'WITHSCORES')[2]
if next then reply[1] = math.max(0, tonumber(next) - NOW) end
return reply
"""
)

# KEYS: u, a, d, m of the dead node. ARGV: how many. Returns {how many are left, entries that were their user's last…}.
SWEEP = Script(
    _GROUP
    + """
local reply = {0}
for _, entry in ipairs(redis.call('ZRANGE', M, 0, tonumber(ARGV[1]) - 1)) do
  redis.call('ZREM', M, entry)
  local user = user_of(entry)
  local count, away = of(user)
  if count > 1 then
    redis.call('HSET', U, user, count - 1)
  elseif not away then
    redis.call('HDEL', U, user)
    table.insert(reply, entry)
  end
end
reply[1] = redis.call('ZCARD', M)
return reply
"""
)

# KEYS: u, m of each node. Returns {connections, users}.
STATS = Script(
    """
local count = 0
for i = 2, #KEYS do count = count + redis.call('ZCARD', KEYS[i]) end
return {count, redis.call('HLEN', KEYS[1])}
"""
)

# KEYS: m of each node, or a. ARGV: where to begin in the first, how many in all. Returns a list of entries for each key
# that was reached.
PAGE = Script(
    """
local start, left, reply = ARGV[1], tonumber(ARGV[2]), {}
for _, key in ipairs(KEYS) do
  local found = redis.call('ZRANGEBYLEX', key, start, '+', 'LIMIT', 0, left)
  table.insert(reply, found)
  start, left = '-', left - #found
  if left <= 0 then break end
end
return reply
"""
)

# KEYS: leases, s. ARGV: node or "", ttl ms. Returns {state, now, node, its end, when it was swept (-1: not)…}.
RENEW_NODE = Script(
    _NOW
    + """
local L, S, node, state = KEYS[1], KEYS[2], ARGV[1], 'kept'
if node ~= '' then
  if redis.call('ZSCORE', S, node) then
    state = 'over'
  elseif redis.call('ZADD', L, digits(NOW + tonumber(ARGV[2])), node) == 1 then
    state = 'new'
  end
end
local reply = {state, digits(NOW)}
local found = redis.call('ZRANGE', L, 0, -1, 'WITHSCORES')
for i = 1, #found, 2 do
  table.insert(reply, found[i])
  table.insert(reply, found[i + 1])
  table.insert(reply, redis.call('ZSCORE', S, found[i]) or '-1')
end
return reply
"""
)

# KEYS: leases. ARGV: node.
END = Script(
    _NOW
    + """
return redis.call('ZADD', KEYS[1], 'XX', 'LT', digits(NOW), ARGV[1])
"""
)

# KEYS: g, o of the node. ARGV: pairs "g+" "g-" "o+" "o-", name.
NOTE = Script(
    """
for i = 1, #ARGV, 2 do
  local key = string.byte(ARGV[i]) == 103 and KEYS[1] or KEYS[2]
  if string.byte(ARGV[i], 2) == 43 then redis.call('HSET', key, ARGV[i + 1], '')
  else redis.call('HDEL', key, ARGV[i + 1]) end
end
return 0
"""
)

# KEYS: leases, s, b. ARGV: dead, by whom, dead for ms, claim ms. Returns 1 or 0.
CLAIM = Script(
    _NOW
    + """
local ended = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not ended or tonumber(ended) + tonumber(ARGV[3]) > NOW then return 0 end
local by, until_ms = string.match(redis.call('HGET', KEYS[3], ARGV[1]) or '', '^(.*)%z(%d+)$')
if by and by ~= ARGV[2] and tonumber(until_ms) > NOW then return 0 end
redis.call('HSET', KEYS[3], ARGV[1], ARGV[2] .. '\0' .. digits(NOW + tonumber(ARGV[4])))
redis.call('ZADD', KEYS[2], 'NX', 0, ARGV[1])
return 1
"""
)

# KEYS: s. ARGV: dead.
SWEPT = Script(
    _NOW
    + """
return redis.call('ZADD', KEYS[1], digits(NOW), ARGV[1])
"""
)

# KEYS: leases, s, b; g, o of the dead. ARGV: dead, how long names stay dead, ms.
FORGET = Script(
    _NOW
    + """
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('HDEL', KEYS[3], ARGV[1])
redis.call('DEL', KEYS[4], KEYS[5])
redis.call('ZREMRANGEBYSCORE', KEYS[2], 1, digits(NOW - tonumber(ARGV[2])))
return 0
"""
)

# KEYS: g of a node. ARGV: cursor, how many. Returns {cursor, [group, "", …]}.
GROUPS = Script(
    """
return redis.call('HSCAN', KEYS[1], ARGV[1], 'COUNT', ARGV[2])
"""
)

# KEYS: o of each node. ARGV: users. Returns 1 or 0 for each.
ONLINE = Script(
    """
local reply = {}
for i = 1, #ARGV do reply[i] = 0 end
for _, key in ipairs(KEYS) do
  local found = redis.call('HMGET', key, unpack(ARGV))
  for i = 1, #ARGV do
    if found[i] then reply[i] = 1 end
  end
end
return reply
"""
)
