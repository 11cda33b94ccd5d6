-- claim_one: the usual claim of an idle worker, which wants one job, where nothing is due, nobody waits for room and
-- the first ready job is there. It returns; in every other case the script goes on. It does what the rest of the
-- script would do (tests/lua/test_claim_one.py), without what that needs for other cases.
if s[3] == '0' and (s[16] == '0' or s[16] == '1') and s[4] - now > 0 and now - s[7] < 1000 then
  local k, head, tail = 4
  repeat
    k = k - 1
    head, tail = s[8 + 2 * k] + 0, s[9 + 2 * k] + 0
  until head < tail or k == 0
  local id = string.format('%d', (head + 1) * 8 + k)
  local envelope = head < tail and redis.call('HGET', jobs, id)
  local expires = envelope and expires_at(envelope)
  if envelope and not (expires and expires <= now) then
    local others = head + 1 < tail
    for lower = k - 1, 0, -1 do others = others or s[8 + 2 * lower] + 0 < s[9 + 2 * lower] + 0 end
    local waking = wait == 2 and redis.call('LLEN', wake) == 0 and others
    local deadline = math.ceil((now + lease - EPOCH) / TICK)
    local fence = (unique_of(envelope) and 2 ^ 19 or 0) + nonce * 2 ^ 11 + 1
    redis.call('ZADD', leases, string.format('%d', deadline * FENCES + fence), id)
    local expiry = deadline * TICK + EPOCH
    local next_event = expiry < s[4] + 0 and string.format('%d', expiry) or s[4]
    redis.call('HSET', state, 'head' .. k, string.format('%d', head + 1), 'deliveries', string.format('%d', s[17] + 1),
      'next_event', next_event, 'gate', wait == 2 and '1' or s[16])
    if waking then redis.call('RPUSH', wake, 1) end
    return { OK, now, expiry, -1, 0, id, fence, envelope }
  end
end
