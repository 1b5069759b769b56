-- Portable: sealed, and verified once for each query that meets a protected table. Needs no
-- superuser, ever.

CREATE OR REPLACE FUNCTION freehold_guard.seal_mode() RETURNS text
LANGUAGE sql IMMUTABLE AS $$ SELECT 'portable' $$;

CREATE OR REPLACE FUNCTION freehold_guard.context() RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT CASE WHEN pg_catalog.current_setting('freehold.context', true) OPERATOR(pg_catalog.<>) ''
    THEN freehold_guard.unseal(pg_catalog.current_setting('freehold.context', true)) ELSE '' END
$$;

CREATE OR REPLACE FUNCTION freehold_guard.admit(context text, session int8 DEFAULT NULL) RETURNS text
LANGUAGE plpgsql AS $$
BEGIN
  -- It was opened in another mode.
  IF session IS NOT NULL THEN
    RETURN freehold_guard.refuse('unknown seal');
  END IF;
  RETURN pg_catalog.substr(pg_catalog.set_config('freehold.context', context, true), 95);
END
$$;

-- No session can be opened: every context has a seal of its own.
CREATE OR REPLACE FUNCTION freehold_guard.open_session(sealed text) RETURNS boolean
LANGUAGE sql IMMUTABLE AS $$ SELECT false $$;
