-- KEYS[1]: a record. ARGV: the channel and the name to publish; the number of fields that the record has now, and these,
-- each followed by its value; the fields and values that it is to have. Returns 1, or 0 if the record is another one.
local n = tonumber(ARGV[3])
if redis.call('HLEN', KEYS[1]) ~= n then
	return 0
end
for i = 4, 2 + 2 * n, 2 do
	if redis.call('HGET', KEYS[1], ARGV[i]) ~= ARGV[i + 1] then
		return 0
	end
end
redis.call('DEL', KEYS[1])
for i = 4 + 2 * n, #ARGV, 2 do
	redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
end
redis.call('PUBLISH', ARGV[1], ARGV[2])
return 1
