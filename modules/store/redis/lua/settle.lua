-- KEYS[1]: what the keys of the token's digests begin with. ARGV: the window in ms, the digests that are done, and those
-- that are released, each behind its owner.
local head, window, done, released = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
for at = 1, #done, 16 do
	local key = head .. string.sub(done, at, at + 15)
	-- What is done for longer than the window stays so.
	if redis.call('GET', key) ~= '1' or redis.call('PTTL', key) < tonumber(window) then
		redis.call('SET', key, '1', 'PX', window)
	end
end
for at = 1, #released, 32 do
	local key = head .. string.sub(released, at + 16, at + 31)
	if redis.call('GET', key) == string.sub(released, at, at + 15) then
		redis.call('DEL', key)
	end
end
return 1
