-- Looks at keys before a change of the stream reaches them, while the target is behind: those that its own clock has taken, or
-- is about to take, are doubted until the source is asked.
--
-- KEYS  the list of the doubted, then the keys of the change
-- ARGV  1 the database in which they are
--       2 a life shorter than this ends by the source's word only, milliseconds; 0: only what is doubted already counts
--       3 what the doubt weighs: 0 goes when the source says that the key never expires, 1 stands
--       4 how many places follow
--       … places, as they stand in the list: one for each key, and those that the change reaches beside them
--       … the change itself, where it fails upon what is not there
local db, near, weight, count = ARGV[1], tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4])
local doubted = false
if near > 0 then
  for i = 2, #KEYS do
    local left = redis.call('PTTL', KEYS[i])
    if left == -2 then
      doubted = true
    elseif left >= 0 and left < near then
      redis.call('PERSIST', KEYS[i])
      doubted = true
    end
  end
end
if db ~= '0' then redis.call('SELECT', '0') end
for i = 5, 4 + count do
  if redis.call('ZSCORE', KEYS[1], ARGV[i]) then doubted = true end
end
if doubted then
  for i = 5, 4 + count do
    if weight == '1' then
      redis.call('ZADD', KEYS[1], weight, ARGV[i])
    else
      redis.call('ZADD', KEYS[1], 'NX', weight, ARGV[i])
    end
  end
end
if db ~= '0' then redis.call('SELECT', db) end
if #ARGV > 4 + count then
  if doubted then
    redis.pcall(unpack(ARGV, 5 + count))
  else
    redis.call(unpack(ARGV, 5 + count))
  end
end
