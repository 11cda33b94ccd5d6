-- now: the server's clock in Unix milliseconds, the only clock of leases, delays, expiry and age.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
