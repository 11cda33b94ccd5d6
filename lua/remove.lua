#!lua flags=allow-oom
-- remove: take jobs out, in whatever state they are. An active one's token becomes lost.
--
-- KEYS
--   1 state  2 jobs  3 leases  4..7 due0..due3  8 dead  9 errors  10 unique  11 windows  12 room  13 turn
-- ARGV
--   1 counter  cancelled | purged | dropped: dead letters only   2.. ids, at most 300
-- RETURNS {OK, removed, id, ...}: the ids that were here
--   UNDECLARED BAD_FORMAT
-- COST O(n log N)

-- @include lib/status
-- @include lib/charge
-- @include lib/clock
-- @include lib/layout
-- @include lib/envelope
-- @include lib/unique
-- @include lib/end_job
-- @include lib/where
-- @include lib/dead
-- @include lib/probe
-- @include lib/gate
-- @include lib/remove

probe_remove()
local ids = {}
for i = 2, #ARGV do
  -- A dead letter that went back to work is not dropped.
  if ARGV[1] ~= 'dropped' or redis.call('ZSCORE', KEYS[8], ARGV[i]) then ids[#ids + 1] = ARGV[i] end
end
local removed = remove_jobs(ids, ARGV[1])
if not removed then return { redis.call('EXISTS', KEYS[1]) == 1 and BAD_FORMAT or UNDECLARED } end
return { OK, #removed, unpack(removed) }
