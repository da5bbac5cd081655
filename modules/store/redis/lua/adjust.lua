-- KEYS[1]: a counter of a window. ARGV: what to add to what is used, and the most that may be used.
-- Returns what is used and what the nodes hold then.
local stored = redis.call('HMGET', KEYS[1], 'used', 'held')
if not stored[1] then
	return { 0, 0 }
end
local used, held, n = tonumber(stored[1]), tonumber(stored[2]), tonumber(ARGV[1])
if n > 0 then
	used = math.max(used, math.min(used + n, tonumber(ARGV[2])))
else
	used = math.max(used + n, held)
end
redis.call('HSET', KEYS[1], 'used', string.format('%.0f', used))
return { used, held }
