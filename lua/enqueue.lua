#!lua
-- enqueue: append n plain jobs of one priority if the queue has room for them, else say why not. The hot path:
-- what needs more than this (options, waiting producers, expiry at a full queue) is answered GENERAL, nothing
-- written, and the client sends the same call through enqueue_general.
--
-- KEYS
--   1 state      hash  rw
--   2 jobs       hash  rw  job id -> envelope
--   3 wake       list  rw  a token for an idle worker
--   4 producers  hash  rw  producer -> its last number and the answer
-- ARGV
--   1 producer   int    issued by attach
--   2 number     str    8 characters chosen at the enlistment, 10 digits of this producer's call; the same in a resend
--   3 flags      +1 atomic: all or nothing, else the longest prefix   +2 this is a resend
--   4 priority   0..3
--   5.. envelopes       bytes, stored as given
-- RETURNS {status, admitted, first id, jobs, bytes[, reason, used, limit, requested, oldest ms, rate]}
--   OK          the first `admitted` jobs are stored, ids first, first + 8, ...; where that is not all of them,
--               reason is FULL_JOBS, FULL_BYTES or TOO_LARGE for the next one
--   FULL_JOBS FULL_BYTES TOO_LARGE  nothing stored; reason says the same
--   SEALED      {SEALED, since ms, by}
--   REPEATED    this number was answered before; as OK, with the first answer's ids; none: it was refused
--   GENERAL UNDECLARED STRANGER BAD_FORMAT  nothing stored
-- COST O(n): 3 reads, 3 writes
--
-- No allow-oom: at maxmemory the server refuses the script before it starts. Every check precedes the first
-- write: Redis does not roll a script back.

-- @include lib/status
-- @include lib/charge

local state, jobs, wake, producers = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local producer, number, priority = ARGV[1], ARGV[2], ARGV[4]
local atomic, resent = ARGV[3] % 2 == 1, ARGV[3] >= '2'
local FIRST = 5

local s = redis.call('HMGET', state, 'format', 'cost', 'max_jobs', 'max_bytes', 'max_job_bytes', 'bytes',
  'dead_jobs', 'idle', 'blocked', 'turn', 'sealed_at', 'tail' .. priority)
if s[1] ~= '1' then return { s[1] and BAD_FORMAT or UNDECLARED } end
local last = redis.call('HGET', producers, producer)
-- After a flush or a fail-over the same id may be somebody else's.
if not last or string.sub(last, 1, 8) ~= string.sub(number, 1, 8) then return { STRANGER } end

local bytes, held = tonumber(s[6]), redis.call('HLEN', jobs) - s[7]
if string.sub(last, 1, 18) >= number then
  local count, first = string.match(last, ' p(%d+) (%d+)', 19)
  if not count then return { GENERAL } end -- it knows the other kinds of answers
  return { REPEATED, tonumber(count), tonumber(first), held, bytes }
end
if s[11] ~= '0' then
  -- @include lib/refused
  refused('rejected_sealed', #ARGV - FIRST + 1)
  return { SEALED, tonumber(s[11]), redis.call('HGET', state, 'sealed_by') or '' }
end
if s[9] ~= '0' or s[10] ~= '' then return { GENERAL } end

local cost, max_jobs, max_bytes, max_job_bytes = tonumber(s[2]), tonumber(s[3]), tonumber(s[4]), tonumber(s[5])
local wanted, admitted, charged = #ARGV - FIRST + 1, 0, 0
local reason, used, limit, requested = 0, 0, 0, 0
for i = FIRST, #ARGV do
  local size = #ARGV[i]
  local charge = charge_of(size, cost)
  if size > max_job_bytes then
    reason, limit, requested = TOO_LARGE, max_job_bytes, size
  elseif charge > max_bytes then
    reason, limit, requested = TOO_LARGE, max_bytes, charge
  elseif held + admitted + 1 > max_jobs then
    reason, used, limit, requested = FULL_JOBS, held + admitted, max_jobs, atomic and wanted or 1
  elseif bytes + charged + charge > max_bytes then
    reason, used, limit, requested = FULL_BYTES, bytes + charged, max_bytes, charge
  end
  if reason ~= 0 then break end
  admitted, charged = admitted + 1, charged + charge
end
if atomic and reason ~= 0 and admitted > 0 then
  if reason == FULL_JOBS then
    used = held
  elseif reason == FULL_BYTES then
    used, requested = bytes, 0
    for i = FIRST, #ARGV do requested = requested + charge_of(#ARGV[i], cost) end
  end
  admitted = 0
end

local oldest, rate = -1, -1
if reason == TOO_LARGE then
  -- @include lib/refused
  refused('rejected_job_bytes', 1)
elseif reason ~= 0 then
  if redis.call('HGET', state, 'expiring') == '1' then return { GENERAL } end
  -- @include lib/clock
  -- @include lib/envelope
  -- @include lib/oldest
  -- @include lib/refuse
  -- @include lib/refused
  oldest, rate = refusal(state, jobs, now)
  refused(reason == FULL_JOBS and 'rejected_jobs' or 'rejected_bytes', wanted - admitted)
end
if admitted == 0 then return { reason, 0, 0, held, bytes, reason, used, limit, requested, oldest, rate } end

local tail = tonumber(s[12])
local fields = {}
for i = 1, admitted do
  fields[2 * i - 1] = string.format('%d', (tail + i) * 8 + priority)
  fields[2 * i] = ARGV[FIRST + i - 1]
end
local idle, waking = s[8] == '1', false
if idle then waking = redis.call('LLEN', wake) == 0 end

redis.call('HSET', jobs, unpack(fields))
bytes = bytes + charged
if idle and not waking then -- the last token lies there still: nobody is idle
  redis.call('HSET', state, 'bytes', bytes, 'tail' .. priority, tail + admitted, 'idle', 0)
else
  redis.call('HSET', state, 'bytes', bytes, 'tail' .. priority, tail + admitted)
end
redis.call('HSET', producers, producer, number .. ' p' .. admitted .. ' ' .. fields[1])
if waking then redis.call('RPUSH', wake, 1) end
local first = (tail + 1) * 8 + priority
if reason == 0 then return { OK, admitted, first, held + admitted, bytes } end
return { OK, admitted, first, held + admitted, bytes, reason, used, limit, requested, oldest, rate }
