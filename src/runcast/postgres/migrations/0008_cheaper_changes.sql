-- What following costs those who write. Updates of a run that change nothing an index holds are
-- heap-only again, and one trigger each does before and after a change what five did: each trigger
-- costs its call, or the reading of its WHEN.

-- Which transaction changed each run last, as `runs.changed_in` says too: found by the former, while
-- the latter is in no index. One row for each run, written by `after_run_change` alone.
CREATE TABLE run_changes (
    changed_in xid8 NOT NULL,
    run_id text NOT NULL,
    PRIMARY KEY (changed_in, run_id)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.1);
INSERT INTO run_changes (changed_in, run_id) SELECT changed_in, id FROM runs;
DROP INDEX runs_changed;
ALTER TABLE runs SET (fillfactor = 85);

-- The functions below name schemas instead of setting a search path, which costs at each call.

-- Rings where some tailer sleeps. Reads the sequence as a function: a query would cost ten times as
-- much.
CREATE OR REPLACE FUNCTION ring_bell() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF pg_sequence_last_value('@schema@.bell') > extract(epoch FROM clock_timestamp()) * 1000 THEN
        PERFORM pg_notify(TG_TABLE_SCHEMA || '_bell', '');
    END IF;
    RETURN NULL;
END $$;
ALTER FUNCTION ring_bell() RESET ALL;

