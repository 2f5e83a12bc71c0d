-- Answers are kept for as long as their request may be sent again, which differs by request.
ALTER TABLE answered_requests
    ADD COLUMN good_until timestamptz NOT NULL DEFAULT now() + interval '24 hours';
DROP INDEX answered_requests_age;
ALTER TABLE answered_requests DROP COLUMN answered_at;
CREATE INDEX answered_requests_over ON answered_requests (good_until);

-- Each part that may be sent again is a writer; only connections are ever open.
CREATE INDEX stream_writers_open ON stream_writers (stream_id, open_until)
    WHERE open_until IS NOT NULL;

-- A waitpoint may be a time, or the next input of a run: what is sent to it under `input_key`,
-- from `input_offset` on. Keys are told apart by kind, those of inputs by their run as well.
ALTER TABLE waitpoints
    ADD COLUMN kind text NOT NULL DEFAULT 'token' CHECK (kind IN ('token', 'time', 'input')),
    ADD COLUMN run_id text REFERENCES runs ON DELETE CASCADE,
    ADD COLUMN input_key text,
    ADD COLUMN input_offset bigint;
DROP INDEX waitpoints_idempotency_key;
CREATE UNIQUE INDEX waitpoints_idempotency_key
    ON waitpoints (environment_id, kind, coalesce(run_id, ''), md5(idempotency_key))
    WHERE idempotency_key IS NOT NULL;
CREATE INDEX waitpoints_of_run ON waitpoints (run_id) WHERE run_id IS NOT NULL;

-- The waitpoint that a run said it waits for, and until when at the latest; null once the run is
-- anything but WAITING_TO_RESUME.
ALTER TABLE runs
    ADD COLUMN waits_for text,
    ADD COLUMN waits_until timestamptz;
CREATE INDEX runs_waiting ON runs (waits_for) WHERE waits_for IS NOT NULL;

CREATE OR REPLACE FUNCTION set_due() RETURNS trigger LANGUAGE plpgsql
SET search_path TO @schema@, pg_catalog, pg_temp AS $$
BEGIN
    IF TG_OP = 'INSERT' AND NEW.seed_metadata IS NULL AND NEW.metadata <> '{}' THEN
        NEW.seed_metadata := NEW.metadata;
    END IF;
    IF NEW.status <> 'WAITING_TO_RESUME' THEN
        NEW.waits_for := NULL;
        NEW.waits_until := NULL;
    END IF;
    NEW.due_at := CASE
        WHEN NEW.status = 'DELAYED' THEN NEW.delay_until
        WHEN NEW.status = 'WAITING_TO_RESUME' THEN NEW.waits_until
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

DROP TRIGGER b_set_due ON runs;
CREATE TRIGGER b_set_due BEFORE UPDATE ON runs
    FOR EACH ROW WHEN (
        (OLD.status, OLD.delay_until, OLD.ttl, OLD.queued_at, OLD.started_at, OLD.due_at,
         OLD.waits_for, OLD.waits_until)
        IS DISTINCT FROM
        (NEW.status, NEW.delay_until, NEW.ttl, NEW.queued_at, NEW.started_at, NEW.due_at,
         NEW.waits_for, NEW.waits_until)
    ) EXECUTE FUNCTION set_due();

-- For lists of runs in a rare status: what executes, what failed. Those in the one status that most
-- runs end in are found along the list itself, and need no entries here.
CREATE INDEX runs_by_status ON runs (environment_id, status, created_at DESC, id DESC)
    WHERE status <> 'COMPLETED_SUCCESSFULLY';
