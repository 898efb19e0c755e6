-- Events as messages of the log (outbox="message"), see docs/decisions/0015-transaction-messages.md.
-- A row for each app whose messages are events; rarely changed, so that it can be locked.
CREATE TABLE readside.messages (
    app         text PRIMARY KEY,
    -- Those of transactions which committed at this place of the log or later; 2^63-1 for none yet.
    from_lsn    bigint NOT NULL DEFAULT 9223372036854775807,
    -- The transaction since which none may be written any more, for polling cannot see them.
    ended       xid8,
    -- Bytes of a payload: no table checks it.
    max_payload bigint NOT NULL
);

-- Writes messages in the order of the array, and returns synchronous_commit. With its owner's rights, so
-- that those of pg_logical_emit_message can be taken from everybody else.
CREATE FUNCTION readside.emit(of_app text, contents bytea[]) RETURNS text LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog AS $$
DECLARE
    content bytea;
    place pg_lsn;
BEGIN
    -- Whoever ends the messages waits for all that have an id by then; the others see the end.
    PERFORM pg_current_xact_id();
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        -- Its snapshot may be older than the end: then this fails, or the end waits.
        PERFORM FROM readside.messages m WHERE m.app = of_app FOR SHARE;
    END IF;
    IF NOT EXISTS (
        SELECT FROM readside.messages m WHERE m.app = of_app AND m.ended IS NULL
            AND m.from_lsn < 9223372036854775807
    ) THEN
        RAISE EXCEPTION 'app % is not installed for outbox=message', of_app
            USING ERRCODE = 'RS003', HINT = 'run: readside init module:app, with outbox=message';
    END IF;
    FOREACH content IN ARRAY contents LOOP
        place := pg_logical_emit_message(true, 'readside:event:' || of_app, content);
    END LOOP;
    RETURN current_setting('synchronous_commit');
END
$$;

-- As readside.record, for programs in other languages; checks what the table checks.
CREATE FUNCTION readside.record_message(
    app text, type text, key text, payload json, version integer DEFAULT 1, headers json DEFAULT NULL
) RETURNS uuid LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
DECLARE
    id uuid := gen_random_uuid();
    broken text;
BEGIN
    SELECT string_agg(name, ', ') INTO broken FROM (VALUES
        ('type_can_travel', $2 ~ '^[a-z0-9_-]+(\.[a-z0-9_-]+)*$' AND length($2) <= 200),
        ('key_can_travel', octet_length($3) BETWEEN 1 AND 512 AND $3 !~ '[[:cntrl:]]'),
        ('version_counts_from_1', $5 >= 1),
        ('headers_are_an_object',
         $6 IS NULL OR (json_typeof($6) = 'object' AND octet_length($6::text) <= 4096)),
        ('max_payload', octet_length($4::text)
            <= (SELECT m.max_payload FROM readside.messages m WHERE m.app = $1))
    ) AS rules (name, kept) WHERE kept IS NOT TRUE;
    IF broken IS NOT NULL AND EXISTS (SELECT FROM readside.messages m WHERE m.app = $1) THEN
        RAISE EXCEPTION 'this event cannot travel: %', broken USING ERRCODE = 'check_violation';
    END IF;
    PERFORM readside.emit($1, ARRAY[convert_to(json_build_array(id, $2, $3, $5, $4, $6)::text, 'UTF8')]);
    RETURN id;
END
$$;

REVOKE ALL ON FUNCTION readside.emit(text, bytea[]) FROM PUBLIC;
REVOKE ALL ON FUNCTION readside.record_message(text, text, text, json, integer, json) FROM PUBLIC;