-- Refuses nonsense, fills in what follows from the status and the times, and tracks the change.
CREATE OR REPLACE FUNCTION before_run_change() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    is_new CONSTANT boolean := TG_OP = 'INSERT';
BEGIN
    IF NOT is_new AND (
        NEW.id <> OLD.id OR NEW.environment_id <> OLD.environment_id OR NEW.task <> OLD.task
        OR NEW.created_at <> OLD.created_at OR NEW.batch_id IS DISTINCT FROM OLD.batch_id
    ) THEN
        PERFORM @schema@.refuse(
            'id, environment_id, task, batch_id and created_at of a run never change',
            'Insert a new run instead.');
    END IF;

    IF is_new OR NEW.status <> OLD.status THEN
        IF NOT (@schema@.is_final(NEW.status) OR NEW.status IN (
            'DELAYED', 'PENDING', 'PENDING_VERSION', 'WAITING_FOR_DEPLOY', 'DEQUEUED',
            'EXECUTING', 'WAITING_TO_RESUME', 'RETRYING_AFTER_FAILURE', 'PAUSED'
        )) THEN
            PERFORM @schema@.refuse(
                format('%L is not a run status', left(NEW.status, 60)),
                'The raw statuses are listed in docs/protocol.md "Statuses".');
        END IF;
        IF @schema@.is_final(NEW.status) THEN
            NEW.completed_at := coalesce(NEW.completed_at, clock_timestamp());
            IF NEW.status = 'EXPIRED' THEN
                NEW.expired_at := coalesce(NEW.expired_at, NEW.completed_at);
            END IF;
        ELSIF NOT is_new AND @schema@.is_final(OLD.status)
              AND NEW.completed_at = OLD.completed_at THEN
            NEW.completed_at := NULL;
        END IF;
        IF NEW.status = 'PENDING' THEN
            NEW.queued_at := coalesce(NEW.queued_at, clock_timestamp());
        ELSIF NEW.status = 'EXECUTING' THEN
            NEW.started_at := coalesce(NEW.started_at, clock_timestamp());
        END IF;
    END IF;
    IF (NEW.completed_at IS NOT NULL) <> @schema@.is_final(NEW.status) THEN
        PERFORM @schema@.refuse(
            format('a run in status %s cannot have completed_at %s', NEW.status,
                   coalesce(NEW.completed_at::text, 'null')),
            'Set a final status; completed_at follows by itself.');
    END IF;

    IF is_new OR NEW.tags IS DISTINCT FROM OLD.tags THEN
        IF cardinality(NEW.tags) > 10 THEN
            PERFORM @schema@.refuse(
                format('a run has at most 10 tags, not %s', cardinality(NEW.tags)),
                'Drop some tags.');
        END IF;
        IF EXISTS (SELECT FROM unnest(NEW.tags) AS tag
                   WHERE tag IS NULL OR tag = '' OR char_length(tag) > 128)
           OR coalesce(array_ndims(NEW.tags), 1) <> 1
           OR (SELECT count(DISTINCT tag) FROM unnest(NEW.tags) AS tag) < cardinality(NEW.tags)
        THEN
            PERFORM @schema@.refuse('tags are distinct texts of 1 to 128 characters',
                                    'Remove nulls, empty, doubled and longer ones.');
        END IF;
    END IF;

    IF is_new OR NEW.metadata IS DISTINCT FROM OLD.metadata THEN
        IF jsonb_typeof(NEW.metadata) <> 'object' THEN
            PERFORM @schema@.refuse(
                format('metadata is a JSON object, not %s', jsonb_typeof(NEW.metadata)),
                'Wrap the value: {"value": …}.');
        END IF;
        IF pg_column_size(NEW.metadata) > 4194304 THEN
            PERFORM @schema@.refuse('metadata is larger than 4 MiB', 'Keep large values elsewhere.');
        END IF;
    END IF;
    IF octet_length(NEW.payload) > 16777216 OR octet_length(NEW.output) > 16777216 THEN
        PERFORM @schema@.refuse('payload and output hold at most 16 MiB each',
                                'Store the value elsewhere and keep a reference to it.');
    END IF;
    IF jsonb_typeof(NEW.error) <> 'object' THEN
        PERFORM @schema@.refuse(
            format('error is a JSON object, not %s', jsonb_typeof(NEW.error)),
            'For example {"type": "STRING_ERROR", "raw": "what happened"}.');
    END IF;
    IF least(NEW.created_at, NEW.queued_at, NEW.delay_until, NEW.started_at, NEW.completed_at,
             NEW.expired_at, NEW.idempotency_key_expires_at) < '1970-01-01 00:00Z'
       OR greatest(NEW.created_at, NEW.queued_at, NEW.delay_until, NEW.started_at,
                   NEW.completed_at, NEW.expired_at,
                   NEW.idempotency_key_expires_at) >= '9999-01-01 00:00Z'
    THEN
        PERFORM @schema@.refuse('times of a run lie between the years 1970 and 9998',
                                'Leave a time that is not known null.');
    END IF;

    IF is_new THEN
        NEW.queue := coalesce(NEW.queue, 'task/' || NEW.task);
        IF NEW.seed_metadata IS NULL AND NEW.metadata <> '{}' THEN
            NEW.seed_metadata := NEW.metadata;
        END IF;
    END IF;
    IF NEW.status <> 'WAITING_TO_RESUME' THEN
        NEW.waits_for := NULL;
        NEW.waits_until := NULL;
    END IF;
    IF NEW.status <> 'DELAYED' THEN
        NEW.debounce_key := NULL;
        NEW.debounce_until := NULL;
    END IF;
    -- A delayed run is due at its time. A waiting one expires when its time to live is over, which
    -- counts from when it was queued; a run that has started never does.
    IF NEW.status = 'DELAYED' THEN
        NEW.due_at := NEW.delay_until;
    ELSIF NEW.status = 'WAITING_TO_RESUME' THEN
        NEW.due_at := NEW.waits_until;
    ELSIF NEW.ttl IS NOT NULL AND NEW.started_at IS NULL
          AND NEW.status IN ('PENDING', 'PENDING_VERSION', 'WAITING_FOR_DEPLOY') THEN
        NEW.due_at := coalesce(NEW.queued_at, NEW.created_at) + @schema@.duration_of(NEW.ttl);
    ELSE
        NEW.due_at := NULL;
    END IF;

    NEW.version := nextval('@schema@.versions');
    NEW.changed_in := pg_current_xact_id();
    NEW.updated_at := clock_timestamp();
    RETURN NEW;
END $$;
ALTER FUNCTION before_run_change() RESET ALL;

