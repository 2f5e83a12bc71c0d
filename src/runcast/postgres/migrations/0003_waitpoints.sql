-- Waitpoints: what is waited for until somebody completes it, or its time is over. The latter is
-- seen by whoever looks and not written down.

CREATE TABLE waitpoints (
    id text PRIMARY KEY DEFAULT 'waitpoint_' || replace(gen_random_uuid()::text, '-', ''),
    environment_id text NOT NULL REFERENCES environments ON DELETE CASCADE,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    timeout_at timestamptz,
    completed_at timestamptz,
    tags text[] NOT NULL DEFAULT '{}',
    idempotency_key text,
    idempotency_key_expires_at timestamptz,

    -- A packet: a text and the type that says how to read it.
    output text,
    output_type text NOT NULL DEFAULT 'application/json'
);
CREATE INDEX waitpoints_newest ON waitpoints (environment_id, created_at DESC, id DESC);
CREATE INDEX waitpoints_over ON waitpoints (coalesce(completed_at, timeout_at));
-- By a hash: keys may be longer than an index takes.
CREATE UNIQUE INDEX waitpoints_idempotency_key
    ON waitpoints (environment_id, md5(idempotency_key)) WHERE idempotency_key IS NOT NULL;
