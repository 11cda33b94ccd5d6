-- set_gate: turn a bit of `gate`, a local of the script, and of the field on or off.
local function set_gate(bit, on)
  if is(gate, bit) == on then return end
  gate = gate + (on and bit or -bit)
  redis.call('HSET', state, 'gate', gate)
end
