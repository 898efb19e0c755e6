-- Takes back that a document is parked, if it still is the same parking.
-- KEYS: parked hash. ARGV: field, entry.
local left = {}
for entry in string.gmatch(redis.call('HGET', KEYS[1], ARGV[1]) or '', '%S+') do
    if entry ~= ARGV[2] then
        left[#left + 1] = entry
    end
end
if #left > 0 then
    redis.call('HSET', KEYS[1], ARGV[1], table.concat(left, ' '))
else
    redis.call('HDEL', KEYS[1], ARGV[1])
end
return 'OK'
