"""The Lua scripts of logs. Nothing here does I/O.

A log is two keys in the slot of its topic's channel: ``m`` a HASH (e epoch, s offset of the last entry, r origin of the server
that it was last written or read on, under that origin the epoch once more, b breaks, v and w version and its epoch), ``h`` a
STREAM whose ids are ``<offset>-0``, with the payload in the field ``d``; and for each idempotency key of a sender a STRING,
"offset epoch".

The epoch changes when the log is new, and when the server has another origin than the one that wrote it last: after a
restart or a failover nobody can say whether its end is the end that was sent to the nodes. What the earlier epoch had
is then written down as a break, "epoch:top": a position of that epoch is good as long as it is not beyond the top.

What goes to the channel is ``P<offset>:<epoch>:`` and the payload. Runs on Redis from 6.2 and on Valkey.
"""

from __future__ import annotations

from .scripts import Script

__all__ = ["APPEND", "READ", "TOPS"]

_LOG = """
local META_S = 2592000       -- a log without messages keeps its place for so long: positions in it stay good
local UNKNOWN = '----------------'
local origin = ARGV[1]

local function new_epoch()
  local t = redis.call('TIME')
  return string.format('%x%05x', t[1], t[2]) .. string.sub(origin, 1, 2)
end

local function begin(meta, log, top)
  local epoch = new_epoch()
  redis.call('DEL', log)
  redis.call('HDEL', meta, 'b', 'v', 'w', redis.call('HGET', meta, 'r') or '')
  redis.call('HSET', meta, 'e', epoch, 's', top, 'r', origin, origin, epoch)
  redis.call('EXPIRE', meta, META_S)
  return epoch
end

-- Epoch and top of a log; a new epoch where nobody can vouch for the end of the last one.
local function current(meta, log)
  local m = redis.call('HMGET', meta, 'e', 's', 'r')
  local epoch, top, known = m[1], m[2], m[3]
  if not epoch then return begin(meta, log, 0), 0 end
  if known ~= origin and origin ~= UNKNOWN then
    if known == UNKNOWN then
      redis.call('HSET', meta, 'r', origin, origin, epoch)
    else
      local breaks = epoch .. ':' .. top .. ',' .. (redis.call('HGET', meta, 'b') or '')
      epoch = new_epoch()
      redis.call('HSET', meta, 'e', epoch, 'r', origin, origin, epoch, 'b', string.sub(breaks, 1, 400))
    end
    redis.call('HDEL', meta, known)
  end
  return epoch, tonumber(top)
end
"""

