#!lua flags=allow-oom
-- claim: take up to n jobs under a lease. Also the reaper and the promoter: expired leases come first, then by
-- priority what is due, then what is ready. There is no background process.
--
-- KEYS
--   1 state  2 jobs  3 leases  4..7 due0..due3  8 dead  9 errors  10 unique  11 windows  12 wake  13 room  14 turn
-- ARGV
--   1 n        1..500  most jobs
--   2 bytes    most bytes of envelopes in the reply; one job is given whatever its size
--   3 lease    ms
--   4 nonce    0..255  chosen afresh for each claim
--   5 wait     0|1|2   1: the caller will wait if this is empty; 2: it has waited, so it passes the wake-up on
-- RETURNS {OK, now ms, deadline ms, next ms, more, {id, fence, envelope}, ...}, the triples flat
--   next ms    ms until a lease expires or a job is due, -1: nothing is coming; only looked up when there is no job
--   more       1: the bound on steps was reached, claim again at once
--   PAUSED     {PAUSED, now ms, since ms}
--   UNDECLARED BAD_FORMAT
-- COST O(n log N), for n = 1 mostly lib/claim_one; at most 1,000 holes are stepped over

-- @include lib/status
-- @include lib/clock
-- @include lib/layout
-- @include lib/envelope

local state, jobs, leases = KEYS[1], KEYS[2], KEYS[3]
local dead, errors, unique, windows, wake = KEYS[8], KEYS[9], KEYS[10], KEYS[11], KEYS[12]
local n, budget, lease, nonce, wait = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4], tonumber(ARGV[5])

local s = redis.call('HMGET', state, 'format', 'cost', 'paused_at', 'next_event', 'bytes', 'dead_jobs', 'drain_at',
  'head0', 'tail0', 'head1', 'tail1', 'head2', 'tail2', 'head3', 'tail3', 'gate', 'deliveries')
if s[1] ~= '1' then return { s[1] and BAD_FORMAT or UNDECLARED } end
if n == 1 then
  -- @include lib/claim_one
end

-- @include lib/charge
-- @include lib/unique
-- @include lib/end_job
-- @include lib/probe
-- @include lib/gate
local gate = tonumber(s[16])
-- @include lib/set_gate
if s[3] ~= '0' then
  set_gate(IDLE, false) -- no admission has to wake anybody now; resume does
  return { PAUSED, now, tonumber(s[3]) }
end
local cost, next_event, bytes = tonumber(s[2]), tonumber(s[4]), tonumber(s[5])
local held = redis.call('HLEN', jobs) - s[6]

