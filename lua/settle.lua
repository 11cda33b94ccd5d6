#!lua flags=allow-oom
-- settle: end deliveries, many in one call: ack, retry, release and bury. Each shows its fence; one whose lease is
-- gone changes nothing and is named in the reply.
--
-- KEYS
--   1 state  2 jobs  3 leases  4..7 due0..due3  8 dead  9 errors  10 unique  11 windows  12 wake  13 room  14 turn
-- ARGV
--   1 flags  +2 this is a resend: a lost lease is no news
--   2..5 how many acks, retries, releases, buries follow; 500 at most together
--   acks      {id, fence}
--   retries   {id, fence, delay ms}
--   releases  {id, fence}                 the delivery is given back; claimable at once
--   buries    {id, fence, reason, text}   the text is cut by the caller
-- RETURNS {OK, jobs, bytes, {place, gone}, ...}, the pairs flat
--   place  of one that was lost, counted from 1 through all four lists
--   gone   1: the job is gone; 0: it is still here, and is or will be delivered again
--   UNDECLARED BAD_FORMAT
-- COST O(n log N)

-- @include lib/status
-- @include lib/charge
-- @include lib/clock
-- @include lib/layout
-- @include lib/envelope
-- @include lib/unique
-- @include lib/end_job
-- @include lib/gate

local state, jobs, leases, unique, windows, wake = KEYS[1], KEYS[2], KEYS[3], KEYS[10], KEYS[11], KEYS[12]
local s = redis.call('HMGET', state, 'format', 'cost', 'bytes', 'dead_jobs', 'next_event', 'gate', 'acked')
if s[1] ~= '1' then return { s[1] and BAD_FORMAT or UNDECLARED } end
local cost, bytes, next_event = tonumber(s[2]), tonumber(s[3]), tonumber(s[5])
local resent, gate = ARGV[1] == '2', tonumber(s[6])
-- @include lib/set_gate

-- A key of a foreign type has to fail before anything is written.
local held = redis.call('HLEN', jobs) - s[4]
local waking_possible = is(gate, IDLE) and redis.call('LLEN', wake) == 0
if ARGV[3] ~= '0' or ARGV[4] ~= '0' then
  for i = 4, 7 do redis.call('ZCARD', KEYS[i]) end
end
if ARGV[5] ~= '0' then
  redis.call('ZCARD', KEYS[8])
  redis.call('HLEN', KEYS[9])
end
if gate > IDLE then
  redis.call('LLEN', KEYS[13])
  redis.call('LLEN', KEYS[14])
end

local widths, ids, at, places = { 2, 3, 2, 4 }, {}, 6, {}
for kind = 1, 4 do
  for _ = 1, tonumber(ARGV[kind + 1]) do
    ids[#ids + 1], places[#places + 1] = ARGV[at], at
    at = at + widths[kind]
  end
end
local scores = #ids > 0 and redis.call('ZMSCORE', leases, unpack(ids)) or {}

for i = 1, #ids do
  if scores[i] and scores[i] % FENCES >= 2 ^ 19 then -- has a unique key
    redis.call('HLEN', unique)
    redis.call('ZCARD', windows)
    break
  end
end

local reply = { OK, 0, 0 }
local ended, gone, bury, freed, left, next = {}, {}, {}, 0, 0, next_event
local settled = { 0, 0, 0, 0 }
local kind, until_kind = 1, tonumber(ARGV[2])
local size_before, charge -- of the jobs of a call many are of one size
for i, id in ipairs(ids) do
  while i > until_kind do
    kind = kind + 1
    until_kind = until_kind + tonumber(ARGV[kind + 1])
  end
  local place = places[i]
  local score, fence = tonumber(scores[i] or -1), tonumber(ARGV[place + 1])
  if score < 0 or score % FENCES ~= fence or settled[id] then
    reply[#reply + 1] = i
    reply[#reply + 1] = (settled[id] == 1 or redis.call('HEXISTS', jobs, id) == 0) and 1 or 0
  else
    settled[id] = kind
    settled[kind] = settled[kind] + 1
    local attempt, expired, keyed = score % 128, math.floor(score / 128) % 16, fence >= 2 ^ 19
    ended[#ended + 1] = id
    if kind == 1 then
      local size = keyed and 0 or redis.call('HSTRLEN', jobs, id)
      if size > 0 then
        gone[#gone + 1] = id -- all of them in one command, below
        if size ~= size_before then size_before, charge = size, charge_of(size, cost) end
        freed = freed + charge
      else
        freed = freed + (end_job(jobs, unique, windows, cost, id, keyed) or 0)
      end
      left = left + 1
    elseif kind == 4 then
      local size = 0
      if keyed then
        local envelope = redis.call('HGET', jobs, id)
        size = envelope and #envelope
        local digest = envelope and unique_of(envelope)
        if digest then freed = freed + free_unique(unique, windows, digest, id) end
      else
        size = redis.call('HSTRLEN', jobs, id)
        if size == 0 and redis.call('HEXISTS', jobs, id) == 0 then size = nil end
      end
      if size then freed = freed + charge_of(size, cost) end
      left = left + 1
      bury[#bury + 1] = { id = id, size = size, reason = ARGV[place + 2], text = ARGV[place + 3],
        score = (now - EPOCH) * COUNTS + expired * 128 + attempt }
    else
      local due, back = now, 0
      if kind == 2 then
        due = now + tonumber(ARGV[place + 2])
      else
        attempt, back = math.max(attempt - 1, 0), GIVEN_BACK
      end
      redis.call('ZADD', KEYS[4 + tonumber(id) % 4], (due - EPOCH) * COUNTS + back + expired * 128 + attempt, id)
      if next == 0 or due < next then next = due end
    end
  end
end

local changes = {}
if #ended > 0 then redis.call('ZREM', leases, unpack(ended)) end
if #gone > 0 then redis.call('HDEL', jobs, unpack(gone)) end
if #bury > 0 then
  -- @include lib/dead
  local d = load_dead(state, now)
  for _, job in ipairs(bury) do
    if job.size then
      put_dead(KEYS[8], KEYS[9], cost, d, job.id, job.size, job.score, job.reason, job.text)
    end
  end
  save_dead(state, jobs, KEYS[8], KEYS[9], cost, d)
end
if settled[1] > 0 then changes[1], changes[2] = 'acked', string.format('%d', s[7] + settled[1]) end
for i, counter in ipairs({ 'retried', 'released', 'buried' }) do
  if settled[i + 1] > 0 then redis.call('HINCRBY', state, counter, settled[i + 1]) end
end
if #reply > 3 and not resent then redis.call('HINCRBY', state, 'leases_lost', (#reply - 3) / 2) end
if freed > 0 then
  bytes = bytes - freed
  changes[#changes + 1], changes[#changes + 2] = 'bytes', string.format('%d', bytes)
end
if next ~= next_event then
  changes[#changes + 1], changes[#changes + 2] = 'next_event', string.format('%d', next)
  -- A worker that sleeps until the next event must learn of an earlier one.
  if waking_possible then redis.call('RPUSH', wake, 1) else set_gate(IDLE, false) end
end
if #changes > 0 then redis.call('HSET', state, unpack(changes)) end

held = held - left
if left > 0 and gate > IDLE then
  -- @include lib/room
  room_freed(state, KEYS[13], KEYS[14], now, held, bytes)
end
reply[2], reply[3] = held, bytes
return reply
