-- probe: a key of a foreign type has to fail a script before it has written anything. Reads that do.
local function probe(hashes, zsets, lists)
  for _, key in ipairs(hashes) do redis.call('HLEN', key) end
  for _, key in ipairs(zsets) do redis.call('ZCARD', key) end
  for _, key in ipairs(lists) do redis.call('LLEN', key) end
end
