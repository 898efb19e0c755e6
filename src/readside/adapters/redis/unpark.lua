-- Takes back that a document is parked, if it still is the same parking.
-- KEYS: parked hash. ARGV: field, value.
if redis.call('HGET', KEYS[1], ARGV[1]) == ARGV[2] then
    redis.call('HDEL', KEYS[1], ARGV[1])
end
return 'OK'
