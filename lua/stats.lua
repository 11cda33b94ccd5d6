#!lua flags=no-writes,allow-oom
-- stats: the queue in numbers, without a scan.
--
-- KEYS  1 state  2 jobs  3 leases  4..7 due0..due3  8 unique  9 windows
-- RETURNS {OK, now ms, stored, active, due0, due1, due2, due3, oldest ms, next ms, unique, windows, producers,
--          field, value, ...}
--   stored  envelopes in `jobs`, dead ones too       oldest  of the jobs that could run now, -1: there is none
--   next    ms until a lease expires or a job is due, -1: nothing is coming     then what the state hash says, flat
--   UNDECLARED BAD_FORMAT
-- COST O(1)

-- @include lib/status
-- @include lib/clock
-- @include lib/layout
-- @include lib/envelope
-- @include lib/oldest
-- @include lib/next_event
-- @include lib/report

local state, jobs, leases = KEYS[1], KEYS[2], KEYS[3]
local s = redis.call('HMGET', state, 'head0', 'tail0', 'head1', 'tail1', 'head2', 'tail2', 'head3', 'tail3', 'format')
if s[9] ~= '1' then return { s[9] and BAD_FORMAT or UNDECLARED } end
local oldest, next_ms = oldest_ready(jobs, now, s), upcoming(leases, KEYS[4], KEYS[5], KEYS[6], KEYS[7])
oldest = math.max(oldest, now - next_ms) -- what is due and was not claimed yet
next_ms = next_ms == 2 ^ 53 - 1 and -1 or math.max(next_ms - now, 0)
local fields, producers = report(state)
return { OK, now, redis.call('HLEN', jobs), redis.call('ZCARD', leases), redis.call('ZCARD', KEYS[4]),
  redis.call('ZCARD', KEYS[5]), redis.call('ZCARD', KEYS[6]), redis.call('ZCARD', KEYS[7]), math.max(oldest, -1),
  next_ms, redis.call('HLEN', KEYS[8]), redis.call('ZCARD', KEYS[9]), producers, unpack(fields) }
