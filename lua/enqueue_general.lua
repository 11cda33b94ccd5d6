#!lua
-- enqueue_general: append n jobs with options of their own, and let a producer wait its turn for room. Does all
-- that enqueue does, and: priorities mixed, delay, expiry, unique keys, expired jobs dropped at a full queue.
--
-- KEYS
--   1 state      hash  rw
--   2 jobs       hash  rw  job id -> envelope
--   3 wake       list  rw  a token for an idle worker
--   4 room       list  rw  a token for the producers that wait behind the one whose turn it is
--   5 turn       list  rw  a token for the producer whose turn it is
--   6 unique     hash  rw  digest -> job id
--   7 windows    zset  rw  digest -> ms until which it is held, job or no job
--   8..11 due0..due3  zset  w
--   12 dead      zset  r
--   13 leases    zset  r
-- ARGV
--   1 producer   str    the field that attach gave it: "p" and a number
--   2 number     str    8 characters chosen at the enlistment, 10 digits of this producer's call; the same in a resend
--   3 flags      +1 atomic: all or nothing, else the longest prefix   +2 this is a resend
--   4 wait       0..3   1: take a place in the line if there is no room; 2: the caller has one; 3: it has one and
--                       leaves the line if there is no room this time
--   5.. for each job, six:
--     priority   0..3
--     due        ""  now | "+ms" after now | "ms" Unix time
--     expires    ""  as the envelope says | "+ms" after now: written into the envelope here
--     digest     ""  or 16 characters
--     window     ms  hold the digest that long from now at least; 0: while the job is held
--     envelope   bytes
-- RETURNS {status, admitted, jobs, bytes, reason, used, limit, requested, oldest ms, rate, place, id, dup, id, dup, ...}
--   OK          `admitted` jobs are in, or were (dup 1: the key is held, by this id); reason 0, or why the next is not
--   FULL_JOBS FULL_BYTES TOO_LARGE WAITERS  nothing stored; reason says the same
--   place       0 none; 1 it is the caller's turn, wait on `turn`; 2 wait on `room`
--   CLASH       {CLASH, i}: job i is scheduled later than a score can say
--   SEALED      {SEALED, since ms, by}
--   REPEATED UNDECLARED STRANGER BAD_FORMAT as in enqueue; REPEATED has the shape of OK
-- COST O(n log N): n is at most 100
--
-- No allow-oom: at maxmemory the server refuses the script before it starts. Every check precedes the first
-- write of a job; what is written before (expired jobs, closed windows, a place in the line) stands by itself.

-- @include lib/status
-- @include lib/charge
-- @include lib/clock
-- @include lib/layout
-- @include lib/envelope
-- @include lib/unique
-- @include lib/oldest
-- @include lib/refuse
-- @include lib/gate

