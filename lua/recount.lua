#!lua flags=no-writes,allow-oom
-- recount: one bounded step of adding up what the stored jobs should be charged.
--
-- KEYS  1 state  2 jobs  3 dead  4 errors  5 unique  6 windows
-- ARGV  1 cursor  2 count: envelopes to look at, about
-- RETURNS {OK, cursor, live jobs, live bytes, dead jobs, dead bytes, unique bytes, dead letters}; cursor "0": done
--   unique bytes  charged for unique keys and windows now, in live bytes; the same in every step
--   dead letters  ids in dead now, with or without a job: what `dead_jobs` should say; the same in every step
--   UNDECLARED BAD_FORMAT
-- COST O(count). HSCAN may show a job twice while the hash is being resized: the caller compares counts.

-- @include lib/status
-- @include lib/charge
-- @include lib/layout
-- @include lib/unique
-- @include lib/dead

local s = redis.call('HMGET', KEYS[1], 'format', 'cost')
if s[1] ~= '1' then return { s[1] and BAD_FORMAT or UNDECLARED } end
local cost = tonumber(s[2])
local found = redis.call('HSCAN', KEYS[2], ARGV[1], 'COUNT', ARGV[2])
local jobs, bytes, dead_jobs, dead_bytes = 0, 0, 0, 0
for i = 1, #found[2], 2 do
  local id, size = found[2][i], #found[2][i + 1]
  if redis.call('ZSCORE', KEYS[3], id) then
    dead_jobs = dead_jobs + 1
    dead_bytes = dead_bytes + charge_of(size, cost) + text_charge(redis.call('HSTRLEN', KEYS[4], id), cost)
  else
    jobs, bytes = jobs + 1, bytes + charge_of(size, cost)
  end
end
local keys = redis.call('HLEN', KEYS[5]) * UNIQUE + redis.call('ZCARD', KEYS[6]) * WINDOW
return { OK, found[1], jobs, bytes, dead_jobs, dead_bytes, keys, redis.call('ZCARD', KEYS[3]) }
