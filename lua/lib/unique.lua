-- A unique key is charged beside its job: UNIQUE for its entry, WINDOW more while it has a window.
local UNIQUE, WINDOW = 128, 160

-- free_unique: the job `id` that held `digest` has ended. Returns the bytes that this frees. A key whose window
-- is still open stays, and stays charged, until the window has passed (close_windows).
local function free_unique(unique, windows, digest, id)
  if redis.call('HGET', unique, digest) ~= id then return 0 end
  if redis.call('ZSCORE', windows, digest) then return 0 end
  redis.call('HDEL', unique, digest)
  return UNIQUE
end

-- close_windows: forget up to 20 windows that have passed. Returns the bytes that this frees.
local function close_windows(unique, windows, jobs, dead, now)
  local freed = 0
  for _, digest in ipairs(redis.call('ZRANGE', windows, '-inf', now, 'BYSCORE', 'LIMIT', 0, 20)) do
    redis.call('ZREM', windows, digest)
    freed = freed + WINDOW
    local id = redis.call('HGET', unique, digest)
    if id and (redis.call('HEXISTS', jobs, id) == 0 or redis.call('ZSCORE', dead, id)) then
      redis.call('HDEL', unique, digest)
      freed = freed + UNIQUE
    end
  end
  return freed
end
