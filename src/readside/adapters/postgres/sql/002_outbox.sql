-- A superset of the columns that Debezium's outbox router reads. Rows are only ever added; old
-- ones go by dropping partitions. Each app has a branch, which takes rows only after its slot
-- exists (see installation.py). No index but a tiny BRIN: writers pay for every other one. Only where
-- polling captures, the branch has an index on xid as well.
CREATE SEQUENCE readside.outbox_seq;
-- Writers need it, and can do nothing with it but use numbers up.
GRANT USAGE ON SEQUENCE readside.outbox_seq TO PUBLIC;

CREATE TABLE readside.outbox (
    id            uuid NOT NULL DEFAULT gen_random_uuid(),
    aggregatetype text NOT NULL,
    aggregateid   text NOT NULL,
    type          text NOT NULL,
    payload       json NOT NULL,
    version       integer NOT NULL DEFAULT 1,
    app           text NOT NULL,
    headers       json,
    recorded_at   timestamptz NOT NULL DEFAULT now(),
    -- For capture by polling: the transaction, and the order in which rows were made.
    xid           xid8 NOT NULL DEFAULT pg_current_xact_id(),
    seq           bigint NOT NULL DEFAULT nextval('readside.outbox_seq'),
    -- What is committed can no longer be refused, so it is refused here, whoever writes it.
    CONSTRAINT type_can_travel CHECK (type ~ '^[a-z0-9_-]+(\.[a-z0-9_-]+)*$' AND length(type) <= 200),
    CONSTRAINT key_can_travel
        CHECK (octet_length(aggregateid) BETWEEN 1 AND 512 AND aggregateid !~ '[[:cntrl:]]'),
    CONSTRAINT version_counts_from_1 CHECK (version >= 1),
    CONSTRAINT headers_are_an_object
        CHECK (headers IS NULL
               OR (json_typeof(headers) = 'object' AND octet_length(headers::text) <= 4096))
) PARTITION BY LIST (app);

CREATE INDEX outbox_recorded_at ON readside.outbox USING brin (recorded_at)
    WITH (pages_per_range = 32, autosummarize = on);

-- For programs in other languages: SELECT readside.record('shop', 'user.created', '42', '{"id": 42}').
CREATE FUNCTION readside.record(
    app text, type text, key text, payload json, version integer DEFAULT 1, headers json DEFAULT NULL
) RETURNS uuid LANGUAGE sql SET search_path = pg_catalog AS $$
    INSERT INTO readside.outbox (app, aggregatetype, aggregateid, type, payload, version, headers)
    VALUES ($1, split_part($2, '.', 1), $3, $2, $4, $5, $6)
    RETURNING id
$$;
