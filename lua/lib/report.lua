-- report: the fields of `state` and their values, flat, without the producers; and how many producers there are.
-- @include lib/fields
local LIMITS = { 'max_jobs', 'max_bytes', 'max_job_bytes', 'max_dead_jobs', 'max_dead_bytes', 'max_deliveries',
  'max_age', 'dead_ttl' }
local function report(state)
  local names, flat = {}, {}
  for i = 1, #FIELDS, 2 do names[#names + 1] = FIELDS[i] end
  for _, name in ipairs(LIMITS) do names[#names + 1] = name end
  local producers = redis.call('HLEN', state)
  for i, value in ipairs(redis.call('HMGET', state, unpack(names))) do
    if value then
      producers = producers - 1
      if names[i] ~= 'about' then flat[#flat + 1], flat[#flat + 2] = names[i], value end
    end
  end
  return flat, producers
end
