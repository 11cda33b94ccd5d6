-- remove_jobs: take the jobs out and count them under `counter`. Keys as in remove.lua. Returns the ids that were
-- here, nil where there is no queue of this format.
local function probe_remove()
  probe({ KEYS[2], KEYS[9], KEYS[10] }, { KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8], KEYS[11] },
    { KEYS[12], KEYS[13] })
end
local function remove_jobs(ids, counter)
  local state, jobs, leases, dead, errors = KEYS[1], KEYS[2], KEYS[3], KEYS[8], KEYS[9]
  local s = redis.call('HMGET', state, 'format', 'cost', 'bytes', 'dead_jobs', 'dead_bytes', 'gate')
  if s[1] ~= '1' then return nil end
  local cost, bytes, dead_jobs, dead_bytes = tonumber(s[2]), tonumber(s[3]), tonumber(s[4]), tonumber(s[5])
  local removed, left, missing = {}, 0, 0
  for _, id in ipairs(ids) do
    local due = KEYS[4 + tonumber(id) % 4]
    local place = where_is(id, leases, dead, due)
    local freed = end_job(jobs, KEYS[10], KEYS[11], cost, id, place ~= 'dead') -- burying freed its unique key
    if not freed and place ~= 'ready' then missing = missing + 1 end
    if freed then removed[#removed + 1] = id end
    if freed or place ~= 'ready' then
      freed = freed or 0
      if place == 'dead' then
        dead_bytes = dead_bytes - freed - text_charge(redis.call('HSTRLEN', errors, id), cost)
        dead_jobs = dead_jobs - 1
        redis.call('ZREM', dead, id)
        redis.call('HDEL', errors, id)
      else
        bytes, left = bytes - freed, left + 1
        if place == 'active' then redis.call('ZREM', leases, id) end
        if place == 'scheduled' then redis.call('ZREM', due, id) end
      end
    end
  end
  redis.call('HSET', state, 'bytes', bytes, 'dead_jobs', dead_jobs, 'dead_bytes', dead_bytes)
  if #removed > 0 then redis.call('HINCRBY', state, counter, #removed) end
  if missing > 0 then redis.call('HINCRBY', state, 'missing', missing) end
  local gate = tonumber(s[6])
  -- @include lib/set_gate
  if left > 0 and gate > IDLE then
    -- @include lib/room
    room_freed(state, KEYS[12], KEYS[13], now, redis.call('HLEN', jobs) - dead_jobs, bytes)
  end
  return removed
end
