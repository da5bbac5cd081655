-- KEYS[1]: what the keys of the token's digests begin with. ARGV: the owner, the lease in ms, the digests.
-- Returns 1 if all are reserved now, else a byte for each digest: 1 reserved, 2 busy, 3 done.
local head, owner, lease, digests = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
local claims, n = nil, 0
for at = 1, #digests, 16 do
	local key = head .. string.sub(digests, at, at + 15)
	local claim = '1'
	if not redis.call('SET', key, owner, 'NX', 'PX', lease) then
		local found = redis.call('GET', key)
		if found == '1' then
			claim = '3'
		elseif found == owner then
			redis.call('PEXPIRE', key, lease)
		else
			claim = '2'
		end
		if claim ~= '1' and not claims then
			claims = {}
			for i = 1, n do
				claims[i] = '1'
			end
		end
	end
	n = n + 1
	if claims then
		claims[n] = claim
	end
end
return claims and table.concat(claims) or 1
