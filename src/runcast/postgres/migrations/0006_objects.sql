-- Which objects there may be in the object store, so that those which no run refers to are deleted.

-- `deleted_at`: it was deleted; remembered for some days, so that whoever comes too late is told.
CREATE TABLE objects (
    environment_id text NOT NULL,
    name text NOT NULL CHECK (octet_length(name) BETWEEN 1 AND 512),
    deleted_at timestamptz,
    PRIMARY KEY (environment_id, name)
);
CREATE INDEX objects_deleted ON objects (deleted_at) WHERE deleted_at IS NOT NULL;

-- Times at which an object may have become unused: an address to put it was given, or a run let go
-- of it. Some time after each, it is looked at. Rows are only ever added, so that those who delete
-- runs never wait for each other here.
CREATE TABLE object_checks (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    environment_id text NOT NULL,
    name text NOT NULL,
    since timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX object_checks_age ON object_checks (since);
CREATE INDEX object_checks_object ON object_checks (environment_id, name);

-- Locks the object that a run takes up, so that whoever deletes objects leaves it alone, and sees
-- the run afterwards; objects that nobody knows are none of our business.
CREATE FUNCTION take_up_object(environment text, wanted text) RETURNS void LANGUAGE plpgsql
SET search_path TO @schema@, pg_catalog, pg_temp AS $$
DECLARE
    gone timestamptz;
BEGIN
    SELECT deleted_at INTO gone FROM objects
    WHERE environment_id = environment AND name = wanted FOR KEY SHARE;
    IF gone IS NOT NULL THEN
        PERFORM refuse(format('the object %L was deleted, because no run used it for a long time',
                              left(wanted, 100)), 'Store it again.');
    END IF;
END $$;

CREATE FUNCTION let_go_of_object(environment text, unwanted text) RETURNS void LANGUAGE sql
SET search_path TO @schema@, pg_catalog, pg_temp AS $$
    INSERT INTO object_checks (environment_id, name)
    SELECT environment_id, name FROM objects WHERE environment_id = environment AND name = unwanted
$$;

CREATE FUNCTION run_takes_up_objects() RETURNS trigger LANGUAGE plpgsql
SET search_path TO @schema@, pg_catalog, pg_temp AS $$
BEGIN
    IF NEW.payload_type = 'application/store' AND (TG_OP = 'INSERT'
        OR (NEW.payload, NEW.payload_type) IS DISTINCT FROM (OLD.payload, OLD.payload_type))
    THEN
        PERFORM take_up_object(NEW.environment_id, NEW.payload);
    END IF;
    IF NEW.output_type = 'application/store' AND (TG_OP = 'INSERT'
        OR (NEW.output, NEW.output_type) IS DISTINCT FROM (OLD.output, OLD.output_type))
    THEN
        PERFORM take_up_object(NEW.environment_id, NEW.output);
    END IF;
    RETURN NULL;
END $$;

CREATE FUNCTION run_lets_go_of_objects() RETURNS trigger LANGUAGE plpgsql
SET search_path TO @schema@, pg_catalog, pg_temp AS $$
BEGIN
    IF OLD.payload_type = 'application/store' THEN
        PERFORM let_go_of_object(OLD.environment_id, OLD.payload);
    END IF;
    IF OLD.output_type = 'application/store' THEN
        PERFORM let_go_of_object(OLD.environment_id, OLD.output);
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER g_take_up_objects_new AFTER INSERT ON runs
    FOR EACH ROW WHEN ('application/store' IN (NEW.payload_type, NEW.output_type))
    EXECUTE FUNCTION run_takes_up_objects();
CREATE TRIGGER g_take_up_objects AFTER UPDATE ON runs
    FOR EACH ROW WHEN (
        'application/store' IN (NEW.payload_type, NEW.output_type)
        AND (OLD.payload, OLD.payload_type, OLD.output, OLD.output_type)
            IS DISTINCT FROM (NEW.payload, NEW.payload_type, NEW.output, NEW.output_type)
    ) EXECUTE FUNCTION run_takes_up_objects();
CREATE TRIGGER h_let_go_of_objects AFTER UPDATE ON runs
    FOR EACH ROW WHEN (
        'application/store' IN (OLD.payload_type, OLD.output_type)
        AND (OLD.payload, OLD.payload_type, OLD.output, OLD.output_type)
            IS DISTINCT FROM (NEW.payload, NEW.payload_type, NEW.output, NEW.output_type)
    ) EXECUTE FUNCTION run_lets_go_of_objects();
CREATE TRIGGER h_let_go_of_objects_deleted AFTER DELETE ON runs
    FOR EACH ROW WHEN ('application/store' IN (OLD.payload_type, OLD.output_type))
    EXECUTE FUNCTION run_lets_go_of_objects();

-- Items of streamed batches hold on to the object of their payload until they are runs.
ALTER TABLE batch_items
    ADD COLUMN environment_id text,
    ADD COLUMN object text;
CREATE INDEX batch_items_object ON batch_items (environment_id, object) WHERE object IS NOT NULL;

CREATE FUNCTION item_takes_up_object() RETURNS trigger LANGUAGE plpgsql
SET search_path TO @schema@, pg_catalog, pg_temp AS $$
BEGIN
    PERFORM take_up_object(NEW.environment_id, NEW.object);
    RETURN NULL;
END $$;

CREATE FUNCTION item_lets_go_of_object() RETURNS trigger LANGUAGE plpgsql
SET search_path TO @schema@, pg_catalog, pg_temp AS $$
BEGIN
    PERFORM let_go_of_object(OLD.environment_id, OLD.object);
    RETURN NULL;
END $$;

CREATE TRIGGER a_take_up_object AFTER INSERT ON batch_items
    FOR EACH ROW WHEN (NEW.object IS NOT NULL) EXECUTE FUNCTION item_takes_up_object();
CREATE TRIGGER b_let_go_of_object AFTER DELETE ON batch_items
    FOR EACH ROW WHEN (OLD.object IS NOT NULL) EXECUTE FUNCTION item_lets_go_of_object();

-- Objects that runs have from before.
INSERT INTO objects (environment_id, name)
SELECT environment_id, payload FROM runs
WHERE payload_type = 'application/store' AND octet_length(payload) BETWEEN 1 AND 512
UNION
SELECT environment_id, output FROM runs
WHERE output_type = 'application/store' AND octet_length(output) BETWEEN 1 AND 512;
