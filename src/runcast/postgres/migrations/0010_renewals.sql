-- Newer tokens for open connections, on their way to the gateway that has the connection. What is
-- allowed is the verified content of a token, never the token. Unlogged: after a crash of the server
-- whoever waits is told that there is no such connection.

CREATE UNLOGGED TABLE renewals (
    id text PRIMARY KEY,
    gateway text NOT NULL,
    asked_by text NOT NULL, -- a gateway too
    connection_id text NOT NULL,
    allowed jsonb NOT NULL,
    outcome text, -- null until the gateway has done it, or refused
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX renewals_to_do ON renewals (gateway) WHERE outcome IS NULL;
CREATE INDEX renewals_created_at ON renewals (created_at);
