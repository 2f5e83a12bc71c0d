-- Rate limits: one bucket of permits for each token or key, by its hash. Unlogged: after a crash of
-- the server all buckets are full.

CREATE UNLOGGED TABLE rate_limits (
    bucket bytea PRIMARY KEY,
    full_at timestamptz NOT NULL, -- a row whose time this is says no more than no row

    -- What the last draw left missing, and what it gave.
    missing double precision NOT NULL,
    drawn double precision NOT NULL
) WITH (fillfactor = 50); -- so that a row, which changes often, stays on its page
