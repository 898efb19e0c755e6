-- Begins a reset, unless somebody newer is at work: says so to readers, and sets the checkpoints.
-- KEYS: checkpoints hash, halted hash.
-- ARGV: field and text for the halted hash; then partition and checkpoint, for each.
-- A checkpoint begins with its token, always of one width, so that texts compare as numbers do.
for n = 3, #ARGV, 2 do
    local token = string.match(redis.call('HGET', KEYS[1], ARGV[n]) or '', '^%d+ ')
    if token and token >= string.match(ARGV[n + 1], '^%d+ ') then
        return 0
    end
end
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
redis.call('DEL', KEYS[1])
for n = 3, #ARGV, 2 do
    redis.call('HSET', KEYS[1], ARGV[n], ARGV[n + 1])
end
return 1
