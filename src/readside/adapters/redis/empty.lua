-- Removes documents while nobody else works on the projection.
-- KEYS: checkpoints hash, positions hash, then the documents' keys.
-- ARGV: number of checkpoints, then partition and expected checkpoint of each; then the documents' fields.
local count = tonumber(ARGV[1])
for n = 1, count do
    if redis.call('HGET', KEYS[1], ARGV[2 * n]) ~= ARGV[2 * n + 1] then
        return -1
    end
end
local removed = 0
for n = 3, #KEYS do
    removed = removed + redis.call('DEL', KEYS[n])
    redis.call('HDEL', KEYS[2], ARGV[2 * count + n - 1])
end
return removed
