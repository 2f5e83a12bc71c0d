"""
What Redis itself decides about a stream, in Lua.

A stream is three keys, which share a hash tag with all streams of their run:

- the head, a hash: ``generation``, ``next`` (index of the next chunk), ``bytes``, ``closed``, and
  for each writer ``w:<writer>``, its highest index
- the log, a Redis stream: chunk 5 has the id ``6-<milliseconds>``, so that it is found by its
  index, and its time is kept
- the presences, a sorted set: connections of writers by the millisecond until which they count

and a set of the run names its streams. All expire together when nobody has written for long. News
of a stream are published on the shard channel with the name of its head, as
``<generation> <next> <closed> <gateway>``.
"""

from runcast.redis.courier import Script

_PREAMBLE = """
local head, log, open, run = KEYS[1], KEYS[2], KEYS[3], KEYS[4]

local function text(number) return string.format('%.0f', number) end

local function now()
    local time = redis.call('TIME')
    return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

local function keep(milliseconds)
    for _, key in ipairs(KEYS) do redis.call('PEXPIRE', key, milliseconds) end
end

local function tell(generation, reached, closed, gateway)
    local news = generation .. ' ' .. text(reached) .. ' ' .. (closed and 1 or 0) .. ' ' .. gateway
    redis.call('SPUBLISH', head, news)
end
"""

# Arguments: the generation that the gateway knows (0: none) and how far it was, a new generation,
# the most bytes, how long to keep, the gateway; then for each append its writer ('': none), the
# writer's index of the first chunk, how many there are, and their texts.
# Answers {0} if what the gateway knows is gone, otherwise the generation, how far it is now, the
# time, and for each append {how many were new, up to which index its writer's were known before};
# -1: closed, -2: full.
APPEND = Script(
    _PREAMBLE
    + """
local known, reached, fresh, most, lasting, gateway =
    ARGV[1], tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4]), ARGV[5], ARGV[6]
local found = redis.call('HMGET', head, 'generation', 'next', 'bytes', 'closed')
local generation, next, bytes = found[1] or fresh, tonumber(found[2] or 0), tonumber(found[3] or 0)
local closed = found[4]
if known ~= '0' then
    if not found[1] or known ~= generation then return {0} end
    if next < reached then
        -- The end of the stream is gone with a server: what follows is another stream.
        redis.call('HSET', head, 'generation', fresh)
        tell(fresh, next, closed, '-')
        return {0}
    end
end

local time, begin = now(), next
local last, changed = {}, {}
local function last_of(writer)
    if not last[writer] then
        last[writer] = tonumber(redis.call('HGET', head, 'w:' .. writer) or -1)
    end
    return last[writer]
end

local answer, at = {tonumber(generation), 0, time}, 7
while at <= #ARGV do
    local writer, first, count = ARGV[at], tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
    local known = writer == '' and -1 or last_of(writer)
    local skipped = writer == '' and 0 or math.min(count, math.max(0, known + 1 - first))
    local new, size = count - skipped, 0
    at = at + 3
    for place = at + skipped, at + count - 1 do size = size + #ARGV[place] end
    if new > 0 and closed then
        answer[#answer + 1] = {-1, known}
    elseif new > 0 and bytes + size > most then
        answer[#answer + 1] = {-2, known}
    else
        for place = at + skipped, at + count - 1 do
            next = next + 1
            redis.call('XADD', log, text(next) .. '-' .. text(time), '', ARGV[place])
        end
        bytes = bytes + size
        if new > 0 and writer ~= '' then
            last[writer] = first + count - 1
            changed[writer] = true
        end
        answer[#answer + 1] = {new, known}
    end
    at = at + count
end
if next > begin then
    local fields = {'generation', generation, 'next', text(next), 'bytes', text(bytes)}
    redis.call('HSET', head, unpack(fields))
    for writer in pairs(changed) do redis.call('HSET', head, 'w:' .. writer, text(last[writer])) end
    redis.call('SADD', run, head)
    keep(lasting)
    tell(generation, next, closed, gateway)
end
if not found[1] and next == begin then answer[1] = 0.0 end
answer[2] = next
return answer
"""
)

# Arguments: a new generation, how long to keep.
CLOSE = Script(
    _PREAMBLE
    + """
redis.call('HSETNX', head, 'generation', ARGV[1])
redis.call('SADD', run, head)
keep(ARGV[2])
if redis.call('HSETNX', head, 'closed', 1) == 1 then
    local found = redis.call('HMGET', head, 'generation', 'next')
    tell(found[1], tonumber(found[2] or 0), true, '-')
end
"""
)

# Arguments: the presence, for how long it counts (0: it ended), how long to keep.
HOLD = Script(
    _PREAMBLE
    + """
if ARGV[2] ~= '0' then
    local time = now()
    redis.call('ZREMRANGEBYSCORE', open, '-inf', text(time))
    redis.call('ZADD', open, text(time + tonumber(ARGV[2])), ARGV[1])
    redis.call('SADD', run, head)
else
    redis.call('ZREM', open, ARGV[1])
    local found = redis.call('HMGET', head, 'generation', 'next', 'closed')
    tell(found[1] or '0', tonumber(found[2] or 0), found[3], '-')
end
keep(ARGV[3])
"""
)

# Arguments: the writer.
LAST = Script("return tonumber(redis.call('HGET', KEYS[1], 'w:' .. ARGV[1]) or -1)")

# Arguments: the offset, the most chunks, the most bytes.
# Answers generation, index of the first chunk that is kept (0 where nothing is missing), how far it
# is, whether closed, whether held open, and then time and text of each chunk.
READ = Script(
    _PREAMBLE
    + """
local found = redis.call('HMGET', head, 'generation', 'next', 'closed')
local holders = redis.call('ZCOUNT', open, '(' .. text(now()), '+inf')
local next = tonumber(found[2] or 0)
local answer = {tonumber(found[1] or 0), 0, next, found[3] and 1 or 0, holders > 0 and 1 or 0}
local offset, most, bytes = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local at, count, size, step = offset, 0, 0, 16
while count < most and at < next do
    local page = redis.call('XRANGE', log, text(at + 1), '+', 'COUNT', math.min(step, most - count))
    if #page == 0 then
        if count == 0 then answer[2] = next end
        break
    end
    for _, entry in ipairs(page) do
        local place, time = string.match(entry[1], '^(%d+)-(%d+)$')
        if count == 0 and tonumber(place) - 1 > offset then answer[2] = tonumber(place) - 1 end
        size = size + #entry[2][2]
        if count > 0 and size > bytes then return answer end
        answer[#answer + 1] = tonumber(time)
        answer[#answer + 1] = entry[2][2]
        count, at = count + 1, tonumber(place)
    end
    step = math.min(4 * step, 1000)
end
return answer
"""
)

# Answers generation, how far it is, whether closed.
LOOK = Script(
    """
local found = redis.call('HMGET', KEYS[1], 'generation', 'next', 'closed')
return {tonumber(found[1] or 0), tonumber(found[2] or 0), found[3] and 1 or 0}
"""
)

# Forgets all streams of a run.
DROP = Script(
    """
for _, head in ipairs(redis.call('SMEMBERS', KEYS[1])) do
    redis.call('DEL', head, head .. ':log', head .. ':open')
end
redis.call('DEL', KEYS[1])
"""
)
