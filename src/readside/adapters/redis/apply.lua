-- Applies one batch: checks everything first, then writes; Lua has no rollback.
-- KEYS: checkpoints hash, positions hash, parked hash, then the documents' keys.
-- ARGV: partition, expected checkpoint, new checkpoint ('' leaves it), number of documents, then for each
--       document its field, expected positions, new positions, and '=' .. JSON or '-' to delete; then
--       field and entry of each parked document.
-- Positions are compared as texts: Lua's numbers lose bits above 2^53.
local partition, expected, checkpoint, count = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
if checkpoint ~= '' then
    local current = redis.call('HGET', KEYS[1], partition) or ''
    if current ~= expected then
        return 'FENCED'
    end
end
local chunk = 1000
for first = 1, count, chunk do
    local last = math.min(count, first + chunk - 1)
    local fields = {}
    for n = first, last do
        fields[#fields + 1] = ARGV[1 + 4 * n]
    end
    local stored = redis.call('HMGET', KEYS[2], unpack(fields))
    for n = first, last do
        if (stored[n - first + 1] or '') ~= ARGV[2 + 4 * n] then
            return 'CONFLICT'
        end
    end
end
local parked = 5 + 4 * count
if #ARGV >= parked then
    redis.call('HLEN', KEYS[3]) -- fails here, before anything is written, if it is no hash
end
for first = 1, count, chunk do
    local last = math.min(count, first + chunk - 1)
    local positions, documents, gone = {}, {}, {}
    for n = first, last do
        local at = 4 * n
        positions[#positions + 1] = ARGV[1 + at]
        positions[#positions + 1] = ARGV[3 + at]
        local document = ARGV[4 + at]
        if string.byte(document, 1) == 61 then
            documents[#documents + 1] = KEYS[3 + n]
            documents[#documents + 1] = string.sub(document, 2)
        else
            gone[#gone + 1] = KEYS[3 + n]
        end
    end
    redis.call('HSET', KEYS[2], unpack(positions))
    if #documents > 0 then
        redis.call('MSET', unpack(documents))
    end
    if #gone > 0 then
        redis.call('DEL', unpack(gone))
    end
end
-- A document may be parked behind several partitions: one entry, partition:parking, for each.
for n = parked, #ARGV, 2 do
    local entries = { ARGV[n + 1] }
    for entry in string.gmatch(redis.call('HGET', KEYS[3], ARGV[n]) or '', '%S+') do
        if string.match(entry, '^%d+') ~= partition then
            entries[#entries + 1] = entry
        end
    end
    redis.call('HSET', KEYS[3], ARGV[n], table.concat(entries, ' '))
end
if checkpoint ~= '' then
    redis.call('HSET', KEYS[1], partition, checkpoint)
end
return 'APPLIED'
