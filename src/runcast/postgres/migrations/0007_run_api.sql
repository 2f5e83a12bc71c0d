-- Answers are kept for as long as their request may be sent again, which differs by request.
ALTER TABLE answered_requests
    ADD COLUMN good_until timestamptz NOT NULL DEFAULT now() + interval '24 hours';
DROP INDEX answered_requests_age;
ALTER TABLE answered_requests DROP COLUMN answered_at;
CREATE INDEX answered_requests_over ON answered_requests (good_until);

-- Each part that may be sent again is a writer; only connections are ever open.
CREATE INDEX stream_writers_open ON stream_writers (stream_id, open_until)
    WHERE open_until IS NOT NULL;
