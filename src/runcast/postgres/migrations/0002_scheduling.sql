-- What happens by time: delayed runs become due, waiting runs expire, batches get their runs.
-- One row, one time: `due_at` says when something will happen to a row by itself, and is null
-- where nothing will.

-- `debounce_key` is there while a delayed run stands for its key; `debounce_until` is the latest
-- time to which triggers may push it. `seed_metadata` is the metadata that the run began with,
-- null where it was empty: a replay begins with it again.
ALTER TABLE runs
    ADD COLUMN due_at timestamptz,
    ADD COLUMN debounce_key text,
    ADD COLUMN debounce_until timestamptz,
    ADD COLUMN seed_metadata jsonb;
CREATE INDEX runs_due ON runs (due_at) WHERE due_at IS NOT NULL;
CREATE UNIQUE INDEX runs_debounce_key
    ON runs (environment_id, task, debounce_key) WHERE debounce_key IS NOT NULL;

-- A streamed batch collects items while it is PENDING, until `due_at`. Once it is sealed it is
-- PROCESSING and its items become runs, piece by piece; `due_at` is then when another gateway
-- takes over from one that went away. Keys are told apart by what they were given for.
ALTER TABLE batches
    ADD COLUMN due_at timestamptz,
    ADD COLUMN idempotency_scope text NOT NULL DEFAULT '';
CREATE INDEX batches_due ON batches (due_at) WHERE due_at IS NOT NULL;
DROP INDEX batches_idempotency_key;
CREATE UNIQUE INDEX batches_idempotency_key
    ON batches (environment_id, idempotency_scope, idempotency_key);

-- Items of streamed batches that are no runs yet; `run` is the run to be created, as JSON.
CREATE TABLE batch_items (
    batch_id text NOT NULL REFERENCES batches ON DELETE CASCADE,
    index integer NOT NULL CHECK (index >= 0),
    run text NOT NULL,
    PRIMARY KEY (batch_id, index)
);

-- Requests that may be sent again because their answer was lost, and what they were answered with:
-- the id of a run or batch. `request` is a hash of where it was sent and its key.
CREATE TABLE answered_requests (
    environment_id text NOT NULL REFERENCES environments ON DELETE CASCADE,
    request text NOT NULL,
    answer_id text NOT NULL,
    cached boolean NOT NULL DEFAULT false,
    answered_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (environment_id, request)
);
CREATE INDEX answered_requests_age ON answered_requests (answered_at);

-- Reads a duration such as 1h30m; null for what is none. Bounded, so that sums with times fit.
CREATE FUNCTION duration_of(duration text) RETURNS interval LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN length(duration) <= 64 AND duration ~ '^([0-9]+(w|d|hr|h|m|s))+$' THEN (
    SELECT make_interval(secs => least(sum(part[1]::numeric * CASE left(part[2], 1)
        WHEN 's' THEN 1 WHEN 'm' THEN 60 WHEN 'h' THEN 3600 WHEN 'd' THEN 86400 ELSE 604800 END
    ), 1e11)::double precision)
    FROM regexp_matches(duration, '([0-9]+)(w|d|hr|h|m|s)', 'g') AS part
) END;

-- A delayed run is due at its time. A waiting one expires when its time to live is over, which
-- counts from when it was queued; a run that has started never does.
CREATE FUNCTION set_due() RETURNS trigger LANGUAGE plpgsql
SET search_path TO @schema@, pg_catalog, pg_temp AS $$
BEGIN
    IF TG_OP = 'INSERT' AND NEW.seed_metadata IS NULL AND NEW.metadata <> '{}' THEN
        NEW.seed_metadata := NEW.metadata;
    END IF;
    NEW.due_at := CASE
        WHEN NEW.status = 'DELAYED' THEN NEW.delay_until
        WHEN NEW.status IN ('PENDING', 'PENDING_VERSION', 'WAITING_FOR_DEPLOY')
            AND NEW.started_at IS NULL AND NEW.ttl IS NOT NULL
            THEN coalesce(NEW.queued_at, NEW.created_at) + duration_of(NEW.ttl)
    END;
    IF NEW.status <> 'DELAYED' THEN
        NEW.debounce_key := NULL;
        NEW.debounce_until := NULL;
    END IF;
    RETURN NEW;
END $$;

-- After a_before_change, which fills in `queued_at` and the like.
CREATE TRIGGER b_set_due_new BEFORE INSERT ON runs
    FOR EACH ROW EXECUTE FUNCTION set_due();
CREATE TRIGGER b_set_due BEFORE UPDATE ON runs
    FOR EACH ROW WHEN (
        (OLD.status, OLD.delay_until, OLD.ttl, OLD.queued_at, OLD.started_at, OLD.due_at)
        IS DISTINCT FROM
        (NEW.status, NEW.delay_until, NEW.ttl, NEW.queued_at, NEW.started_at, NEW.due_at)
    ) EXECUTE FUNCTION set_due();

-- Tells schedulers of a time that comes before they look again by themselves, which they do
-- every 30 seconds: what is further away needs no message, and so no lock at commit.
CREATE FUNCTION tell_due() RETURNS trigger LANGUAGE plpgsql
SET search_path TO @schema@, pg_catalog, pg_temp AS $$
BEGIN
    IF NEW.due_at < clock_timestamp() + interval '60 seconds' THEN
        PERFORM pg_notify(TG_TABLE_SCHEMA || '_due',
                          (extract(epoch FROM NEW.due_at) * 1000)::bigint::text);
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER f_tell_due_new AFTER INSERT ON runs
    FOR EACH ROW WHEN (NEW.due_at IS NOT NULL) EXECUTE FUNCTION tell_due();
CREATE TRIGGER f_tell_due AFTER UPDATE ON runs
    FOR EACH ROW WHEN (NEW.due_at IS NOT NULL AND NEW.due_at IS DISTINCT FROM OLD.due_at)
    EXECUTE FUNCTION tell_due();
CREATE TRIGGER f_tell_due AFTER UPDATE ON batches
    FOR EACH ROW WHEN (NEW.due_at IS NOT NULL AND NEW.due_at IS DISTINCT FROM OLD.due_at)
    EXECUTE FUNCTION tell_due();

-- Runs that waited before this migration; their followers see nothing of it.
ALTER TABLE runs DISABLE TRIGGER USER;
UPDATE runs SET due_at = CASE
    WHEN status = 'DELAYED' THEN delay_until
    ELSE coalesce(queued_at, created_at) + duration_of(ttl) END
WHERE status = 'DELAYED' OR (
    status IN ('PENDING', 'PENDING_VERSION', 'WAITING_FOR_DEPLOY')
    AND started_at IS NULL AND ttl IS NOT NULL);
ALTER TABLE runs ENABLE TRIGGER USER;
