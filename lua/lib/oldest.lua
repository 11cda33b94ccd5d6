-- oldest_ready: age in ms of the oldest job at the head of a ring, -1 where none is ready. `rings` is {head0,
-- tail0, head1, ...} as the state hash has them. Steps over 20 holes a ring. -2: the caller may not read jobs (an ACL
-- for producers).
local function oldest_ready(jobs, now, rings)
  local oldest = -1
  for k = 0, 3 do
    local head, tail = tonumber(rings[1 + 2 * k]), tonumber(rings[2 + 2 * k])
    for seq = head + 1, math.min(tail, head + 20) do
      local envelope = redis.pcall('HGET', jobs, string.format('%d', seq * 8 + k))
      if type(envelope) == 'table' then return -2 end
      if envelope then
        oldest = math.max(oldest, now - number_at(envelope, 3), 0)
        break
      end
    end
  end
  return oldest
end
