#!lua flags=allow-oom
-- purge: one bounded step of emptying a queue: up to n jobs of one state, oldest first. Ids are never used again.
--
-- KEYS
--   1 state  2 jobs  3 leases  4..7 due0..due3  8 dead  9 errors  10 unique  11 windows  12 room  13 turn
-- ARGV
--   1 which  ready | scheduled | active | dead   2 n  at most 300
-- RETURNS {OK, removed, more}: more 1: call again
--   UNDECLARED BAD_FORMAT
-- COST O(n log N)

-- @include lib/status
-- @include lib/charge
-- @include lib/clock
-- @include lib/layout
-- @include lib/envelope
-- @include lib/unique
-- @include lib/end_job
-- @include lib/where
-- @include lib/dead
-- @include lib/probe
-- @include lib/gate
-- @include lib/remove

local state, which, n = KEYS[1], ARGV[1], tonumber(ARGV[2])
local format = redis.call('HGET', state, 'format')
if format ~= '1' then return { format and BAD_FORMAT or UNDECLARED } end
probe_remove()
local ids = {}
if which == 'ready' then
  for k = 3, 0, -1 do
    local ring = redis.call('HMGET', state, 'head' .. k, 'tail' .. k)
    local head, tail = tonumber(ring[1]), tonumber(ring[2])
    local stop = math.min(tail, head + n - #ids)
    for seq = head + 1, stop do ids[#ids + 1] = string.format('%d', seq * 8 + k) end
    if stop > head then redis.call('HSET', state, 'head' .. k, stop) end
  end
elseif which == 'scheduled' then
  for k = 0, 3 do
    if #ids < n then
      for _, id in ipairs(redis.call('ZRANGE', KEYS[4 + k], 0, n - #ids - 1)) do ids[#ids + 1] = id end
    end
  end
else
  ids = redis.call('ZRANGE', which == 'dead' and KEYS[8] or KEYS[3], 0, n - 1)
end
local removed = remove_jobs(ids, 'purged')
return { OK, #removed, #ids == n and 1 or 0 }
