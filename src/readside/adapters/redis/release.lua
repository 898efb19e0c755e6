-- Ends a reset, unless somebody has moved a checkpoint meanwhile.
-- KEYS: checkpoints hash, then what goes.
-- ARGV: partition and expected checkpoint, for each.
for n = 1, #ARGV, 2 do
    if redis.call('HGET', KEYS[1], ARGV[n]) ~= ARGV[n + 1] then
        return 0
    end
end
redis.call('DEL', unpack(KEYS, 2))
return 1