# KEYS: meta, log, and where a sender gave one, its idempotency key. ARGV: origin, size, ttl ms ("-" before it: the
# sender has renewed that a moment ago), PUBLISH or SPUBLISH, 1 when it may have been sent before; in the long form version, its
# epoch, ttl ms of the idempotency key; the payload.
# Returns "offset:epoch:nodes", and ":duplicate" or ":suppressed". A string, and no function on the way that all take: a
# table would cost a fifth of the whole, a function 3 %. So for what is read first, epoch and origin in one: HMGET costs 5 %
# more than HGET. A number becomes a string only once: each time takes 3 %.
APPEND = Script(
    """
local meta, log, origin, payload = KEYS[1], KEYS[2], ARGV[1], ARGV[#ARGV]
local call = redis.call
local epoch = call('HGET', meta, origin)
if not epoch then
"""
    + _LOG
    + """
  epoch = current(meta, log)
end
if KEYS[3] then
  local had = call('GET', KEYS[3])
  if had then return had .. ':0:duplicate' end
end
if ARGV[5] == '1' then
  local id = string.sub(payload, 5, 20)
  for _, entry in ipairs(call('XREVRANGE', log, '+', '-', 'COUNT', 1000)) do
    if string.sub(entry[2][2], 5, 20) == id then
      return string.match(entry[1], '^%d+') .. ':' .. epoch .. ':0:duplicate'
    end
  end
end
local version = #ARGV > 6 and tonumber(ARGV[6]) or 0
if version > 0 then
  local last = call('HMGET', meta, 'v', 'w', 's')
  if last[1] and last[2] == ARGV[7] and tonumber(last[1]) >= version then
    return last[3] .. ':' .. epoch .. ':0:suppressed'
  end
end
local offset = call('HINCRBY', meta, 's', 1)
local at = offset .. ''
local added
if offset % 64 ~= 0 then
  added = redis.pcall('XADD', log, 'NOMKSTREAM', at .. '-0', 'd', payload)
else  -- a stream drops whole blocks of 100 entries: looking for one each time would find none
  added = redis.pcall('XADD', log, 'NOMKSTREAM', 'MAXLEN', '~', ARGV[2], at .. '-0', 'd', payload)
end
local renew = string.byte(ARGV[3]) ~= 45
if not added then
  -- It has expired, or is new. Who makes it sets its end too, whoever took himself to have renewed it.
  added = redis.pcall('XADD', log, at .. '-0', 'd', payload)
  renew = true
end
if added.err then
  if not string.find(added.err, 'equal or smaller', 1, true) then
    call('HINCRBY', meta, 's', -1)
    return added
  end
  -- The log survived what said where it ends: nothing in it can be told from what is yet to come.
"""
    + _LOG
    + """
  offset, at = 1, '1'
  epoch = begin(meta, log, 1)
  call('XADD', log, '1-0', 'd', payload)
  renew = true
end
if renew then call('PEXPIRE', log, (string.gsub(ARGV[3], '-', ''))) end
if offset % 256 == 1 then call('EXPIRE', meta, 2592000) end
local head = at .. ':' .. epoch .. ':'
if version > 0 then call('HSET', meta, 'v', ARGV[6], 'w', ARGV[7]) end
if KEYS[3] then call('SET', KEYS[3], string.sub(head, 1, -2), 'PX', ARGV[8]) end
return head .. call(ARGV[4], string.sub(meta, 1, -2), 'P' .. head .. payload)
"""
)

# KEYS: meta, log. ARGV: origin, epoch and offset of the position to read after ("" for all), limit, "1" for reverse.
# Returns {epoch, top, 1 when complete, offset, payload, …}.
READ = Script(
    _LOG
    + """
local meta, log = KEYS[1], KEYS[2]
local epoch, top = current(meta, log)
local complete, since = 1, tonumber(ARGV[3])
if since then
  local good = ARGV[2] == epoch and since <= top
  if not good then
    for its, last in string.gmatch(redis.call('HGET', meta, 'b') or '', '([^:,]+):(%d+),') do
      if its == ARGV[2] and since <= tonumber(last) then good = true end
    end
  end
  local first = redis.call('XRANGE', log, '-', '+', 'COUNT', 1)[1]
  local kept = first and tonumber(string.match(first[1], '^%d+')) or top + 1
  if not good or since < kept - 1 then complete = 0 end
end
local reply = {epoch, top, complete}
local limit = tonumber(ARGV[4])
if limit > 0 then
  local from = since and string.format('%.0f', since + 1) .. '-0' or '-'
  local entries
  if ARGV[5] == '1' then
    entries = redis.call('XREVRANGE', log, '+', from, 'COUNT', ARGV[4])
  else
    entries = redis.call('XRANGE', log, from, '+', 'COUNT', ARGV[4])
  end
  for _, entry in ipairs(entries) do
    table.insert(reply, tonumber(string.match(entry[1], '^%d+')))
    table.insert(reply, entry[2][2])
  end
end
return reply
"""
)

# KEYS: meta and log of one topic, or of several. ARGV: origin. Returns {epoch, top, …}.
TOPS = Script(
    _LOG
    + """
local reply = {}
for i = 1, #KEYS, 2 do
  local epoch, top = current(KEYS[i], KEYS[i + 1])
  table.insert(reply, epoch)
  table.insert(reply, top)
end
return reply
"""
)
