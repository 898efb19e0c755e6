-- Applies one batch: checks everything first, then writes; Lua has no rollback.
-- KEYS: checkpoints hash, positions hash, parked hash, then the key of each document.
-- ARGV: partition, expected checkpoint, new checkpoint ('' leaves it), 'overwrite' or ''; then in columns,
--       for n documents: n times the expected positions (unless they are overwritten unseen); n times field
--       and new positions; n times the JSON, '' to delete;
--       then field and entry of each parked document.
-- Positions are compared as texts: Lua's numbers lose bits above 2^53.
local partition, expected, checkpoint = ARGV[1], ARGV[2], ARGV[3]
if checkpoint ~= '' then
    local current = redis.call('HGET', KEYS[1], partition) or ''
    if current ~= expected then
        return 'FENCED'
    end
end
local count = #KEYS - 3
local overwrites, prefix = ARGV[4] ~= '', partition .. ':'
local pairs_from = overwrites and 4 or 4 + count
local documents_from = pairs_from + 2 * count
local chunk = 1000
for first = 1, count, chunk do
    local last = math.min(count, first + chunk - 1)
    local fields = {}
    for n = first, last do
        fields[n - first + 1] = ARGV[pairs_from + 2 * n - 1]
    end
    local stored = redis.call('HMGET', KEYS[2], unpack(fields))
    for n = first, last do
        local has = stored[n - first + 1] or ''
        if not overwrites then
            if has ~= ARGV[4 + n] then
                return 'CONFLICT'
            end
        elseif has ~= '' then
            -- Of one width, and with digits and lower-case letters only, so that every locale agrees.
            local new = ARGV[pairs_from + 2 * n]
            if #has ~= #new or has >= new or string.sub(has, 1, #prefix) ~= prefix then
                return 'CONFLICT'
            end
        end
    end
end
local parked = documents_from + count + 1
if #ARGV >= parked then
    redis.call('HLEN', KEYS[3]) -- fails here, before anything is written, if it is no hash
end
for first = 1, count, chunk do
    local last = math.min(count, first + chunk - 1)
    local documents, gone = {}, {}
    local at = 0
    for n = first, last do
        local document = ARGV[documents_from + n]
        if document ~= '' then
            documents[at + 1] = KEYS[3 + n]
            documents[at + 2] = document
            at = at + 2
        else
            gone[#gone + 1] = KEYS[3 + n]
        end
    end
    redis.call('HSET', KEYS[2], unpack(ARGV, pairs_from + 2 * first - 1, pairs_from + 2 * last))
    if at > 0 then
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
