#!lua flags=allow-oom
-- extend: let leases end at another time. What is lost is named, and not touched.
--
-- KEYS  1 state  2 leases
-- ARGV  1 lease ms, from now   2.. {id, fence}, flat
-- RETURNS {OK, deadline ms, place, ...}: the places of those whose lease is gone, counted from 1
--   UNDECLARED BAD_FORMAT
-- COST O(n log N)

-- @include lib/status
-- @include lib/clock
-- @include lib/layout

local state, leases, lease, ids = KEYS[1], KEYS[2], tonumber(ARGV[1]), {}
local s = redis.call('HMGET', state, 'format', 'next_event')
if s[1] ~= '1' then return { s[1] and BAD_FORMAT or UNDECLARED } end
for i = 2, #ARGV, 2 do ids[#ids + 1] = ARGV[i] end
local deadline = math.ceil((now + lease - EPOCH) / TICK)
local ends = deadline * TICK + EPOCH
local reply, longer = { OK, ends }, {}
if #ids == 0 then return reply end
for i, score in ipairs(redis.call('ZMSCORE', leases, unpack(ids))) do
  local fence = tonumber(ARGV[2 * i + 1])
  if score and tonumber(score) % FENCES == fence then
    longer[#longer + 1], longer[#longer + 2] = deadline * FENCES + fence, ids[i]
  else
    reply[#reply + 1] = i
  end
end
if #longer > 0 then
  redis.call('ZADD', leases, 'XX', unpack(longer))
  if ends < tonumber(s[2]) then redis.call('HSET', state, 'next_event', ends) end -- it may be sooner than it was
end
return reply
