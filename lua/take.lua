#!lua flags=allow-oom
-- take: one batch of a purge: take out those of these jobs that are still in the state in which they were read. With a
-- mark the batch is taken once: a second sending, and a purge that goes on after a crash, learn what the first took.
--
-- KEYS
--   1 state  2 jobs  3 leases  4..7 due0..due3  8 dead  9 errors  10 unique  11 windows  12 room  13 turn
-- ARGV
--   1 mark     ""  or who purges: 12 characters
--   2 number   of this batch, from 1 up; this and smaller ones of the same mark are not taken any more
--   3 which    ready | scheduled | active | dead; without ids: begin | ask
--   4.. ids    at most 200; none: take nothing; "begin": a purge begins, or goes on behind a batch that it knows all
--              of; "ask": what became of the batch before this number?
-- RETURNS {OK, removed, last, took, known}
--   last       the last batch that was taken; 0, or less than was asked for: that batch never was; -1: not known, since
--              somebody else has purged meanwhile
--   took       of the batch `last`, an id's bit is 1 where it was taken: 6 bits a character, lowest first, from "0" on
--   known      1: the queue's last purge was this one, so an earlier sending of this call was not done; 0: nobody can say
--   REPEATED   {REPEATED, 0, last, took}: this number was used before; nothing is done
--   UNDECLARED BAD_FORMAT
-- COST O(n log N), and steps over 1,000 holes at the head of a ring at most

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

local state, mark, number, which = KEYS[1], ARGV[1], tonumber(ARGV[2]), ARGV[3]
local s = redis.call('HMGET', state, 'format', 'purge_mark', 'purge_number', 'purge_last', 'purge_took')
if s[1] ~= '1' then return { s[1] and BAD_FORMAT or UNDECLARED } end
probe_remove()
local known = mark ~= '' and s[2] == mark
if known and number <= tonumber(s[3]) then return { REPEATED, 0, tonumber(s[4]), s[5] } end
if #ARGV < 4 then
  local last, took = which == 'ask' and -1 or 0, ''
  if known then
    last, took = tonumber(s[4]), s[5]
    if tonumber(s[3]) < number - 1 then last, took = 0, '' end
  end
  redis.call('HSET', state, 'purge_mark', mark, 'purge_number', number, 'purge_last', last, 'purge_took', took)
  return { OK, 0, last, took, known and 1 or 0 }
end

local ids, place_of = {}, {}
for i = 4, #ARGV do
  local id = ARGV[i]
  place_of[id] = i - 4
  if where_is(id, KEYS[3], KEYS[8], KEYS[4 + tonumber(id) % 4]) == which then ids[#ids + 1] = id end
end
local removed = remove_jobs(ids, 'purged')
local sums, rings = {}, {}
for _, id in ipairs(removed) do
  local place = place_of[id]
  local at = math.floor(place / 6) + 1
  sums[at] = (sums[at] or 0) + 2 ^ (place % 6)
  rings[tonumber(id) % 4] = true
end
local took = ''
for at = 1, math.ceil((#ARGV - 3) / 6) do took = took .. string.char(48 + (sums[at] or 0)) end
if mark ~= '' then
  redis.call('HSET', state, 'purge_mark', mark, 'purge_number', number, 'purge_last', number, 'purge_took', took)
end
if which == 'ready' then -- what was taken at the head of a ring is not stepped over again by every claim
  for k in pairs(rings) do
    local ring = redis.call('HMGET', state, 'head' .. k, 'tail' .. k)
    local head = tonumber(ring[1])
    local first, stop = head, math.min(tonumber(ring[2]), head + 1000)
    while head < stop and redis.call('HEXISTS', KEYS[2], string.format('%d', (head + 1) * 8 + k)) == 0 do
      head = head + 1
    end
    if head > first then redis.call('HSET', state, 'head' .. k, head) end
  end
end
return { OK, #removed, number, took, known and 1 or 0 }
