-- The places of connections that each gateway holds of an environment. Unlogged: after a crash of
-- the server gateways say again what they hold.

CREATE UNLOGGED TABLE connection_places (
    environment_id text NOT NULL,
    gateway text NOT NULL,
    places integer NOT NULL,
    held_until timestamptz NOT NULL,
    PRIMARY KEY (environment_id, gateway)
) WITH (fillfactor = 50); -- so that a row, which changes often, stays on its page
