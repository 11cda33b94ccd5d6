#!lua flags=allow-oom
-- drop_texts: remove error texts that have no dead letter. They are charged to nobody, so no counter changes.
--
-- KEYS  1 state  2 dead  3 errors
-- ARGV  1.. ids, at most 100
-- RETURNS {OK, removed}
--   UNDECLARED BAD_FORMAT
-- COST O(n)

-- @include lib/status

local format = redis.call('HGET', KEYS[1], 'format')
if format ~= '1' then return { format and BAD_FORMAT or UNDECLARED } end
local removed = 0
for _, id in ipairs(ARGV) do
  if not redis.call('ZSCORE', KEYS[2], id) then removed = removed + redis.call('HDEL', KEYS[3], id) end
end
return { OK, removed }
