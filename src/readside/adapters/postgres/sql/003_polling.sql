-- Capture by polling, see docs/decisions/0011-polling.md.
ALTER TABLE readside.capture
    ADD COLUMN capture text NOT NULL DEFAULT 'replication' CHECK (capture IN ('replication', 'polling')),
    -- What committed before this place of the log is for the other capture; 0 if there never was another.
    ADD COLUMN cut_lsn bigint NOT NULL DEFAULT 0,
    -- What a message at that place of the log says, so that no other is taken for it.
    ADD COLUMN cut_mark text NOT NULL DEFAULT '';

-- Who polls an app: the lease, and how far everybody has applied.
CREATE TABLE readside.pollers (
    app         text PRIMARY KEY,
    owner       text,
    -- Grows with every owner; a tick is only made under the newest.
    token       bigint NOT NULL DEFAULT 0,
    expires_at  timestamptz NOT NULL DEFAULT '-infinity',
    settled_lsn bigint NOT NULL
) WITH (fillfactor = 50);

-- Only added to, and taken away from the old end.
CREATE TABLE readside.ticks (
    app      text NOT NULL,
    -- Whoever has committed and then found the log's end before or at this place is in the snapshot.
    lsn      bigint NOT NULL,
    snapshot pg_snapshot NOT NULL,
    -- Whether the batch from the tick before to this one has rows.
    busy     boolean NOT NULL,
    PRIMARY KEY (app, lsn)
);

-- The tick after `base`, made now if there is none and there is something new (or `due`); no row if not.
-- A function, because it is one round trip and one transaction, and needs no session.
CREATE FUNCTION readside.tick(of_app text, base bigint, by_token bigint, due boolean)
RETURNS TABLE (tick_lsn bigint, tick_snapshot text, tick_busy boolean) LANGUAGE plpgsql
-- Where few transactions have written much, statistics speak for reading everything to find out that
-- there is nothing.
SET enable_seqscan = off AS $$
DECLARE
    last readside.ticks;
    flushed bigint;
    news boolean;
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        -- All statements would share one snapshot, which would be older than the tick's place in the log.
        RAISE EXCEPTION 'a tick needs a transaction of level read committed' USING ERRCODE = 'RS003';
    END IF;
    RETURN QUERY SELECT t.lsn, t.snapshot::text, t.busy FROM readside.ticks t
        WHERE t.app = of_app AND t.lsn > base ORDER BY t.lsn LIMIT 1;
    IF FOUND THEN
        RETURN;
    END IF;
    SELECT * INTO last FROM readside.ticks t WHERE t.app = of_app AND t.lsn = base;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the tick at % is gone', '0/0'::pg_lsn + base USING ERRCODE = 'RS002';
    END IF;
    IF NOT due THEN
        EXECUTE readside.news(of_app) INTO news
            USING pg_snapshot_xmax(last.snapshot), last.snapshot;
        IF NOT news THEN
            RETURN;
        END IF;
    END IF;
    -- Whoever takes the lease over waits for this lock, and then sees the tick.
    PERFORM FROM readside.pollers p WHERE p.app = of_app AND p.token = by_token FOR NO KEY UPDATE;
    IF NOT FOUND OR NOT EXISTS (
        SELECT FROM readside.capture c WHERE c.app = of_app AND c.capture = 'polling'
    ) THEN
        RAISE EXCEPTION 'another poller has taken over' USING ERRCODE = 'RS001';
    END IF;
    -- A statement of ours whose answer was lost may have held it, and made the tick after all.
    RETURN QUERY SELECT t.lsn, t.snapshot::text, t.busy FROM readside.ticks t
        WHERE t.app = of_app AND t.lsn > base ORDER BY t.lsn LIMIT 1;
    IF FOUND THEN
        RETURN;
    END IF;
    -- Nothing that a snapshot sees may be told before it is on disk: whoever sees the tick knows that its
    -- commit was flushed, and with it everything before it in the log.
    PERFORM set_config('synchronous_commit', 'on', true)
        WHERE current_setting('synchronous_commit') = 'off';
    -- Before the snapshot, and one less: whoever commits unseen by the snapshot finds the log's end later on.
    flushed := pg_current_wal_flush_lsn() - '0/0'::pg_lsn - 1;
    EXECUTE readside.news(of_app) || ', pg_current_snapshot()' INTO news, last.snapshot
        USING pg_snapshot_xmax(last.snapshot), last.snapshot;
    INSERT INTO readside.ticks VALUES (of_app, flushed, last.snapshot, news);
    RETURN QUERY SELECT flushed, last.snapshot::text, news;
END
$$;

-- The question whether there are rows of transactions from $1 on, or of one that was running at the
-- snapshot $2 and is not any more; by index only, and all by the snapshot of the statement that asks.
CREATE FUNCTION readside.news(of_app text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT format('SELECT EXISTS (SELECT FROM readside.%1$I WHERE xid >= $1)'
        ' OR EXISTS (SELECT FROM readside.%1$I WHERE xid = ANY(ARRAY('
        'SELECT x FROM pg_snapshot_xip($2) x WHERE pg_visible_in_snapshot(x, pg_current_snapshot()))))',
        'outbox_' || of_app)
$$;
