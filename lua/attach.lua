#!lua flags=allow-oom
-- attach: the first call of a connection to a queue. Creates the queue where there is none, checks that its keys
-- are what they should be, and enlists the connection as a producer.
--
-- KEYS
--   1 state  2 jobs  3 leases  4..7 due0..due3  8 dead  9 errors  10 unique  11 windows  12 wake  13 room  14 turn
--   15 events
-- ARGV
--   1 create     0|1  create the queue where there is none
--   2 producer   ""   or 8 characters: enlist as a producer; they go before each of its numbers
--   3.. limits   {field, value}, flat: for a new queue only; the server's stand
-- RETURNS {OK, now ms, producer, created, field, value, ...}: the number of the producer's field, 0 where none was asked
--             for; what the state hash says, flat
--   UNDECLARED   there is no queue, and none was asked for
--   BAD_FORMAT   {BAD_FORMAT, format}: written by a newer boundq
--   CLASH        {CLASH, key, type}: a key of the queue is of a foreign type
-- COST O(1)

-- @include lib/status
-- @include lib/clock
-- @include lib/report

local MOST_PRODUCERS = 4096
local TYPES = { 'hash', 'hash', 'zset', 'zset', 'zset', 'zset', 'zset', 'zset', 'hash', 'hash', 'zset', 'list', 'list',
  'list', 'stream' }

local state = KEYS[1]
for i, key in ipairs(KEYS) do
  local found = redis.call('TYPE', key)
  found = found.ok or found
  if found ~= 'none' and found ~= TYPES[i] then return { CLASH, key, found } end
end

local created = 0
local format = redis.call('HGET', state, 'format')
if not format then
  if ARGV[1] == '0' then return { UNDECLARED } end
  -- The charge follows the server's allocator; jemalloc's size classes are the safe guess where INFO says nothing.
  local info, cost = redis.pcall('INFO', 'memory'), 224
  if type(info) == 'table' then info = info.data or info[1] or '' end
  if type(info) == 'string' and string.find(info, 'mem_allocator:libc', 1, true) then cost = -176 end
  redis.call('HSET', state, unpack(FIELDS))
  redis.call('HSET', state, 'cost', cost, 'created_at', now, unpack(ARGV, 3))
  created = 1
elseif format ~= '1' then
  return { BAD_FORMAT, format }
end

local producer = 0
if ARGV[2] ~= '' then
  -- The place of the one that enlisted MOST_PRODUCERS before; its next call shows characters that are not these.
  producer = (redis.call('HINCRBY', state, 'producer', 1) - 1) % MOST_PRODUCERS + 1
  redis.call('HSET', state, 'p' .. producer, ARGV[2] .. '0000000000 x')
end
return { OK, now, producer, created, unpack((report(state))) }
