-- Scores of the sorted sets. A score holds a time and what must survive beside it, in 53 bits.
--   leases  tick * 2^20 + unique * 2^19 + nonce * 2^11 + expired * 2^7 + attempt     tick: 100 ms since EPOCH
--   due, dead   ms * 2^12 + given back * 2^11 + expired * 2^7 + attempt              ms since EPOCH
-- fence = score mod 2^20: what a settlement must show. The tick is left out, so an extension keeps the fence.
-- given back: the job was released at least once, so it is not fresh although its attempt may be 0.
-- attempt (0-127): deliveries that were not given back; expired (0-15): those of them that ended in a lost lease.
local EPOCH, TICK = 1704067200000, 100
local FENCES, COUNTS, GIVEN_BACK, MOST_EXPIRED = 2 ^ 20, 2 ^ 12, 2 ^ 11, 15
