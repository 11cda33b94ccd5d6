-- may_pass: newcomers do not overtake those who wait for room. `holder` and `turn_at` are `turn` and `turn_at` of the
-- state hash, `ticket` the caller's own ('': none), `stays` whether it has a place in the line already; `gate` is a local
-- of the script (lib/set_gate). Returns whether it may look for room, whose turn it is ('': nobody's), and how many tokens
-- `room` has.
local function may_pass(state, room, now, holder, turn_at, ticket, stays)
  local room_tokens, may = redis.call('LLEN', room), true
  if holder ~= '' and holder ~= ticket then
    local silence = now - tonumber(turn_at) -- negative: the clock was set back
    if silence >= 0 and silence < 3000 then
      may = false
    else
      holder = '' -- the one whose turn it was has not shown itself for 3 s: it died
      redis.call('HSET', state, 'turn', '')
      set_gate(TURN, false)
    end
  end
  if may and is(gate, BLOCKED) and holder == '' and not stays then
    if room_tokens == 0 then
      room_tokens = redis.call('RPUSH', room, 1) -- whoever waits may try; where nobody does, the next call sees this token
      may = false
    else
      set_gate(BLOCKED, false)
    end
  end
  return may, holder, room_tokens
end
