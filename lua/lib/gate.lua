-- gate: one field of `state` for what a plain enqueue has to heed, so that it reads one field instead of four. Bits:
--   IDLE     a worker may be waiting on `wake`
--   BLOCKED  a producer may be waiting on `room`
--   TURN     a producer has the turn (`turn` says which)
--   CLOSED   admission is closed (`sealed_at` says since when)
local IDLE, BLOCKED, TURN, CLOSED = 1, 2, 4, 8

local function is(gate, bit) return gate % (2 * bit) >= bit end
