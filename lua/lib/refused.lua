-- refused: count refused jobs by reason. A resend that is refused is remembered instead, so that its first sending
-- cannot be admitted after it: the caller is told that the job was certainly not stored.
local function refused(counter, count)
  if resent then
    redis.call('HSET', state, producer, number .. ' x')
  else
    redis.call('HINCRBY', state, counter, count)
  end
end
