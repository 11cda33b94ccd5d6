#!lua flags=allow-oom
-- repair: set the byte counters to what a recount found, if nothing has changed since it began; and the count of dead
-- letters to what there are.
--
-- KEYS  1 state  2 dead
-- ARGV  1 bytes  2 dead bytes  3.. {field, value}: counters that must stand as they did
-- RETURNS {OK, bytes before, dead bytes before, dead jobs before}
--   CLASH   something moved; nothing was written
--   UNDECLARED BAD_FORMAT
-- COST O(1)

-- @include lib/status

local s = redis.call('HMGET', KEYS[1], 'format', 'bytes', 'dead_bytes', 'dead_jobs')
if s[1] ~= '1' then return { s[1] and BAD_FORMAT or UNDECLARED } end
for i = 3, #ARGV, 2 do
  if redis.call('HGET', KEYS[1], ARGV[i]) ~= ARGV[i + 1] then return { CLASH } end
end
redis.call('HSET', KEYS[1], 'bytes', ARGV[1], 'dead_bytes', ARGV[2], 'dead_jobs', redis.call('ZCARD', KEYS[2]))
return { OK, tonumber(s[2]), tonumber(s[3]), tonumber(s[4]) }
