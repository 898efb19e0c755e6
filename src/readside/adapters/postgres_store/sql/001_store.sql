-- What readside has to know about documents in tables. The tables themselves are plain: no column in
-- them is readside's. So a deleted document keeps its positions, and nobody has to look past them.
CREATE TABLE readside_store.projections (
    id         integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    projection text NOT NULL,
    -- NULL: the documents are nobody's any more.
    app        text,
    schema     text NOT NULL,
    relation   text NOT NULL,
    -- Its column for the documents' keys, and how that becomes a key's text.
    key_column text NOT NULL,
    key_type   text NOT NULL,
    -- Whether readside has made the table, so that it may change it.
    made       boolean NOT NULL,
    inline     boolean NOT NULL,
    UNIQUE (app, projection),
    UNIQUE (schema, relation)
);

CREATE TABLE readside_store.documents (
    projection integer NOT NULL,
    key        text COLLATE "C" NOT NULL,
    positions  text COLLATE "C" NOT NULL,
    PRIMARY KEY (projection, key)
) WITH (fillfactor = 80);

CREATE TABLE readside_store.checkpoints (
    projection integer NOT NULL,
    partition  integer NOT NULL,
    checkpoint text COLLATE "C" NOT NULL,
    PRIMARY KEY (projection, partition)
) WITH (fillfactor = 20);

CREATE TABLE readside_store.parked (
    projection integer NOT NULL,
    partition  integer NOT NULL,
    key        text COLLATE "C" NOT NULL,
    parking    text NOT NULL,
    PRIMARY KEY (projection, partition, key)
);

CREATE TABLE readside_store.halted (
    projection integer NOT NULL,
    partition  integer NOT NULL,
    reason     text NOT NULL,
    PRIMARY KEY (projection, partition)
);

-- Ends the transaction unless a guard holds, so that everything can travel in one round trip.
CREATE FUNCTION readside_store.insist(held boolean, verdict text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    IF held IS NOT TRUE THEN
        RAISE EXCEPTION USING ERRCODE = 'RS001', MESSAGE = verdict;
    END IF;
END
$$;

-- A document whose own field says another key than it has would be found under the wrong one.
CREATE FUNCTION readside_store.own_key(key text, field text) RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog AS $$
BEGIN
    IF key IS DISTINCT FROM field THEN
        RAISE EXCEPTION USING ERRCODE = '22023',
            MESSAGE = format('the field of the key is %L in document %L', field, key);
    END IF;
    RETURN key;
END
$$;
