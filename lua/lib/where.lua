-- where_is: {name, score} of the sorted set that holds the job, {'ready'} for one that is in its ring.
local function where_is(id, leases, dead, due)
  local score = redis.call('ZSCORE', leases, id)
  if score then return 'active', tonumber(score) end
  score = redis.call('ZSCORE', due, id)
  if score then return 'scheduled', tonumber(score) end
  score = redis.call('ZSCORE', dead, id)
  if score then return 'dead', tonumber(score) end
  return 'ready', 0
end
