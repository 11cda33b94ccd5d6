-- room_freed: jobs have left, so a producer that waits for room may go on. One producer at a time has the turn,
-- so a large job is not starved by smaller ones that came later; the others wait on `room`, where the server
-- itself keeps the order of arrival. A list that still holds its token has nobody waiting on it.
--   held, bytes  what is held now; `gate` is a local of the script (lib/set_gate)
local function room_freed(state, room, turn, now, held, bytes)
  if is(gate, TURN) then
    local s = redis.call('HMGET', state, 'turn_at', 'turn_bytes', 'max_jobs', 'max_bytes')
    if held + 1 > tonumber(s[3]) or bytes + tonumber(s[2]) > tonumber(s[4]) then return end
    if redis.call('LLEN', turn) == 0 then return redis.call('RPUSH', turn, 1) end
    local silence = now - tonumber(s[1]) -- negative: the clock was set back
    if silence >= 0 and silence < 3000 then return end -- on its way: it shows itself once a second
    redis.call('HSET', state, 'turn', '') -- it died
    set_gate(TURN, false)
  end
  if is(gate, BLOCKED) then
    if redis.call('LLEN', room) == 0 then redis.call('RPUSH', room, 1) else set_gate(BLOCKED, false) end
  end
end
