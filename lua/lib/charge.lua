-- charge_of(size, cost): bytes taken from the budget for an envelope of `size` bytes, for the worst state of the
-- job's life. cost > 0: jemalloc's size classes; cost < 0: libc malloc. The model and the constants are measured
-- (lua/README.md, "Charge"); tests/model/test_calibration.py holds them against used_memory on every server.
local function charge_of(size, cost)
  local stored = size + (size < 256 and 4 or size < 65536 and 6 or 10) -- the string's own header and NUL
  if cost > 0 then
    if stored <= 128 then return stored + -stored % 16 + cost end
    local _, exponent = math.frexp(stored - 1)
    local class = 2 ^ (exponent - 3) -- four classes to each doubling
    return stored + -stored % class + cost
  end
  local bytes = stored + 24 - cost
  if stored >= 32768 then bytes = bytes + math.ceil(stored / 128) end
  if stored >= 131000 then bytes = bytes + 4096 end
  return bytes
end
