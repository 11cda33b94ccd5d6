#!lua flags=no-writes,allow-oom
-- events: the latest changes of a queue's limits and switches, the newest first.
--
-- KEYS  1 state  2 events
-- ARGV  1 n  at most 100
-- RETURNS {OK, id, event, by, from, to, ...}: five for each
--   UNDECLARED BAD_FORMAT
-- COST O(n)

-- @include lib/status

local format = redis.call('HGET', KEYS[1], 'format')
if format ~= '1' then return { format and BAD_FORMAT or UNDECLARED } end
local reply = { OK }
for _, entry in ipairs(redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', ARGV[1])) do
  local fields = {}
  for i = 1, #entry[2], 2 do fields[entry[2][i]] = entry[2][i + 1] end
  reply[#reply + 1] = entry[1]
  for _, name in ipairs({ 'event', 'by', 'from', 'to' }) do reply[#reply + 1] = fields[name] or '' end
end
return reply
