-- Code that runs its input as SQL, as its caller and as the owner: at once, by a procedure, or by a deferred
-- trigger within the commit. A transaction can leave anything on its session by it.

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

CREATE PROCEDURE call_run(input text) LANGUAGE plpgsql AS
$$ BEGIN EXECUTE input; END $$;

CREATE FUNCTION run_row() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN EXECUTE NEW.sql; RETURN NULL; END $$;

CREATE TRIGGER run_now AFTER INSERT ON poisoned
FOR EACH ROW WHEN (NOT NEW.late) EXECUTE FUNCTION run_row();

CREATE CONSTRAINT TRIGGER run_late AFTER INSERT ON poisoned DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW WHEN (NEW.late) EXECUTE FUNCTION run_row();
