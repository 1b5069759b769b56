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

-- A server that has a session of its own opens it with one sealed claim, session_<hash>, and from
-- then on shows the secret of that hash, 64 hex digits in the place of the seal. What is cheaper to
-- check is no weaker: the hash lies where nobody else can put one, and ends with the session.
CREATE OR REPLACE FUNCTION freehold.open_session(sealed text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  claim text := freehold.unseal(sealed);
  ignored text;
BEGIN
  -- Behind a pooler a session is everybody's.
  IF NOT pg_catalog.starts_with(claim, 'session_') OR pg_catalog.substr(sealed, 85, 10) OPERATOR(pg_catalog.=) '0000000000' THEN
    RAISE EXCEPTION 'freehold: tenant context refused' USING ERRCODE = '42501', DETAIL = 'malformed context';
  END IF;
  ignored := pg_catalog.set_config('backtrace_functions', claim, false);
  RETURN true;
END
$$;

CREATE OR REPLACE FUNCTION freehold.admit(context text) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF pg_catalog.current_setting('backtrace_functions') OPERATOR(pg_catalog.=)
     ('session_' OPERATOR(pg_catalog.||) pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to(pg_catalog.substr(context, 1, 64), 'UTF8')), 'hex')) THEN
    RETURN pg_catalog.set_config('backtrace_functions', pg_catalog.substr(context, 95), true);
  END IF;
  RETURN pg_catalog.set_config('backtrace_functions', freehold.unseal(context), true);
END
$$;
