-- end_job: take the job's envelope and its unique key away. Returns the bytes that this frees, nil where there is
-- no such job. `keyed`: the job may have a unique key, so its envelope has to be read.
local function end_job(jobs, unique, windows, cost, id, keyed)
  local size, freed = 0, 0
  if keyed then
    local envelope = redis.call('HGET', jobs, id)
    local digest = envelope and unique_of(envelope)
    if digest then freed = free_unique(unique, windows, digest, id) end
    size = envelope and #envelope or 0
  else
    size = redis.call('HSTRLEN', jobs, id)
  end
  if redis.call('HDEL', jobs, id) == 0 then return nil end
  return freed + charge_of(size, cost)
end
