-- may_pass: newcomers do not overtake those who wait for room. `s` is {turn, turn_at, blocked} as the state hash has
-- them, `ticket` the caller's own ('': none), `stays` whether it has a place in the line already. Returns whether it
-- may look for room, whose turn it is ('': nobody's), whether somebody may be waiting, and how many tokens `room` has.
local function may_pass(state, room, now, s, ticket, stays)
  local holder, blocked, room_tokens, may = s[1], s[3] == '1', redis.call('LLEN', room), true
  if holder ~= '' and holder ~= ticket then
    local silence = now - tonumber(s[2]) -- negative: the clock was set back
    if silence >= 0 and silence < 3000 then
      may = false
    else
      holder = '' -- the one whose turn it was has not shown itself for 3 s: it died
      redis.call('HSET', state, 'turn', '')
    end
  end
  if may and blocked and holder == '' and not stays then
    if room_tokens == 0 then
      room_tokens = redis.call('RPUSH', room, 1) -- whoever waits may try; where nobody does, the next call sees this token
      may = false
    else
      blocked = false
      redis.call('HSET', state, 'blocked', 0)
    end
  end
  return may, holder, blocked, room_tokens
end
