-- Reading an envelope's fixed head (lua/README.md, "Envelope"): version, flags, created, [expires], [unique]. Bytes
-- that somebody else put there are too short or say nonsense: they read as "no expiry, no key, created in 1970".
local function number_at(envelope, first)
  local a, b, c, d, e, f = string.byte(envelope, first, first + 5)
  return f and ((((a * 256 + b) * 256 + c) * 256 + d) * 256 + e) * 256 + f or 0
end
local function expires_at(envelope) -- nil: never
  if (string.byte(envelope, 2) or 0) % 2 == 1 and #envelope >= 14 then return number_at(envelope, 9) end
end
local function unique_of(envelope) -- nil: none
  local flags = string.byte(envelope, 2) or 0
  if flags % 4 >= 2 then
    local first = flags % 2 == 1 and 15 or 9
    return string.sub(envelope, first, first + 15)
  end
end
