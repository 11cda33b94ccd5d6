-- upcoming: Unix ms at which the next lease expires or the next job is due; far away when nothing is coming.
local function upcoming(leases, due0, due1, due2, due3)
  local ms = 2 ^ 53 - 1
  local first = redis.call('ZRANGE', leases, 0, 0, 'WITHSCORES')
  if #first > 0 then ms = math.floor(tonumber(first[2]) / FENCES) * TICK + EPOCH end
  for _, due in ipairs({ due0, due1, due2, due3 }) do
    first = redis.call('ZRANGE', due, 0, 0, 'WITHSCORES')
    if #first > 0 then ms = math.min(ms, math.floor(tonumber(first[2]) / COUNTS) + EPOCH) end
  end
  return ms
end
