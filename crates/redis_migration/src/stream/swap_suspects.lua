-- Swaps two databases in the list of suspect keys.
--
-- KEYS  the list of suspect keys
-- ARGV  the two databases
local all = redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES')
redis.call('DEL', KEYS[1])
for i = 1, #all, 2 do
  local db, key = string.match(all[i], '^(%d+):(.*)$')
  if db == ARGV[1] then db = ARGV[2] elseif db == ARGV[2] then db = ARGV[1] end
  redis.call('ZADD', KEYS[1], all[i + 1], db .. ':' .. key)
end