local taken, leased, changes = {}, {}, {} -- reply triples; ZADD arguments; HSET arguments
-- Numbers go to the server as text: its own conversion of a Lua number (%.17g) takes longer.
local function change(field, value)
  changes[#changes + 1], changes[#changes + 2] = field, string.format('%d', value)
end
local freed, left, expired_jobs, missing, lost, more = 0, 0, 0, 0, 0, 0
local doomed, keys_probed, steps = {}, false, 0
local deadline = math.ceil((now + lease - EPOCH) / TICK)
local average = held > 0 and bytes / held or 1

local count = 0 -- jobs given
local function full() return count >= n or budget <= 0 end
local function chunk() return math.max(1, math.min(n - count, math.ceil(budget / average), 100)) end

-- give: lease job `id` to the caller. Returns false when it does not fit into the reply any more.
local fresh = nonce * 2 ^ 11 + 1 -- the fence of most: no unique key, never delivered before
local fresh_score = string.format('%d', deadline * FENCES + fresh)
local function give(id, envelope, attempt, expired)
  if count > 0 and #envelope > budget then
    budget = 0
    return false
  end
  budget = budget - #envelope
  local fence, score, keyed = fresh, fresh_score, unique_of(envelope)
  if keyed or attempt ~= 1 or expired ~= 0 then
    fence = (keyed and 2 ^ 19 or 0) + nonce * 2 ^ 11 + expired * 2 ^ 7 + attempt
    score = string.format('%d', deadline * FENCES + fence)
  end
  local at = 2 * count
  leased[at + 1], leased[at + 2] = score, id
  at = at + count
  taken[at + 1], taken[at + 2], taken[at + 3] = id, fence, envelope
  count = count + 1
  return true
end

-- over: the job's time to be started has passed; it ends here, without a run.
local function over(id, envelope)
  local expires = expires_at(envelope)
  if not expires or expires > now then return false end
  if not keys_probed then
    probe({ unique }, { leases, windows }, {})
    keys_probed = true
  end
  freed = freed + (end_job(jobs, unique, windows, cost, id, true) or 0)
  expired_jobs, left, steps = expired_jobs + 1, left + 1, steps + 1
  return true
end

-- A key of a foreign type has to fail before anything is written.
local look_round = now - tonumber(s[7]) >= 1000
if look_round then probe({ errors }, { dead }, {}) end
if wait == 2 then redis.call('LLEN', wake) end
if gate > IDLE then probe({}, {}, { KEYS[13], KEYS[14] }) end

local all_of -- takes what a sorted set holds that may be given out; only where something is due
if next_event == 0 or now >= next_event then
  probe({ errors, unique }, { leases, KEYS[4], KEYS[5], KEYS[6], KEYS[7], dead, windows }, {})
  keys_probed = true
  local max_deliveries, max_age
  -- again: a job that was delivered before, found in the sorted set `from`.
  local function again(from, found, lost_lease)
    for i = 1, #found, 2 do
      local id, score = found[i], tonumber(found[i + 1])
      local attempt, expired = score % 128, math.floor(score / 128) % 16
      local envelope = redis.call('HGET', jobs, id)
      if not envelope then
        redis.call('ZREM', from, id)
        missing, steps = missing + 1, steps + 1
      elseif not lost_lease and over(id, envelope) then
        redis.call('ZREM', from, id)
      else
        if lost_lease then expired = expired + 1 end
        -- Given back: not counted as a delivery, but no fresh job either.
        local before = attempt > 0 or not lost_lease and math.floor(score / GIVEN_BACK) % 2 == 1
        if before and not max_deliveries then
          local limits = redis.call('HMGET', state, 'max_deliveries', 'max_age')
          max_deliveries, max_age = tonumber(limits[1]), tonumber(limits[2])
        end
        local why
        if attempt > 0 and attempt >= max_deliveries then
          why = 'max_deliveries'
        elseif lost_lease and expired == MOST_EXPIRED then
          why = 'lost_leases' -- a job that takes its workers down
        elseif before and now - number_at(envelope, 3) > max_age then
          why = 'max_age'
        end
        if why then
          redis.call('ZREM', from, id)
          doomed[#doomed + 1] = { id = id, size = #envelope, why = why, digest = unique_of(envelope),
            score = (now - EPOCH) * COUNTS + expired * 128 + attempt }
          steps = steps + 1
          if lost_lease then lost = lost + 1 end
        else
          if not give(id, envelope, attempt + 1, expired) then return end
          if lost_lease then lost = lost + 1 else redis.call('ZREM', from, id) end
        end
      end
      if full() then return end
    end
  end
  -- What the set holds below a score, a chunk at a time: a chunk may end here instead of being given.
  function all_of(from, below, lost_lease)
    local kept = 0 -- leases that were given out anew stay where they are, until all are written below
    while not full() and more == 0 do
      local size, done, given = chunk(), steps, count
      local found = redis.call('ZRANGE', from, '-inf', '(' .. string.format('%d', below), 'BYSCORE', 'LIMIT', kept, size,
        'WITHSCORES')
      again(from, found, lost_lease)
      if lost_lease then kept = kept + count - given end
      if #found < 2 * size or steps == done and count == given then return end
      if steps >= 1000 then more = 1 end
    end
  end
  all_of(leases, (math.floor((now - EPOCH) / TICK) + 1) * FENCES, true)
  next_event = -1 -- look up what comes next, below
end

local ready = false
for k = 3, 0, -1 do
  if all_of then all_of(KEYS[4 + k], (now - EPOCH + 1) * COUNTS, false) end
  local head, tail = tonumber(s[8 + 2 * k]), tonumber(s[9 + 2 * k])
  local start, empty_run = head, false
  while head < tail and not full() and more == 0 do
    local ids, size = {}, math.min(tail - head, empty_run and 100 or chunk())
    for i = 1, size do ids[i] = string.format('%d', (head + i) * 8 + k) end
    local envelopes = redis.call('HMGET', jobs, unpack(ids))
    empty_run = true
    for i = 1, size do
      local envelope = envelopes[i]
      if envelope then
        empty_run = false
        local expires = (string.byte(envelope, 2) or 0) % 2 == 1
        if full() or not (expires and over(ids[i], envelope)) and not give(ids[i], envelope, 1, 0) then
          size = i - 1
          break
        end
      else
        steps = steps + 1
      end
    end
    head = head + size
    if steps >= 1000 then more = 1 end
  end
  if head ~= start then change('head' .. k, head) end
  ready = ready or head < tail
end

if count > 0 then
  -- The last one first: as long as the set is small, the server looks for each one's place from the lowest score on.
  for i = 1, count, 2 do
    local j = 2 * count - i
    leased[i], leased[i + 1], leased[j], leased[j + 1] = leased[j], leased[j + 1], leased[i], leased[i + 1]
  end
  redis.call('ZADD', leases, unpack(leased))
  local expiry = deadline * TICK + EPOCH
  if next_event > 0 and expiry < next_event then
    next_event = expiry
    change('next_event', next_event)
  end
end
if next_event < 0 or count == 0 then
  -- @include lib/next_event
  next_event = upcoming(leases, KEYS[4], KEYS[5], KEYS[6], KEYS[7])
  if next_event ~= tonumber(s[4]) then change('next_event', next_event) end
end

-- @include lib/dead
-- About once a second. Drain rate: jobs that left, per 1,000 s, smoothed over some 10 s. Dead letters: their age.
if look_round then
  local d = redis.call('HMGET', state, 'drain_at', 'drain_base', 'drain_rate', 'drain_seen',
    'tail0', 'tail1', 'tail2', 'tail3', 'tail4', 'tail5', 'tail6', 'tail7')
  local departed = left + #doomed - held
  for i = 5, 12 do departed = departed + tonumber(d[i]) end
  local passed, rate, seen = now - tonumber(d[1]), tonumber(d[3]), tonumber(d[4])
  local gone = departed - tonumber(d[2])
  if passed > 30000 then rate, seen, gone = 0, 0, 0 end -- nobody was here for long: begin anew
  local sample = math.floor(gone * 1e6 / passed)
  rate = seen == 0 and sample or math.floor(rate + (sample - rate) * passed / (passed + 5000))
  change('drain_at', now)
  change('drain_base', departed)
  change('drain_rate', rate)
  change('drain_seen', seen + gone)
end

if #doomed == 0 and look_round then
  local d = load_dead(state, now)
  if d.oldest and d.jobs > 0 then save_dead(state, jobs, dead, errors, cost, d) end
end
if #doomed > 0 then
  local d, moved = load_dead(state, now), 0
  for _, job in ipairs(doomed) do
    if job.digest then freed = freed + free_unique(unique, windows, job.digest, job.id) end
    moved = moved + charge_of(job.size, cost)
    put_dead(dead, errors, cost, d, job.id, job.size, job.score, job.why, '')
  end
  freed, left = freed + moved, left + #doomed
  save_dead(state, jobs, dead, errors, cost, d)
  redis.call('HINCRBY', state, 'buried', #doomed)
end
if expired_jobs > 0 then redis.call('HINCRBY', state, 'expired', expired_jobs) end
if missing > 0 then redis.call('HINCRBY', state, 'missing', missing) end
if lost > 0 then redis.call('HINCRBY', state, 'leases_expired', lost) end
if count > 0 then change('deliveries', s[17] + count) end
if freed > 0 then
  bytes = bytes - freed
  change('bytes', bytes)
end

-- A worker that slept and found work passes the wake-up on where there is more; one that found none will sleep.
if wait > 0 and (count == 0 or wait == 2) then set_gate(IDLE, true) end
if #changes > 0 then redis.call('HSET', state, unpack(changes)) end
ready = ready or next_event <= now
if wait == 2 and ready and count > 0 and redis.call('LLEN', wake) == 0 then redis.call('RPUSH', wake, 1) end
if left > 0 and gate > IDLE then
  -- @include lib/room
  room_freed(state, KEYS[13], KEYS[14], now, held - left, bytes)
end

local next_ms = -1
if count == 0 and next_event > 0 and next_event < 2 ^ 53 - 1 then next_ms = math.max(next_event - now, 0) end
return { OK, now, deadline * TICK + EPOCH, next_ms, more, unpack(taken) }
