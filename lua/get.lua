#!lua flags=no-writes,allow-oom
-- get: one job, wherever it is.
--
-- KEYS  1 state  2 jobs  3 leases  4..7 due0..due3  8 dead  9 errors
-- ARGV  1 id
-- RETURNS {OK, now ms, where, score, ahead, envelope, note}
--   where   ready | scheduled | active | dead     score  0 when ready
--   ahead   ready only: places between the job and the head of its ring, an upper bound; else -1
--   note    "reason\ntext" of a dead letter, else ""
--   ABSENT UNDECLARED BAD_FORMAT
-- COST O(log N)

-- @include lib/status
-- @include lib/clock
-- @include lib/where

local state, id = KEYS[1], ARGV[1]
local slot = tonumber(id) % 8
local s = redis.call('HMGET', state, 'format', 'head' .. slot % 4)
if s[1] ~= '1' then return { s[1] and BAD_FORMAT or UNDECLARED } end
local envelope = redis.call('HGET', KEYS[2], id)
if not envelope then return { ABSENT } end
local place, score = where_is(id, KEYS[3], KEYS[8], KEYS[4 + slot % 4])
local ahead = place == 'ready' and math.max(math.floor(tonumber(id) / 8) - tonumber(s[2]) - 1, 0) or -1
return { OK, now, place, string.format('%d', score), ahead, envelope, redis.call('HGET', KEYS[9], id) or '' }