-- Keeps what stands beside a run: its place among the changes, what leaves feeds, the schedulers'
-- next time, and the objects it refers to. OLD of a new run and NEW of a deleted one are null.
CREATE FUNCTION after_run_change() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    is_new CONSTANT boolean := TG_OP = 'INSERT';
    is_gone CONSTANT boolean := TG_OP = 'DELETE';
BEGIN
    IF is_gone THEN
        DELETE FROM @schema@.run_changes WHERE (changed_in, run_id) = (OLD.changed_in, OLD.id);
    ELSIF is_new THEN
        INSERT INTO @schema@.run_changes (changed_in, run_id) VALUES (NEW.changed_in, NEW.id);
    ELSIF NEW.changed_in <> OLD.changed_in THEN
        UPDATE @schema@.run_changes SET changed_in = NEW.changed_in
        WHERE (changed_in, run_id) = (OLD.changed_in, OLD.id);
        IF NOT FOUND THEN  -- it came while triggers were disabled
            INSERT INTO @schema@.run_changes (changed_in, run_id) VALUES (NEW.changed_in, NEW.id);
        END IF;
    END IF;

    IF is_gone OR NOT NEW.tags @> OLD.tags THEN
        INSERT INTO @schema@.departures (changed_in, version, environment_id, run_id, task, tags,
                                         batch_id, created_at, deleted)
        VALUES (pg_current_xact_id(), nextval('@schema@.versions'), OLD.environment_id, OLD.id,
                OLD.task, OLD.tags, OLD.batch_id, OLD.created_at, is_gone);
    END IF;

    -- Schedulers look by themselves every 30 seconds: what is further away needs no message, and
    -- so no lock at commit.
    IF NEW.due_at IS DISTINCT FROM OLD.due_at
       AND NEW.due_at < clock_timestamp() + interval '60 seconds' THEN
        PERFORM pg_notify(TG_TABLE_SCHEMA || '_due',
                          (extract(epoch FROM NEW.due_at) * 1000)::bigint::text);
    END IF;

    IF NEW.payload_type = 'application/store'
       AND (NEW.payload, NEW.payload_type) IS DISTINCT FROM (OLD.payload, OLD.payload_type) THEN
        PERFORM @schema@.take_up_object(NEW.environment_id, NEW.payload);
    END IF;
    IF NEW.output_type = 'application/store'
       AND (NEW.output, NEW.output_type) IS DISTINCT FROM (OLD.output, OLD.output_type) THEN
        PERFORM @schema@.take_up_object(NEW.environment_id, NEW.output);
    END IF;
    IF OLD.payload_type = 'application/store'
       AND (NEW.payload, NEW.payload_type) IS DISTINCT FROM (OLD.payload, OLD.payload_type) THEN
        PERFORM @schema@.let_go_of_object(OLD.environment_id, OLD.payload);
    END IF;
    IF OLD.output_type = 'application/store'
       AND (NEW.output, NEW.output_type) IS DISTINCT FROM (OLD.output, OLD.output_type) THEN
        PERFORM @schema@.let_go_of_object(OLD.environment_id, OLD.output);
    END IF;
    RETURN NULL;
END $$;

DROP TRIGGER b_set_due_new ON runs;
DROP TRIGGER b_set_due ON runs;
DROP TRIGGER b_tag_lost ON runs;
DROP TRIGGER c_deleted ON runs;
DROP TRIGGER f_tell_due_new ON runs;
DROP TRIGGER f_tell_due ON runs;
DROP TRIGGER g_take_up_objects_new ON runs;
DROP TRIGGER g_take_up_objects ON runs;
DROP TRIGGER h_let_go_of_objects ON runs;
DROP TRIGGER h_let_go_of_objects_deleted ON runs;
DROP FUNCTION set_due;
DROP FUNCTION record_departure;
DROP FUNCTION run_takes_up_objects;
DROP FUNCTION run_lets_go_of_objects;
CREATE TRIGGER b_after_change AFTER INSERT OR UPDATE OR DELETE ON runs
    FOR EACH ROW EXECUTE FUNCTION after_run_change();
