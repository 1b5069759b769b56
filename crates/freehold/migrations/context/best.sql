-- Best: sealed, and verified once for each transaction, at the door. The verdict is kept in a
-- setting that only a superuser may set, and by a superuser's grant freehold_guard, who owns these functions:
-- SQL of anybody else can neither set it nor, by RESET, make it more than empty.
--
-- PostgreSQL has no such setting to spare, so one is borrowed that is text, harmless and empty
-- everywhere: backtrace_functions, a developer's list of C functions, which takes the letters,
-- digits and underscores that a claim is made of.

CREATE OR REPLACE FUNCTION freehold_guard.seal_mode() RETURNS text
LANGUAGE sql IMMUTABLE AS $$ SELECT 'best' $$;

CREATE OR REPLACE FUNCTION freehold_guard.context() RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT pg_catalog.current_setting('backtrace_functions')
$$;

-- A server that has a backend to itself opens a session with one sealed claim, session_<number>,
-- and from then on shows that number beside each bare claim. The number, of 64 bits, is kept where
-- SQL of nobody but the owner reads or puts one: in the backend's own memory, as the currval of a
-- sequence. It can be guessed at there and nowhere else, and ends with the session. A replica's
-- sequences cannot be set, so there each context has a seal of its own.
CREATE OR REPLACE FUNCTION freehold_guard.open_session(sealed text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  claim text := freehold_guard.unseal(sealed);
  ignored int8;
BEGIN
  -- Behind a pooler a session is everybody's.
  IF NOT pg_catalog.starts_with(claim, 'session_') OR pg_catalog.substr(sealed, 85, 10) OPERATOR(pg_catalog.=) '0000000000' THEN
    RETURN freehold_guard.refuse('malformed context');
  END IF;
  ignored := pg_catalog.setval('freehold_guard.session_number', pg_catalog.substr(claim, 9)::int8);
  -- What the sequence itself keeps, for dumps to read, is overwritten. currval stays.
  ignored := pg_catalog.setval('freehold_guard.session_number', 0, false);
  RETURN true;
END
$$;

-- One expression, with no more in it than must be: each is made ready anew in every transaction,
-- which takes longer than running it. Where no number is shown, currval is not asked.
CREATE OR REPLACE FUNCTION freehold_guard.admit(context text, session int8 DEFAULT NULL) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN pg_catalog.set_config('backtrace_functions',
    CASE WHEN session IS NOT NULL AND pg_catalog.currval('freehold_guard.session_number') OPERATOR(pg_catalog.=) session
      THEN context ELSE freehold_guard.unseal(context) END,
    true);
END
$$;
