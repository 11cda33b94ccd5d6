#!lua flags=allow-oom
-- control: change what is set on a queue: limits, pause, seal. Each change is recorded in `events`.
--
-- KEYS
--   1 state  2 jobs  3 leases  4..7 due0..due3  8 dead  9 errors  10 wake  11 room  12 turn  13 events
-- ARGV
--   1 what   limits | pause | resume | seal | unseal
--   2 by     who, and why, as they say; cut by the caller
--   3..      {field, value}, flat: limits only
-- RETURNS {OK, changed, field, value, ...}: what the state hash says, flat. changed 0: it was so already
--   UNDECLARED BAD_FORMAT
-- COST O(1); lowered limits drop up to 2,000 dead letters, call again while dead_jobs is above

-- @include lib/status
-- @include lib/clock
-- @include lib/layout
-- @include lib/charge
-- @include lib/dead
-- @include lib/probe
-- @include lib/gate
-- @include lib/report

local state, jobs, wake, room, turn, events = KEYS[1], KEYS[2], KEYS[10], KEYS[11], KEYS[12], KEYS[13]
local what, by = ARGV[1], ARGV[2]
local s = redis.call('HMGET', state, 'format', 'cost', 'paused_at', 'sealed_at', 'gate')
if s[1] ~= '1' then return { s[1] and BAD_FORMAT or UNDECLARED } end

local gate = tonumber(s[5])
-- @include lib/set_gate
probe({ jobs, KEYS[9] }, { KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8] }, { wake, room, turn })
redis.call('XLEN', events)

local SWITCHES = { pause = { 'paused', true, s[3] }, resume = { 'paused', false, s[3] },
  seal = { 'sealed', true, s[4] }, unseal = { 'sealed', false, s[4] } }
local changed, from, to = 0, {}, {}
if what == 'limits' then
  for i = 3, #ARGV, 2 do
    local old = redis.call('HGET', state, ARGV[i])
    if old ~= ARGV[i + 1] then
      from[#from + 1], to[#to + 1] = ARGV[i] .. '=' .. (old or ''), ARGV[i] .. '=' .. ARGV[i + 1]
      redis.call('HSET', state, ARGV[i], ARGV[i + 1])
      changed = 1
    end
  end
  save_dead(state, jobs, KEYS[8], KEYS[9], tonumber(s[2]), load_dead(state, now))
else
  local name, on, at = unpack(SWITCHES[what])
  if on ~= (at ~= '0') then
    changed = 1
    redis.call('HSET', state, name .. '_at', on and now or 0, name .. '_by', on and by or '')
    if name == 'sealed' then set_gate(CLOSED, on) end
  end
end
if changed == 1 then
  redis.call('XADD', events, 'MAXLEN', 1000, '*', 'event', what, 'by', by, 'from', table.concat(from, ' '),
    'to', table.concat(to, ' '))
  if what == 'resume' and redis.call('LLEN', wake) == 0 then redis.call('RPUSH', wake, 1) end
  if what == 'limits' then
    -- @include lib/room
    local counts = redis.call('HMGET', state, 'dead_jobs', 'bytes')
    room_freed(state, room, turn, now, redis.call('HLEN', jobs) - counts[1], tonumber(counts[2]))
  end
end
return { OK, changed, unpack((report(state))) }
