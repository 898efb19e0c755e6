-- readside's own notes. The outbox itself comes with its first partition, after the replication
-- slot exists: a row that was written before the slot would never leave.
CREATE TABLE readside.capture (
    app               text PRIMARY KEY,
    slot              text NOT NULL,
    epoch             bigint NOT NULL,
    complete          boolean NOT NULL DEFAULT true,
    system_identifier text NOT NULL,
    timeline          integer NOT NULL,
    partitions        integer NOT NULL,
    origin_lsn        bigint NOT NULL,
    confirmed_lsn     bigint NOT NULL,
    confirmed_heads   jsonb NOT NULL DEFAULT '[]',
    shipped_lsn       bigint NOT NULL DEFAULT 0,
    shipped_heads     jsonb NOT NULL DEFAULT '[]',
    samples           jsonb NOT NULL DEFAULT '{}',
    shipped_at        bigint NOT NULL DEFAULT 0,
    state             text NOT NULL DEFAULT 'created',
    updated_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- How often a projection of the app has begun again: see confirm in the ledger.
    resets            bigint NOT NULL DEFAULT 0
);

CREATE TABLE readside.projections (
    app           text NOT NULL,
    projection    text NOT NULL,
    registered_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (app, projection)
);

CREATE TABLE readside.progress (
    app           text NOT NULL,
    projection    text NOT NULL,
    partition     integer NOT NULL,
    position      text COLLATE "C" NOT NULL,
    durable       text COLLATE "C",
    nth           bigint NOT NULL,
    state         text NOT NULL,
    detail        text NOT NULL,
    rate          double precision NOT NULL,
    token         bigint NOT NULL,
    updated_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (app, projection, partition)
) WITH (fillfactor = 50);

CREATE TABLE readside.rewinds (
    app        text NOT NULL,
    projection text NOT NULL,
    partition  integer NOT NULL,
    after      text COLLATE "C" NOT NULL,
    reachable  boolean,
    asked_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (app, projection, partition)
);

CREATE TABLE readside.workers (
    app     text NOT NULL,
    worker  text NOT NULL,
    seen_at timestamptz NOT NULL,
    PRIMARY KEY (app, worker)
);

CREATE TABLE readside.leases (
    app        text NOT NULL,
    projection text NOT NULL,
    partition  integer NOT NULL,
    owner      text,
    token      bigint NOT NULL DEFAULT 0,
    expires_at timestamptz NOT NULL DEFAULT '-infinity',
    starts     integer NOT NULL DEFAULT 0,
    attempting text COLLATE "C" NOT NULL DEFAULT '',
    tries      integer NOT NULL DEFAULT 0,
    PRIMARY KEY (app, projection, partition)
) WITH (fillfactor = 50);

CREATE TABLE readside.parked_documents (
    app        text NOT NULL,
    projection text NOT NULL,
    partition  integer NOT NULL,
    key        text NOT NULL,
    parking    text NOT NULL DEFAULT gen_random_uuid()::text,
    since      text COLLATE "C" NOT NULL,
    base       text COLLATE "C" NOT NULL,
    error_type text NOT NULL,
    error      text NOT NULL,
    traceback  text NOT NULL,
    attempts   integer NOT NULL DEFAULT 1,
    parked_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    tried_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (app, projection, partition, key)
);

CREATE TABLE readside.parked_events (
    app         text NOT NULL,
    projection  text NOT NULL,
    partition   integer NOT NULL,
    key         text NOT NULL,
    position    text COLLATE "C" NOT NULL,
    predecessor text NOT NULL,
    nth         bigint NOT NULL,
    id          text NOT NULL,
    type        text NOT NULL,
    event_key   text NOT NULL,
    version     integer NOT NULL,
    payload     bytea NOT NULL,
    headers     bytea NOT NULL,
    recorded_at bigint NOT NULL,
    -- What the document must contain before, besides the event before it in this table.
    base        text COLLATE "C" NOT NULL,
    -- Set by a retry. The row stays for a while: a read store that goes back may lack the event.
    applied_at  timestamptz,
    PRIMARY KEY (app, projection, partition, key, position)
);
