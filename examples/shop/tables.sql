-- The shop's own tables, as any PostgreSQL application has them: commands write here, and nobody has to read here.
CREATE TABLE IF NOT EXISTS users (
    handle text PRIMARY KEY,
    name   text NOT NULL
);

CREATE TABLE IF NOT EXISTS products (
    sku   text PRIMARY KEY,
    name  text NOT NULL,
    price integer NOT NULL,
    stock integer NOT NULL DEFAULT 0 CHECK (stock >= 0)
);

CREATE TABLE IF NOT EXISTS orders (
    id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    handle text NOT NULL REFERENCES users,
    lines  jsonb NOT NULL
);
