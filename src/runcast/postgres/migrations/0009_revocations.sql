-- Tokens that are taken back before their time, until none that a row can hit is good any more.

-- `kind` says what `value` is: a token's id, a subject, nothing (all of an environment), or the
-- SHA-256 of a secret key. Tokens of a subject or an environment are hit if they were issued before
-- a time. `since`: a key may end later. Lifted ones stay, so that gateways hear of it. Without
-- foreign key: the keys of an environment that is deleted are revoked as well.
CREATE TABLE revocations (
    id text PRIMARY KEY DEFAULT 'revocation_' || replace(gen_random_uuid()::text, '-', ''),
    environment_id text NOT NULL,
    kind text NOT NULL CHECK (kind IN ('token', 'subject', 'environment', 'key')),
    value text NOT NULL DEFAULT '',
    issued_before timestamptz CHECK ((issued_before IS NULL) = (kind IN ('token', 'key'))),
    created_at timestamptz NOT NULL DEFAULT now(),
    since timestamptz NOT NULL DEFAULT now(),
    kept_until timestamptz NOT NULL,
    lifted boolean NOT NULL DEFAULT false,
    changed_in xid8 NOT NULL
);
-- By a hash: plain SQL may store texts that are longer than an index takes.
CREATE UNIQUE INDEX revocations_value ON revocations (environment_id, kind, md5(value));
CREATE INDEX revocations_changed_in ON revocations (changed_in);
CREATE INDEX revocations_newest ON revocations (environment_id, created_at DESC, id DESC);
CREATE INDEX revocations_over ON revocations (kept_until);

CREATE FUNCTION before_revocation_change() RETURNS trigger LANGUAGE plpgsql
SET search_path TO @schema@, pg_catalog, pg_temp AS $$
BEGIN
    NEW.changed_in := pg_current_xact_id();
    RETURN NEW;
END $$;

CREATE FUNCTION tell_revocations() RETURNS trigger LANGUAGE plpgsql
SET search_path TO @schema@, pg_catalog, pg_temp AS $$
BEGIN
    PERFORM pg_notify(TG_TABLE_SCHEMA || '_revoked', '');
    RETURN NULL;
END $$;

CREATE TRIGGER a_before_change BEFORE INSERT OR UPDATE ON revocations
    FOR EACH ROW EXECUTE FUNCTION before_revocation_change();
CREATE TRIGGER b_tell AFTER INSERT OR UPDATE ON revocations
    FOR EACH STATEMENT EXECUTE FUNCTION tell_revocations();

-- A key that ends takes its open connections and its tokens along. Gateways that look it up find
-- that it has ended; the row is for what they remember.
CREATE FUNCTION revoke_with_key() RETURNS trigger LANGUAGE plpgsql
SET search_path TO @schema@, pg_catalog, pg_temp AS $$
DECLARE
    hash text := encode(sha256(convert_to(OLD.key, 'UTF8')), 'hex');
    ends timestamptz := now();
BEGIN
    IF TG_OP = 'UPDATE' AND NEW.key = OLD.key THEN
        ends := NEW.expires_at;
    END IF;
    IF ends IS NULL THEN
        UPDATE revocations SET lifted = true
        WHERE environment_id = OLD.environment_id AND kind = 'key' AND value = hash;
    ELSE
        INSERT INTO revocations AS old (environment_id, kind, value, since, kept_until)
        VALUES (OLD.environment_id, 'key', hash, ends, ends + interval '1 day')
        ON CONFLICT (environment_id, kind, md5(value)) DO UPDATE
        SET since = EXCLUDED.since, kept_until = EXCLUDED.kept_until, lifted = false;
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER revoke AFTER UPDATE OR DELETE ON environment_keys
    FOR EACH ROW EXECUTE FUNCTION revoke_with_key();
