#!lua flags=allow-oom
-- retry_dead: dead letters go back to work, through admission: under the limits, not past those who wait for room, not
-- into a sealed queue. Each becomes a scheduled job that is due at once, with no deliveries counted; its age goes on.
-- The envelope stays where it is, so a job is dead or scheduled at any instant, and a second call finds no dead letter.
--
-- KEYS
--   1 state  2 jobs  3 leases  4..7 due0..due3  8 dead  9 errors  10 unique  11 windows  12 wake  13 room
-- ARGV
--   1.. ids, at most 100
-- RETURNS {OK, jobs, bytes, reason, used, limit, requested, oldest ms, rate, outcome, ...}
--   reason   0, or FULL_JOBS FULL_BYTES WAITERS: those behind the outcomes were not looked at
--   outcome  for each id, in order: 1 back; 0 there is no such dead letter; 2 it stays, another job holds its unique
--            key; 3 it stays, larger than the limits allow now
--   SEALED   {SEALED, ms, by}   UNDECLARED BAD_FORMAT
-- COST O(n log N)
--
-- allow-oom: nothing is stored that was not stored before.

-- @include lib/status
-- @include lib/charge
-- @include lib/clock
-- @include lib/layout
-- @include lib/envelope
-- @include lib/unique
-- @include lib/oldest
-- @include lib/refuse
-- @include lib/dead
-- @include lib/probe
-- @include lib/gate

local state, jobs, dead, errors, unique, windows = KEYS[1], KEYS[2], KEYS[8], KEYS[9], KEYS[10], KEYS[11]
local wake, room = KEYS[12], KEYS[13]
local s = redis.call('HMGET', state, 'format', 'cost', 'max_jobs', 'max_bytes', 'max_job_bytes', 'bytes', 'dead_jobs',
  'dead_bytes', 'sealed_at', 'next_event', 'gate', 'turn', 'turn_at')
if s[1] ~= '1' then return { s[1] and BAD_FORMAT or UNDECLARED } end
local gate = tonumber(s[11])
-- @include lib/set_gate
-- @include lib/line
if is(gate, CLOSED) then return { SEALED, tonumber(s[9]), redis.call('HGET', state, 'sealed_by') or '' } end

-- A key of a foreign type has to fail before anything is written.
probe({ jobs, errors, unique }, { KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7], dead, windows }, { wake, room })
local cost, max_jobs, max_bytes, max_job_bytes = tonumber(s[2]), tonumber(s[3]), tonumber(s[4]), tonumber(s[5])
local bytes, dead_jobs, dead_bytes, next_event = tonumber(s[6]), tonumber(s[7]), tonumber(s[8]), tonumber(s[10])
local held = redis.call('HLEN', jobs) - dead_jobs
local may = may_pass(state, room, now, s[12], s[13], '', false)
if redis.call('ZCARD', windows) > 0 then bytes = bytes - close_windows(unique, windows, jobs, dead, now) end

-- taken: another job holds this unique key, or held it within a window that is still open.
local function taken(digest, holder, id)
  if holder == id then return false end
  local open = redis.call('ZSCORE', windows, digest)
  if open and tonumber(open) > now then return true end
  return redis.call('HEXISTS', jobs, holder) == 1 and not redis.call('ZSCORE', dead, holder)
end

local outcomes, back, reason, used, limit, requested = {}, 0, 0, 0, 0, 0
for i, id in ipairs(ARGV) do
  local envelope = redis.call('ZSCORE', dead, id) and redis.call('HGET', jobs, id)
  if not envelope then
    outcomes[i] = 0
  else
    local digest, charge = unique_of(envelope), charge_of(#envelope, cost)
    local holder = digest and redis.call('HGET', unique, digest)
    if digest and not holder then charge = charge + UNIQUE end
    if holder and taken(digest, holder, id) then
      outcomes[i] = 2
    elseif #envelope > max_job_bytes or charge > max_bytes then
      outcomes[i] = 3
    else
      if not may then
        reason, used, limit, requested = WAITERS, held, max_jobs, 1
      elseif held + 1 > max_jobs then
        reason, used, limit, requested = FULL_JOBS, held, max_jobs, 1
      elseif bytes + charge > max_bytes then
        reason, used, limit, requested = FULL_BYTES, bytes, max_bytes, charge
      end
      if reason ~= 0 then break end
      if digest then redis.call('HSET', unique, digest, id) end
      dead_bytes = dead_bytes - charge_of(#envelope, cost) - text_charge(redis.call('HSTRLEN', errors, id), cost)
      redis.call('ZREM', dead, id)
      redis.call('HDEL', errors, id)
      redis.call('ZADD', KEYS[4 + tonumber(id) % 4], (now - EPOCH) * COUNTS + GIVEN_BACK, id)
      bytes, held, dead_jobs, back = bytes + charge, held + 1, dead_jobs - 1, back + 1
      outcomes[i] = 1
    end
  end
end

local changes = { 'bytes', bytes, 'dead_jobs', dead_jobs, 'dead_bytes', dead_bytes }
if back > 0 and (next_event == 0 or now < next_event) then
  changes[#changes + 1], changes[#changes + 2] = 'next_event', now
end
if back > 0 and is(gate, IDLE) then
  if redis.call('LLEN', wake) == 0 then
    redis.call('RPUSH', wake, 1)
  else
    set_gate(IDLE, false) -- the last token lies there still: nobody is idle
  end
end
redis.call('HSET', state, unpack(changes))
local oldest, rate = -1, -1
if reason ~= 0 then
  oldest, rate = refusal(state, jobs, now)
end
return { OK, held, bytes, reason, used, limit, requested, oldest, rate, unpack(outcomes) }