local state, jobs, wake, room, turn = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local unique, windows, dead, leases = KEYS[6], KEYS[7], KEYS[12], KEYS[13]
local producer, number, wait = ARGV[1], ARGV[2], tonumber(ARGV[4])
local atomic, resent = ARGV[3] % 2 == 1, ARGV[3] >= '2'
local FIRST, EACH = 5, 6
local wanted = (#ARGV - FIRST + 1) / EACH

local s = redis.call('HMGET', state, 'format', 'cost', 'max_jobs', 'max_bytes', 'max_job_bytes', 'bytes',
  'dead_jobs', 'gate', producer, 'turn', 'sealed_at', 'turn_at', 'next_event', 'expiring')
if s[1] ~= '1' then return { s[1] and BAD_FORMAT or UNDECLARED } end
local last, gate = s[9], tonumber(s[8])
-- After a flush or a fail-over the same id may be somebody else's.
if not last or string.sub(last, 1, 8) ~= string.sub(number, 1, 8) then return { STRANGER } end

local bytes, held = tonumber(s[6]), redis.call('HLEN', jobs) - s[7]
if string.sub(last, 1, 18) >= number then
  -- The answer: " p<count> <first id>" of plain jobs, " <id>[d]" for each, or " x": refused.
  local reply = { REPEATED, 0, held, bytes, 0, 0, 0, 0, -1, -1, 0 }
  local function add(id, dup)
    reply[2] = reply[2] + 1
    reply[#reply + 1], reply[#reply + 2] = id, dup
  end
  local count, first = string.match(last, ' p(%d+) (%d+)', 19)
  if count then
    for i = 0, count - 1 do add(first + 8 * i, 0) end
  else
    for id, dup in string.gmatch(string.sub(last, 19), ' (%d+)(d?)') do add(tonumber(id), dup == 'd' and 1 or 0) end
  end
  return reply
end
-- @include lib/set_gate
-- @include lib/refused
if is(gate, CLOSED) then
  refused('rejected_sealed', wanted)
  return { SEALED, tonumber(s[11]), redis.call('HGET', state, 'sealed_by') or '' }
end

local cost, max_jobs, max_bytes, max_job_bytes = tonumber(s[2]), tonumber(s[3]), tonumber(s[4]), tonumber(s[5])
-- Reads that would fail on a key of a foreign type come before anything is written.
local waking_possible = is(gate, IDLE) and redis.call('LLEN', wake) == 0
for i = 7, 13 do redis.call('ZCARD', KEYS[i]) end
redis.call('HLEN', unique)
redis.call('LLEN', room)
local turn_tokens = redis.call('LLEN', turn)

-- Whose turn is it? Newcomers do not overtake those who wait.
local ticket = producer .. '.' .. number
-- @include lib/line
local may_enter, holder, room_tokens = may_pass(state, room, now, s[10], s[12], ticket, wait >= 2)

if redis.call('ZCARD', windows) > 0 then
  local freed = close_windows(unique, windows, jobs, dead, now)
  if freed > 0 then bytes = redis.call('HINCRBY', state, 'bytes', -freed) end
end

-- A producer whose ACL lets it read no envelope (`boundq acl producer`) cannot tell what has expired: claims will.
local function envelope_of(id)
  local envelope = redis.pcall('HGET', jobs, id)
  if type(envelope) == 'table' then return nil, true end
  return envelope
end

-- lapsed: the job `id` holds a unique key, but its expiry has passed and it was not started: it ends here.
local function lapsed(id)
  local envelope = envelope_of(id)
  local expires = envelope and expires_at(envelope)
  if not expires or expires > now or redis.call('ZSCORE', leases, id) or redis.call('ZSCORE', dead, id) then
    return false
  end
  local freed = free_unique(unique, windows, unique_of(envelope), id) + charge_of(#envelope, cost)
  redis.call('HDEL', jobs, id)
  redis.call('ZREM', KEYS[8 + tonumber(id) % 4], id)
  redis.call('HINCRBY', state, 'expired', 1)
  bytes, held = redis.call('HINCRBY', state, 'bytes', -freed), held - 1
  return true
end

-- drop_expired: expired jobs at the heads of the rings give up their room; 8 a priority at most.
local function drop_expired()
  local expired, freed = 0, 0
  for k = 0, 3 do
    local ring = redis.call('HMGET', state, 'head' .. k, 'tail' .. k)
    local head, tail = tonumber(ring[1]), tonumber(ring[2])
    local stop = math.min(tail, head + 8)
    while head < stop do
      local id = string.format('%d', (head + 1) * 8 + k)
      local envelope, forbidden = envelope_of(id)
      if forbidden then return end
      if envelope then
        local expires = expires_at(envelope)
        if not expires or expires > now then break end
        local digest = unique_of(envelope)
        if digest then freed = freed + free_unique(unique, windows, digest, id) end
        redis.call('HDEL', jobs, id)
        freed, expired = freed + charge_of(#envelope, cost), expired + 1
      end
      head = head + 1
    end
    redis.call('HSET', state, 'head' .. k, head)
  end
  if expired > 0 then
    redis.call('HINCRBY', state, 'expired', expired)
    bytes, held = redis.call('HINCRBY', state, 'bytes', -freed), held - expired
  end
end

local plan, charged, added, tails, seen
local reason, used, limit, requested, total_charge
local function fit()
  plan, charged, added, tails, seen = {}, 0, 0, {}, {}
  reason, used, limit, requested, total_charge = 0, 0, 0, 0, 0
  for i = 0, wanted - 1 do
    local at = FIRST + i * EACH
    local priority, due, expires = ARGV[at], ARGV[at + 1], ARGV[at + 2]
    local digest, window, envelope = ARGV[at + 3], tonumber(ARGV[at + 4]), ARGV[at + 5]
    local job = { digest = digest, window = window }
    local holds, open = false, false
    if digest ~= '' then
      holds = seen[digest] or redis.call('HGET', unique, digest)
      if holds and not seen[digest] and s[14] == '1' and lapsed(holds) then holds = redis.call('HGET', unique, digest) end
      open = redis.call('ZSCORE', windows, digest)
    end
    if holds and (seen[digest] or open and tonumber(open) > now
        or redis.call('HEXISTS', jobs, holds) == 1 and not redis.call('ZSCORE', dead, holds)) then
      job.id, job.dup = holds, true
    else
      local charge = charge_of(#envelope, cost)
      if digest ~= '' then
        charge = charge + (holds and 0 or UNIQUE) + (window > 0 and not open and WINDOW or 0)
      end
      total_charge = total_charge + charge
      if reason == 0 then
        if #envelope > max_job_bytes then
          reason, limit, requested = TOO_LARGE, max_job_bytes, #envelope
        elseif charge > max_bytes then
          reason, limit, requested = TOO_LARGE, max_bytes, charge
        elseif not may_enter then
          reason, used, limit, requested = WAITERS, held, max_jobs, 1
        elseif held + added + 1 > max_jobs then
          reason, used, limit, requested = FULL_JOBS, held + added, max_jobs, 1
        elseif bytes + charged + charge > max_bytes then
          reason, used, limit, requested = FULL_BYTES, bytes + charged, max_bytes, charge
        end
      end
      if reason == 0 then
        local slot = tonumber(priority)
        if due ~= '' then
          local ms = tonumber(due)
          if string.sub(due, 1, 1) == '+' then ms = now + ms end
          job.score = (ms - EPOCH) * COUNTS
          if ms - EPOCH >= 2 ^ 41 then return i end
          job.score, job.due, slot = math.max(job.score, 0), KEYS[8 + slot], slot + 4
          job.ms = math.max(ms, EPOCH)
        end
        local tail = tails[slot] or tonumber(redis.call('HGET', state, 'tail' .. slot))
        tails[slot] = tail + 1
        job.id = string.format('%d', (tail + 1) * 8 + slot)
        if expires ~= '' then
          local ms, head = now + tonumber(expires), ''
          for _ = 1, 6 do
            head = string.char(ms % 256) .. head
            ms = math.floor(ms / 256)
          end
          envelope = string.sub(envelope, 1, 8) .. head .. string.sub(envelope, 15)
        end
        job.envelope = envelope
        added, charged = added + 1, charged + charge
        if digest ~= '' then seen[digest] = job.id end
      elseif not atomic then
        return
      end
    end
    if reason == 0 then plan[#plan + 1] = job end
  end
end
local clash = fit()
if clash then return { CLASH, clash } end
local full = reason == FULL_JOBS or reason == FULL_BYTES
if full and s[14] == '1' then
  drop_expired()
  for _ = 1, 10 do
    local freed = close_windows(unique, windows, jobs, dead, now)
    if freed == 0 then break end
    bytes = redis.call('HINCRBY', state, 'bytes', -freed)
  end
  fit()
  full = reason == FULL_JOBS or reason == FULL_BYTES
end
if reason ~= 0 and atomic and wanted > 1 then
  if reason == FULL_JOBS then used, requested = held, wanted end
  if reason == FULL_BYTES then used, requested = bytes, total_charge end
  plan, added, charged = {}, 0, 0
end

local oldest, rate, place = -1, -1, 0
if reason == TOO_LARGE then
  refused('rejected_job_bytes', 1)
elseif reason ~= 0 and (wait == 0 or wait == 3) then
  local counter = full and (reason == FULL_JOBS and 'rejected_jobs' or 'rejected_bytes') or 'rejected_waiters'
  oldest, rate = refusal(state, jobs, now)
  refused(counter, wanted - #plan)
elseif reason ~= 0 then -- take, or keep, a place in the line; a caller that waits brings one job
  if may_enter and (holder == ticket or holder == '') then
    if holder == '' and turn_tokens > 0 then redis.call('DEL', turn) end
    redis.call('HSET', state, 'turn', ticket, 'turn_at', now, 'turn_bytes', total_charge)
    set_gate(TURN, true)
    place = 1
  else
    set_gate(BLOCKED, true)
    place = 2
  end
end

if added > 0 then
  local fields, next_event, ring = {}, tonumber(s[13]), false
  local earliest = next_event
  for _, job in ipairs(plan) do
    if not job.dup then
      fields[#fields + 1], fields[#fields + 2] = job.id, job.envelope
      if s[14] ~= '1' and expires_at(job.envelope) then
        s[14] = '1'
        redis.call('HSET', state, 'expiring', 1)
      end
      if job.due then
        redis.call('ZADD', job.due, job.score, job.id)
        if earliest == 0 or job.ms < earliest then earliest = job.ms end
      else
        ring = true
      end
      if job.digest ~= '' then
        redis.call('HSET', unique, job.digest, job.id)
        if job.window > 0 then
          redis.call('ZADD', windows, now + job.window, job.digest)
          if s[14] ~= '1' then
            s[14] = '1'
            redis.call('HSET', state, 'expiring', 1)
          end
        end
      end
    end
  end
  redis.call('HSET', jobs, unpack(fields))
  bytes, held = bytes + charged, held + added
  local changes = { 'bytes', bytes, 'next_event', earliest }
  for slot, tail in pairs(tails) do
    changes[#changes + 1], changes[#changes + 2] = 'tail' .. slot, tail
  end
  -- A worker that sleeps until the next event must learn of an earlier one.
  if is(gate, IDLE) and (ring or earliest ~= next_event) then
    if waking_possible then redis.call('RPUSH', wake, 1) else set_gate(IDLE, false) end
  end
  redis.call('HSET', state, unpack(changes))
end
if wait >= 2 and place == 0 then -- out of the line: the next one may try
  if holder == ticket then
    redis.call('HSET', state, 'turn', '')
    set_gate(TURN, false)
  end
  if is(gate, BLOCKED) then
    if room_tokens == 0 then redis.call('RPUSH', room, 1) else set_gate(BLOCKED, false) end
  end
end

local reply = { #plan > 0 and OK or reason, #plan, held, bytes, reason, used, limit, requested, oldest, rate, place }
local record = number
for _, job in ipairs(plan) do
  reply[#reply + 1] = tonumber(job.id)
  reply[#reply + 1] = job.dup and 1 or 0
  record = record .. ' ' .. job.id .. (job.dup and 'd' or '')
end
if #plan > 0 then redis.call('HSET', state, producer, record) end
return reply
