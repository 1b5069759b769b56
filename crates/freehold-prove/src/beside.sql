-- What a careless baseline has beside its tables: rows whose text is run by triggers, a procedure that commits,
-- a sequence that nobody in a tenant may ask. Tenants of a proof use all of it.

-- The text of a row is run by the triggers of `executes_text.sql` or `changes_settings.sql`.
CREATE TABLE poisoned (
    no   serial PRIMARY KEY,
    body text NOT NULL,
    sql  text NOT NULL,
    late boolean NOT NULL,
    pid  integer NOT NULL DEFAULT pg_backend_pid()
);

-- Were its COMMIT to succeed, the audit would find a batch that nobody sent.
CREATE PROCEDURE commits(mark text) LANGUAGE plpgsql AS
$$ BEGIN INSERT INTO dropped (worker, batch, part, tag, body) VALUES (-1, 0, 0, 0, mark); COMMIT; END $$;

-- No operation draws from it, so that at the end it must be as it was made.
CREATE SEQUENCE tickets;

-- All that a session shows of itself. What is set anew for each tenant or each transaction stands by itself.
CREATE VIEW session_now WITH (security_invoker = true) AS
SELECT pg_backend_pid() AS pid,
       json_build_object(
           'settings', (SELECT json_object_agg(name, setting ORDER BY name) FROM pg_settings
                        WHERE name NOT IN ('application_name', 'backtrace_functions', 'role', 'search_path',
                                           'transaction_deferrable', 'transaction_isolation',
                                           'transaction_read_only')),
           'application_name', current_setting('application_name'),
           'note', current_setting('prove.note', true),
           'isolation', current_setting('transaction_isolation'),
           'search_path', current_setting('search_path'),
           'users', concat_ws(' ', current_user, session_user),
           'channels', (SELECT json_agg(channel) FROM pg_listening_channels() AS channel),
           'cursors', (SELECT json_agg(name || ': ' || statement) FROM pg_cursors WHERE is_holdable),
           'temporary', (SELECT json_agg(relname) FROM pg_class WHERE relnamespace = pg_my_temp_schema()),
           'locks', (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()),
           'random', random()
       )::text AS seen;
