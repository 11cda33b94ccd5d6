#!lua
-- enqueue: append n plain jobs of one priority if the queue has room for them, else say why not. The hot path:
-- what needs more than this (options, waiting producers, a sealed queue, expiry at a full queue) is answered GENERAL,
-- nothing written, and the client sends the same call through enqueue_general.
--
-- KEYS
--   1 state  hash  rw
--   2 jobs   hash  rw  job id -> envelope
--   3 wake   list  rw  a token for an idle worker
-- ARGV
--   1 producer   str    the field that attach gave it: "p" and a number
--   2 number     str    8 characters chosen at the enlistment, 10 digits of this producer's call; the same in a resend
--   3 flags      +1 atomic: all or nothing, else the longest prefix   +2 this is a resend
--   4 priority   0..3
--   5.. envelopes       bytes, stored as given
-- RETURNS {status, admitted, first id, jobs, bytes[, reason, used, limit, requested, oldest ms, rate]}
--   OK          the first `admitted` jobs are stored, ids first, first + 8, ...; where that is not all of them,
--               reason is FULL_JOBS, FULL_BYTES or TOO_LARGE for the next one
--   FULL_JOBS FULL_BYTES TOO_LARGE  nothing stored; reason says the same
--   REPEATED    this number was answered before; as OK, with the first answer's ids; none: it was refused
--   GENERAL UNDECLARED STRANGER BAD_FORMAT  nothing stored
-- COST O(n): 2 reads, 2 writes
--
-- No allow-oom: at maxmemory the server refuses the script before it starts. Every check precedes the first
-- write: Redis does not roll a script back. Numbers are written as text: Redis 7.0's own conversion of a Lua number
-- (%.17g) takes longer. Not so the ids of many: Valkey writes integers itself, in less time than string.format,
-- and Redis 7.0 in little more.

-- @include lib/status
-- @include lib/charge

local state, jobs = KEYS[1], KEYS[2]
local producer, number, priority = ARGV[1], ARGV[2], ARGV[4]
local FIRST = 5
local call, format = redis.call, string.format

local tail_field = 'tail' .. priority
local s = call('HMGET', state, 'gate', 'format', producer, tail_field, 'bytes', 'dead_jobs', 'cost', 'max_jobs',
  'max_bytes', 'max_job_bytes')
local gate, last = s[1], s[3]
if s[2] ~= '1' then return { s[2] and BAD_FORMAT or UNDECLARED } end
-- After a flush or a fail-over the same id may be somebody else's.
if not last or string.sub(last, 1, 8) ~= string.sub(number, 1, 8) then return { STRANGER } end

local bytes, held = s[5] + 0, call('HLEN', jobs) - s[6]
if last >= number then -- what follows the number in `last` makes it the greater one of two that are the same
  local count, first = string.match(last, ' p(%d+) (%d+)', 19)
  if not count then return { GENERAL } end -- it knows the other kinds of answers
  return { REPEATED, tonumber(count), tonumber(first), held, bytes }
end
if gate ~= '0' and gate ~= '1' then return { GENERAL } end -- more than idle workers: lib/gate.lua
local waking = gate == '1' and call('LLEN', KEYS[3]) == 0

local cost, max_jobs, max_bytes, max_job_bytes = s[7] + 0, s[8] + 0, s[9] + 0, s[10] + 0
local admitted, charged, reason = 0, 0, 0
local used, limit, requested
local room, left = max_jobs - held, max_bytes - bytes
local size, charge -- of the jobs of a call many are of one size
for i = FIRST, #ARGV do
  if #ARGV[i] ~= size then
    size = #ARGV[i]
    charge = charge_of(size, cost)
  end
  if admitted >= room or charged + charge > left or size > max_job_bytes then
    if size > max_job_bytes then
      reason, used, limit, requested = TOO_LARGE, 0, max_job_bytes, size
    elseif charge > max_bytes then
      reason, used, limit, requested = TOO_LARGE, 0, max_bytes, charge
    elseif admitted >= room then
      reason, used, limit, requested = FULL_JOBS, held + admitted, max_jobs, 1
    else
      reason, used, limit, requested = FULL_BYTES, bytes + charged, max_bytes, charge
    end
    break
  end
  admitted, charged = admitted + 1, charged + charge
end

local oldest, rate = -1, -1
if reason ~= 0 then
  local wanted, resent = #ARGV - FIRST + 1, ARGV[3] >= '2'
  if ARGV[3] % 2 == 1 and wanted > 1 then -- all or nothing
    if reason == FULL_JOBS then
      used, requested = held, wanted
    elseif reason == FULL_BYTES then
      used, requested = bytes, 0
      for i = FIRST, #ARGV do requested = requested + charge_of(#ARGV[i], cost) end
    end
    admitted = 0
  end
  -- @include lib/refused
  if reason == TOO_LARGE then
    refused('rejected_job_bytes', 1)
  else
    if call('HGET', state, 'expiring') == '1' then return { GENERAL } end
    -- @include lib/clock
    -- @include lib/envelope
    -- @include lib/oldest
    -- @include lib/refuse
    oldest, rate = refusal(state, jobs, now)
    refused(reason == FULL_JOBS and 'rejected_jobs' or 'rejected_bytes', wanted - admitted)
  end
  if admitted == 0 then return { reason, 0, 0, held, bytes, reason, used, limit, requested, oldest, rate } end
end

local tail = s[4] + 0
local first = (tail + 1) * 8 + priority
local first_id = format('%d', first)
bytes = bytes + charged
if admitted == 1 then
  call('HSET', jobs, first_id, ARGV[FIRST])
else
  local fields = {}
  local place, id = 1, first
  for i = FIRST, FIRST + admitted - 1 do
    fields[place], fields[place + 1] = id, ARGV[i]
    place, id = place + 2, id + 8
  end
  call('HSET', jobs, unpack(fields))
end
call('HSET', state, 'bytes', format('%d', bytes), tail_field, format('%d', tail + admitted),
  producer, number .. ' p' .. admitted .. ' ' .. first_id)
if waking then
  call('RPUSH', KEYS[3], '1')
elseif gate == '1' then -- the last token lies there still: nobody is idle
  call('HSET', state, 'gate', '0')
end
if reason == 0 then return { OK, admitted, first, held + admitted, bytes } end
return { OK, admitted, first, held + admitted, bytes, reason, used, limit, requested, oldest, rate }
