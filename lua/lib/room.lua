-- room_freed: jobs have left, so a producer that waits for room may go on. One producer at a time has the turn,
-- so a large job is not starved by smaller ones that came later; the others wait on `room`, where the server
-- itself keeps the order of arrival. A list that still holds its token has nobody waiting on it.
--   held, bytes  what is held now
local function room_freed(state, room, turn, now, held, bytes)
  local s = redis.call('HMGET', state, 'blocked', 'turn', 'turn_at', 'turn_bytes', 'max_jobs', 'max_bytes')
  local holder = s[2]
  if holder ~= '' then
    if held + 1 > tonumber(s[5]) or bytes + tonumber(s[4]) > tonumber(s[6]) then return end
    if redis.call('LLEN', turn) == 0 then return redis.call('RPUSH', turn, 1) end
    local silence = now - tonumber(s[3]) -- negative: the clock was set back
    if silence >= 0 and silence < 3000 then return end -- on its way: it shows itself once a second
    redis.call('HSET', state, 'turn', '') -- it died
  end
  if s[1] == '1' then
    if redis.call('LLEN', room) == 0 then
      redis.call('RPUSH', room, 1)
    else
      redis.call('HSET', state, 'blocked', 0)
    end
  end
end
