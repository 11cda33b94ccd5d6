-- refusal: what a producer is told beside "no": age of the oldest ready job in ms (-1: none is ready; -2: not known) and the
-- drain rate in jobs per 1,000 s (-1: not draining, or too thin a sample).
local function refusal(state, jobs, now)
  local s = redis.call('HMGET', state, 'head0', 'tail0', 'head1', 'tail1', 'head2', 'tail2', 'head3', 'tail3',
    'drain_at', 'drain_rate', 'drain_seen')
  local rate = -1
  if now - tonumber(s[9]) < 10000 and tonumber(s[11]) >= 10 then rate = tonumber(s[10]) end
  return oldest_ready(jobs, now, s), rate
end
