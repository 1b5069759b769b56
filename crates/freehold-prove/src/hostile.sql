-- What a careless baseline has beside its tables: functions that run their input as SQL, as their caller and
-- as the owner, a trigger that does so when a row comes or when its transaction commits, a procedure that
-- commits, a sequence that nobody in a tenant may ask. `freehold prove` lets tenants use all of it.

CREATE FUNCTION run(input text) RETURNS integer LANGUAGE plpgsql AS
$$ BEGIN EXECUTE input; RETURN pg_backend_pid(); END $$;

CREATE FUNCTION run_as_owner(input text) RETURNS integer LANGUAGE plpgsql SECURITY DEFINER AS
$$ BEGIN EXECUTE input; RETURN pg_backend_pid(); END $$;

CREATE FUNCTION ask(input text) RETURNS text LANGUAGE plpgsql AS
$$ DECLARE answer text; BEGIN EXECUTE input INTO answer; RETURN answer; END $$;

CREATE FUNCTION ask_as_owner(input text) RETURNS text LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog AS
$$ DECLARE answer text; BEGIN EXECUTE input INTO answer; RETURN answer; END $$;

CREATE FUNCTION set_as_owner(name text, value text) RETURNS text LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog AS
'SELECT set_config(name, value, true)';

-- Whatever text a row brings is run: at once, or by a deferred trigger within the commit.
CREATE TABLE poisoned (
    no   serial PRIMARY KEY,
    body text NOT NULL,
    sql  text NOT NULL,
    late boolean NOT NULL,
    pid  integer NOT NULL DEFAULT pg_backend_pid()
);

CREATE FUNCTION run_row() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN EXECUTE NEW.sql; RETURN NULL; END $$;

CREATE TRIGGER run_now AFTER INSERT ON poisoned
FOR EACH ROW WHEN (NOT NEW.late) EXECUTE FUNCTION run_row();

CREATE CONSTRAINT TRIGGER run_late AFTER INSERT ON poisoned DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW WHEN (NEW.late) EXECUTE FUNCTION run_row();

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
