-- KEYS: the list of the token's counters, the counters of the draws from quotas, those of the draws from rates.
-- ARGV: the number of draws from quotas; for each of them the counter's name, the node, the number of its account, the
-- window's start and end in us, until when to keep the counter in ms, and limit, unspent, granted, returned, held, need
-- and extra; for each draw from a rate the interval in ns, and burst, need, extra and return.
-- Returns the time in s and us; for each draw from a quota what is given and used, and 1 if it is stale; for each draw
-- from a rate what is given and left, and the wait in ns.
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local out = { tonumber(clock[1]), tonumber(clock[2]) }
local max, min, floor = math.max, math.min, math.floor

local function text(number)
	return string.format('%.0f', number)
end

-- list removes the list's old counters, and keeps the list until so many ms since 1970.
local function list(name, keep)
	redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', '(' .. text(floor(now / 1000)))
	redis.call('ZADD', KEYS[1], keep, name)
	if redis.call('PTTL', KEYS[1]) < keep - now / 1000 then
		redis.call('PEXPIREAT', KEYS[1], text(keep))
	end
end

local quotas, at = tonumber(ARGV[1]), 2
for i = 1, quotas do
	local key, name, node, account = KEYS[1 + i], ARGV[at], 'n:' .. ARGV[at + 1], tonumber(ARGV[at + 2])
	local first, last, keep = tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4]), tonumber(ARGV[at + 5])
	local limit, unspent = tonumber(ARGV[at + 6]), tonumber(ARGV[at + 7])
	local told, returned, held = tonumber(ARGV[at + 8]), tonumber(ARGV[at + 9]), tonumber(ARGV[at + 10])
	local need, extra = tonumber(ARGV[at + 11]), tonumber(ARGV[at + 12])
	at = at + 13

	-- The counter is a hash: used, held, and for each node "n:<name>", which is "account:granted:returned:held".
	local stored = redis.call('HMGET', key, 'used', 'held', node)
	local used, all = tonumber(stored[1] or 0), tonumber(stored[2] or 0)
	local a, g, r, h = account, 0, 0, 0
	if stored[3] then
		a, g, r, h = string.match(stored[3], '^(%d+):(%d+):(%d+):(%d+)$')
		a, g, r, h = tonumber(a), tonumber(g), tonumber(r), tonumber(h)
	end
	if account > a then
		-- The new account takes the place of the old one, whose sums stay in used.
		g, r = 0, 0
	end
	local granted, stale = told, 1
	if now >= first and now < last then
		stale = 0
	end
	if stale == 0 and account >= a then
		-- What is stored of the node may be newer than the draw, if an answer was lost or the draw comes late. It may be
		-- older, if Redis has lost what it knew. The sums only grow.
		granted, returned = max(g, told), max(r, returned)
		used = used + granted - returned - (g - r)
		local brought = granted - told
		local rest = max(0, need - brought)
		if rest == 0 or rest <= limit - used then
			granted, used, brought = granted + rest, used + rest, brought + rest
			local more = min(need + extra - brought, limit - used, unspent - (all - h) - (held + brought - need))
			if more > 0 then
				granted, used, brought = granted + more, used + more, brought + more
			end
			brought = brought - need
		end
		held = held + brought
		redis.call('HSET', key, 'used', text(used), 'held', text(all + held - h), node,
			text(account) .. ':' .. text(granted) .. ':' .. text(returned) .. ':' .. text(held))
		if not stored[1] then
			redis.call('PEXPIREAT', key, text(keep))
			list(name, keep)
		end
	end
	out[#out + 1] = granted
	out[#out + 1] = used
	out[#out + 1] = stale
end

for i = 2 + quotas, #KEYS do
	local key, interval, burst = KEYS[i], tonumber(ARGV[at]), tonumber(ARGV[at + 1])
	local need, extra, back = tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4])
	at = at + 5

	-- For how long, in ns from now, the counter is not full. A clock that was set back takes nothing away from that.
	local stored, behind = redis.call('GET', key), 0
	if stored then
		local since, ahead = string.match(stored, '^(%d+):(%d+)$')
		behind = tonumber(ahead) - max(0, now - tonumber(since)) * 1000
	end
	behind = max(0, behind - back * interval)
	local span = burst * interval
	local left = max(0, floor((span - behind) / interval))
	local given, wait = 0, 0
	if need <= left then
		given = need + min(extra, left - need)
		behind = behind + given * interval
	else
		wait = need * interval - (span - behind)
	end
	if behind > 0 then
		redis.call('SET', key, text(now) .. ':' .. text(behind), 'PX', text(floor(behind / 1000000) + 1))
	elseif stored then
		redis.call('DEL', key)
	end
	out[#out + 1] = given
	out[#out + 1] = max(0, floor((span - behind) / interval))
	out[#out + 1] = wait
end
return out
