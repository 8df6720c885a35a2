-- Checks keys before a change of the stream, while the target lags: keys that have expired early at the target, or are about
-- to, become suspect until they are read again at the source.
--
-- KEYS  the list of suspect keys, then the keys of the change
-- ARGV  1 the database of the keys
--       2 a TTL shorter than this is removed, so that only the source ends it, milliseconds; 0: only keys in the list count
--       3 score in the list: 0 is removed if the source says that the key never expires, 1 is always read again
--       4 number of list entries that follow
--       … entries of the list: one for each key, and for other keys that the change writes
--       … the change itself, if it fails on a missing key
local db, near, weight, count = ARGV[1], tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4])
local is_suspect = false
if near > 0 then
  for i = 2, #KEYS do
    local left = redis.call('PTTL', KEYS[i])
    if left == -2 then
      is_suspect = true
    elseif left >= 0 and left < near then
      redis.call('PERSIST', KEYS[i])
      is_suspect = true
    end
  end
end
if db ~= '0' then redis.call('SELECT', '0') end
for i = 5, 4 + count do
  if redis.call('ZSCORE', KEYS[1], ARGV[i]) then is_suspect = true end
end
if is_suspect then
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
  if is_suspect then
    redis.pcall(unpack(ARGV, 5 + count))
  else
    redis.call(unpack(ARGV, 5 + count))
  end
end
