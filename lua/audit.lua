#!lua flags=no-writes,allow-oom
-- audit: one bounded step of looking for jobs that are in no state, or in two, and for entries without a job.
--
-- KEYS  1 state  2 jobs  3 leases  4..7 due0..due3  8 dead  9 errors
-- ARGV
--   1 which   jobs | leases | due0 .. due3 | dead | errors: the key to walk through
--   2 cursor  3 count: entries to look at, about
-- RETURNS {OK, cursor, looked at, {id, what}, ...}, the pairs flat; cursor "0": done
--   what  stranded: a job in no state, which nobody will ever be given   double: a job in two
--         no_job: an entry without a job   no_letter: a text without a dead letter
--   UNDECLARED BAD_FORMAT
-- COST O(count). Each step looks at one moment, so what it finds is so, whatever else goes on.

-- @include lib/status

local state, jobs, dead = KEYS[1], KEYS[2], KEYS[8]
local which, cursor, count = ARGV[1], ARGV[2], ARGV[3]
local s = redis.call('HMGET', state, 'format', 'head0', 'tail0', 'head1', 'tail1', 'head2', 'tail2', 'head3', 'tail3')
if s[1] ~= '1' then return { s[1] and BAD_FORMAT or UNDECLARED } end

-- faulty: what is wrong with a job, nil where nothing is.
local function faulty(id)
  local number = tonumber(id)
  if not number or not string.find(id, '^%d+$') then return 'stranded' end
  local places = 0
  for _, key in ipairs({ KEYS[3], KEYS[4 + number % 4], dead }) do
    if redis.call('ZSCORE', key, id) then places = places + 1 end
  end
  local slot, sequence = number % 8, math.floor(number / 8)
  if slot < 4 and sequence > tonumber(s[2 + 2 * slot]) and sequence <= tonumber(s[3 + 2 * slot]) then
    places = places + 1
  end
  if places ~= 1 then return places == 0 and 'stranded' or 'double' end
end

local reply = { OK, '0', 0 }
if which == 'jobs' or which == 'errors' then
  local found = redis.call('HSCAN', which == 'jobs' and jobs or KEYS[9], cursor, 'COUNT', count)
  reply[2], reply[3] = found[1], #found[2] / 2
  for i = 1, #found[2], 2 do
    local id = found[2][i]
    local what
    if which == 'jobs' then
      what = faulty(id)
    elseif not redis.call('ZSCORE', dead, id) then
      what = 'no_letter'
    end
    if what then reply[#reply + 1], reply[#reply + 2] = id, what end
  end
else
  local key = which == 'leases' and KEYS[3] or which == 'dead' and dead or KEYS[4 + string.sub(which, 4)]
  local found = redis.call('ZSCAN', key, cursor, 'COUNT', count)
  reply[2], reply[3] = found[1], #found[2] / 2
  for i = 1, #found[2], 2 do
    if redis.call('HEXISTS', jobs, found[2][i]) == 0 then
      reply[#reply + 1], reply[#reply + 2] = found[2][i], 'no_job'
    end
  end
end
return reply
