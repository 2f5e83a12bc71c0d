-- Which runs keep a payload or an output in the object store under a name: whoever may read one of
-- them may get it. By a hash: plain SQL may store texts that are longer than an index takes.
CREATE INDEX runs_stored_payload ON runs (environment_id, md5(payload))
    WHERE payload_type = 'application/store';
CREATE INDEX runs_stored_output ON runs (environment_id, md5(output))
    WHERE output_type = 'application/store';
