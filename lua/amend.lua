#!lua flags=allow-oom
-- amend: count jobs that are gone without a trace (evicted, deleted by hand, lost by a fail-over) as dropped, so that
-- the ledger is even again.
--
-- KEYS  1 state  2 jobs
-- RETURNS {OK, jobs}: how many were counted so; nothing is written where more are here than were admitted
--   UNDECLARED BAD_FORMAT
-- COST O(1)

-- @include lib/status

local s = redis.call('HMGET', KEYS[1], 'format', 'tail0', 'tail1', 'tail2', 'tail3', 'tail4', 'tail5', 'tail6', 'tail7',
  'acked', 'cancelled', 'expired', 'dropped', 'purged')
if s[1] ~= '1' then return { s[1] and BAD_FORMAT or UNDECLARED } end
local lost = -redis.call('HLEN', KEYS[2])
for i = 2, 9 do lost = lost + s[i] end
for i = 10, 14 do lost = lost - s[i] end
if lost <= 0 then return { OK, 0 } end
redis.call('HINCRBY', KEYS[1], 'dropped', lost)
return { OK, lost }
