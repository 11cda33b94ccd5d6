#!lua flags=no-writes,allow-oom
-- peek: one page of the jobs in a state, in the order in which they will, or did, come.
--
-- KEYS  1 state  2 jobs  3 leases  4..7 due0..due3  8 dead  9 errors
-- ARGV
--   1 which   ready | active | dead | scheduled
--   2 level   0..3: the priority, for ready and scheduled; else ""
--   3 n       1..100
--   4 bytes   most bytes of envelopes; one job is shown whatever its size
--   5 score   6 id   of the last job seen; "" and "": from the start (ready: score is not used)
-- RETURNS {OK, now ms, {id, score, envelope, note}, ..., last score, last id}, flat
--   last      where to go on: "" and "" when there is no more
--   UNDECLARED BAD_FORMAT
-- COST O(log N + n); a page of ready jobs steps over 1,000 holes at most

-- @include lib/status
-- @include lib/clock

local state, jobs = KEYS[1], KEYS[2]
local which, level, n, budget, score, id = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5], ARGV[6]
local format = redis.call('HGET', state, 'format')
if format ~= '1' then return { format and BAD_FORMAT or UNDECLARED } end
local reply, shown = { OK, now }, 0

local function show(job, at, envelope, note)
  if shown > 0 and #envelope > budget then return false end
  budget, shown = budget - #envelope, shown + 1
  for _, value in ipairs({ job, at, envelope, note }) do reply[#reply + 1] = value end
  return true
end

local last_score, last_id = '', ''
if which == 'ready' then
  local ring = redis.call('HMGET', state, 'head' .. level, 'tail' .. level)
  local seq, tail = tonumber(ring[1]), tonumber(ring[2])
  if id ~= '' then seq = math.max(seq, math.floor(tonumber(id) / 8)) end
  local stop = math.min(tail, seq + 1000 + n)
  while seq < stop and shown < n do
    local job = string.format('%d', (seq + 1) * 8 + level)
    local envelope = redis.call('HGET', jobs, job)
    if envelope and not show(job, '0', envelope, '') then break end
    seq, last_id = seq + 1, job
  end
  if seq >= tail then last_id = '' end
else
  local key = which == 'active' and KEYS[3] or which == 'dead' and KEYS[8] or KEYS[4 + level]
  local found
  local rank = id ~= '' and redis.call('ZRANK', key, id)
  if rank then
    found = redis.call('ZRANGE', key, rank + 1, rank + n, 'WITHSCORES')
  elseif id ~= '' then -- it has left since: go on behind its place
    -- Where it stood among those of the same score, which are in the order of their bytes.
    local low, high = redis.call('ZCOUNT', key, '-inf', '(' .. score), redis.call('ZCOUNT', key, '-inf', score)
    while low < high do
      local middle = math.floor((low + high) / 2)
      if redis.call('ZRANGE', key, middle, middle)[1] > id then high = middle else low = middle + 1 end
    end
    found = redis.call('ZRANGE', key, low, low + n - 1, 'WITHSCORES')
  else
    found = redis.call('ZRANGE', key, 0, n - 1, 'WITHSCORES')
  end
  local all = #found == 2 * n
  for i = 1, #found, 2 do
    local envelope = redis.call('HGET', jobs, found[i])
    if envelope then
      if not show(found[i], found[i + 1], envelope, redis.call('HGET', KEYS[9], found[i]) or '') then
        all = true
        break
      end
    end
    last_score, last_id = found[i + 1], found[i]
  end
  if not all then last_score, last_id = '', '' end
end
reply[#reply + 1], reply[#reply + 2] = last_score, last_id
return reply
