-- Best: sealed, and verified once for each transaction, at the door. The verdict is kept in a
-- setting that only a superuser may set, and by a superuser's grant the owner of this function:
-- SQL of anybody else can neither set it nor, by RESET, make it more than empty.
--
-- PostgreSQL has no such setting to spare, so one is borrowed that is text, harmless and empty
-- everywhere: backtrace_functions, a developer's list of C functions, which takes the letters,
-- digits and underscores that a claim is made of.

CREATE OR REPLACE FUNCTION freehold.seal_mode() RETURNS text
LANGUAGE sql IMMUTABLE AS $$ SELECT 'best' $$;

CREATE OR REPLACE FUNCTION freehold.context() RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT pg_catalog.current_setting('backtrace_functions')
$$;

CREATE OR REPLACE FUNCTION freehold.admit(context text) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN pg_catalog.set_config('backtrace_functions', freehold.unseal(context), true);
END
$$;
