-- Code that changes settings of the session and the state of random(), and cannot leave more: servers then
-- clean only these. Its input is one of the statements of `poison.rs`, of which it takes the values.

CREATE FUNCTION run(input text) RETURNS integer LANGUAGE plpgsql AS $$
BEGIN
  IF starts_with(input, 'SELECT setseed') THEN
    PERFORM setseed(0.5);
  ELSE
    PERFORM set_config(split_part(input, '''', 2), split_part(input, '''', 4), false);
  END IF;
  RETURN pg_backend_pid();
END $$;

CREATE PROCEDURE call_run(input text) LANGUAGE plpgsql AS
$$ BEGIN PERFORM run(input); END $$;

CREATE FUNCTION run_row() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN PERFORM run(NEW.sql); RETURN NULL; END $$;

CREATE TRIGGER run_now AFTER INSERT ON poisoned FOR EACH ROW EXECUTE FUNCTION run_row();
