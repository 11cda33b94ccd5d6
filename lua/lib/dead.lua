-- Dead letters have limits of their own; beyond them the oldest are dropped, and counted. The reason and the error
-- text of a dead letter are stored beside it ("reason\ntext"), and charged.
local function text_charge(size, cost)
  return size == 0 and 0 or charge_of(size, cost > 0 and 96 or -72)
end

local function load_dead(state, now)
  local s = redis.call('HMGET', state, 'dead_jobs', 'dead_bytes', 'max_dead_jobs', 'max_dead_bytes', 'dead_ttl')
  local ttl = tonumber(s[5])
  return { jobs = tonumber(s[1]), bytes = tonumber(s[2]), max_jobs = tonumber(s[3]), max_bytes = tonumber(s[4]),
    oldest = ttl > 0 and now - EPOCH - ttl }
end

-- put_dead: the job's envelope stays where it is; its charge moves to the dead budget.
local function put_dead(dead, errors, cost, d, id, size, score, reason, text)
  local note = reason .. '\n' .. text
  redis.call('ZADD', dead, score, id)
  redis.call('HSET', errors, id, note)
  d.jobs, d.bytes = d.jobs + 1, d.bytes + charge_of(size, cost) + text_charge(#note, cost)
end

-- save_dead: drop the oldest dead letters until the limits hold, 2,000 at most in one call.
local function save_dead(state, jobs, dead, errors, cost, d)
  local dropped = 0
  while dropped < 2000 and d.jobs > 0 do
    local found = {}
    if d.jobs > d.max_jobs or d.bytes > d.max_bytes then
      found = redis.call('ZRANGE', dead, 0, math.min(99, math.max(0, d.jobs - d.max_jobs - 1)))
    elseif d.oldest and d.oldest > 0 then
      found = redis.call('ZRANGE', dead, '-inf', string.format('%d', d.oldest * COUNTS), 'BYSCORE', 'LIMIT', 0, 100)
    end
    if #found == 0 then break end
    for _, id in ipairs(found) do
      local size = redis.call('HSTRLEN', jobs, id)
      if size > 0 then d.bytes = d.bytes - charge_of(size, cost) end
      d.bytes = d.bytes - text_charge(redis.call('HSTRLEN', errors, id), cost)
    end
    redis.call('ZREM', dead, unpack(found))
    redis.call('HDEL', jobs, unpack(found))
    redis.call('HDEL', errors, unpack(found))
    d.jobs, dropped = d.jobs - #found, dropped + #found
  end
  redis.call('HSET', state, 'dead_jobs', d.jobs, 'dead_bytes', d.bytes)
  if dropped > 0 then redis.call('HINCRBY', state, 'dropped', dropped) end
  return dropped
end
