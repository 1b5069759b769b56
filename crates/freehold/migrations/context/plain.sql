-- Plain: the context is believed as it comes. Tenants are kept apart from mistakes, but not from
-- somebody who can run SQL of their own as the app role: a SELECT can set any context.

CREATE OR REPLACE FUNCTION freehold_guard.seal_mode() RETURNS text
LANGUAGE sql IMMUTABLE AS $$ SELECT 'plain' $$;

CREATE OR REPLACE FUNCTION freehold_guard.context() RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT pg_catalog.current_setting('freehold.context', true)
$$;

CREATE OR REPLACE FUNCTION freehold_guard.admit(context text, session int8 DEFAULT NULL) RETURNS text
LANGUAGE plpgsql AS $$
BEGIN
  -- It was opened in another mode.
  IF session IS NOT NULL THEN
    RETURN freehold_guard.refuse('unknown seal');
  END IF;
  RETURN pg_catalog.set_config('freehold.context', pg_catalog.substr(context, 95), true);
END
$$;

-- No session can be opened: every context has a seal of its own.
CREATE OR REPLACE FUNCTION freehold_guard.open_session(sealed text) RETURNS boolean
LANGUAGE sql IMMUTABLE AS $$ SELECT false $$;

-- What another mode left: nothing here asks it.
DROP FUNCTION IF EXISTS freehold_guard.unseal(text);
