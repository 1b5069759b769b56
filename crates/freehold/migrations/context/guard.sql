-- What contexts are sealed with, and what verifies them, in a schema and of an owner of their own: the role
-- freehold_guard, which nobody logs in as or is a member of, and which owns nothing else. A SECURITY
-- DEFINER function of a baseline has the rights of freehold_owner, who has none here. Applied anew at every
-- `init`, as freehold_guard, before what depends on the mode.

CREATE TABLE IF NOT EXISTS freehold_guard.seal_key (
  -- Ten digits, as it stands in a sealed context.
  id         text PRIMARY KEY CHECK (id ~ '^[0-9]{10}$'),
  -- HMAC's key, combined with the inner and the outer pad: 64 bytes each.
  inner_pad  bytea NOT NULL CHECK (length(inner_pad) = 64),
  outer_pad  bytea NOT NULL CHECK (length(outer_pad) = 64),
  created_at timestamptz NOT NULL DEFAULT now(),
  -- Contexts sealed with it are refused from then on; NULL: not yet decided.
  retires_at timestamptz
);

-- The columns of keys of which statistics keep samples, or will. There are none; the doctor looks.
CREATE OR REPLACE FUNCTION freehold_guard.list_sampled() RETURNS SETOF text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT a.attname::text FROM pg_attribute a
  WHERE a.attrelid = 'freehold_guard.seal_key'::regclass AND a.attname IN ('inner_pad', 'outer_pad')
    AND (a.attstattarget IS DISTINCT FROM 0 OR EXISTS (
      SELECT FROM pg_stats s WHERE s.schemaname = 'freehold_guard' AND s.tablename = 'seal_key' AND s.attname = a.attname))
$$;

-- To change a type, even to the same, removes what is kept; it locks the table, so it is done only where
-- there is something.
DO $$
BEGIN
  IF EXISTS (SELECT FROM freehold_guard.list_sampled()) THEN
    ALTER TABLE freehold_guard.seal_key
      ALTER COLUMN inner_pad TYPE bytea, ALTER COLUMN inner_pad SET STATISTICS 0,
      ALTER COLUMN outer_pad TYPE bytea, ALTER COLUMN outer_pad SET STATISTICS 0;
  END IF;
END
$$;

-- A session's number is its currval. Unlogged: what it is set to goes into no log and to no replica, and
-- waits for none.
CREATE UNLOGGED SEQUENCE IF NOT EXISTS freehold_guard.session_number AS int8 MINVALUE -9223372036854775808 START 0;

-- Servers that can read the keys do so again.
CREATE OR REPLACE FUNCTION freehold_guard.notify_seal_key() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pg_catalog.pg_notify('freehold', 'seal_key');
  RETURN NULL;
END
$$;
CREATE OR REPLACE TRIGGER notify AFTER INSERT OR UPDATE OR DELETE ON freehold_guard.seal_key
  FOR EACH STATEMENT EXECUTE FUNCTION freehold_guard.notify_seal_key();

CREATE OR REPLACE FUNCTION freehold_guard.refuse(reason text) RETURNS text
LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'freehold: tenant context refused' USING ERRCODE = '42501', DETAIL = reason;
END
$$;

-- The keys are for who logs in as freehold_owner: servers that read them, and `freehold key`. SQL that comes
-- to the owner's rights in another login's session, through a function of the baseline, is not that.
CREATE OR REPLACE FUNCTION freehold_guard.require_login() RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
  IF session_user OPERATOR(pg_catalog.<>) 'freehold_owner' THEN
    RAISE EXCEPTION 'freehold: the context keys are for the login freehold_owner' USING ERRCODE = '42501';
  END IF;
END
$$;

-- The keys without their secrets.
CREATE OR REPLACE FUNCTION freehold_guard.list_keys()
RETURNS TABLE (id text, created_at timestamptz, retires_at timestamptz)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM freehold_guard.require_login();
  RETURN QUERY SELECT k.id, k.created_at, k.retires_at FROM freehold_guard.seal_key k;
END
$$;

-- The key that seals now.
CREATE OR REPLACE FUNCTION freehold_guard.newest_key() RETURNS TABLE (id text, inner_pad bytea)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM freehold_guard.require_login();
  RETURN QUERY SELECT k.id, k.inner_pad FROM freehold_guard.seal_key k
    WHERE k.retires_at IS NULL OR k.retires_at > now() ORDER BY k.id DESC LIMIT 1;
END
$$;

-- Its number alone: for servers that cannot listen for a new one.
CREATE OR REPLACE FUNCTION freehold_guard.newest_key_id() RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT max(k.id) FROM freehold_guard.seal_key k WHERE k.retires_at IS NULL OR k.retires_at > now()
$$;

-- The number of the next key. Who asks for one at the same time waits.
CREATE OR REPLACE FUNCTION freehold_guard.next_key() RETURNS int8
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM freehold_guard.require_login();
  LOCK TABLE freehold_guard.seal_key IN SHARE ROW EXCLUSIVE MODE;
  RETURN (SELECT coalesce(max(k.id::int8), 0) + 1 FROM freehold_guard.seal_key k);
END
$$;

-- Adds a key, retires every older one after so long, and forgets those that retired a day ago.
CREATE OR REPLACE FUNCTION freehold_guard.add_key(new_id text, new_inner bytea, new_outer bytea, retire_after_secs float8)
RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  retired timestamptz := now() + make_interval(secs => retire_after_secs);
BEGIN
  PERFORM freehold_guard.require_login();
  INSERT INTO freehold_guard.seal_key (id, inner_pad, outer_pad) VALUES (new_id, new_inner, new_outer);
  UPDATE freehold_guard.seal_key k SET retires_at = retired
    WHERE k.id < new_id AND (k.retires_at IS NULL OR k.retires_at > retired);
  DELETE FROM freehold_guard.seal_key k WHERE k.retires_at < now() - interval '1 day';
END
$$;

REVOKE EXECUTE ON FUNCTION freehold_guard.list_keys(), freehold_guard.newest_key(), freehold_guard.next_key(),
  freehold_guard.add_key(text, bytea, bytea, float8) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION freehold_guard.list_keys(), freehold_guard.newest_key(), freehold_guard.next_key(),
  freehold_guard.add_key(text, bytea, bytea, float8) TO freehold_owner;
REVOKE EXECUTE ON FUNCTION freehold_guard.newest_key_id() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION freehold_guard.newest_key_id() TO freehold_catalog;

-- Protects a table that a function of a baseline makes while a tenant works: nobody else sees to it then.
-- Called by an event trigger, which only a superuser can make (`init` does). It acts for the application's
-- logins alone, which no SQL of theirs can change: the migrator protects by itself, and what a superuser
-- restores brings its policies along. It runs as whoever makes the table and grants nothing; a call by hand
-- is refused by PostgreSQL.
CREATE OR REPLACE FUNCTION freehold_guard.protect_new_tables() RETURNS event_trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  made record;
  isolated text;
BEGIN
  IF session_user NOT IN ('freehold_app', 'freehold_catalog', 'freehold_analytics') THEN
    RETURN;
  END IF;
  FOR made IN
    SELECT format('%I.%I', n.nspname, c.relname) AS name, substr(n.nspname, 8) AS tenant
    FROM pg_event_trigger_ddl_commands() d
    JOIN pg_class c ON d.classid = 'pg_class'::regclass AND c.oid = d.objid AND c.relkind IN ('r', 'p')
    JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname ~ '^tenant_[0-9a-f]{32}$'
    WHERE NOT EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = c.oid AND p.polname = 'tenant_isolation')
  LOOP
    isolated := format('(SELECT freehold.require_tenant(%L))', made.tenant::uuid);
    EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', made.name);
    EXECUTE format('CREATE POLICY tenant_isolation ON %s AS RESTRICTIVE USING (%s) WITH CHECK (%s)', made.name, isolated, isolated);
    EXECUTE format('CREATE POLICY owner_access ON %s TO freehold_owner USING (true) WITH CHECK (true)', made.name);
    EXECUTE format('CREATE POLICY analytics_read ON %s FOR SELECT TO freehold_analytics USING (true)', made.name);
    EXECUTE format('CREATE POLICY tenant_access ON %s TO freehold_viewer USING (true) WITH CHECK (true)', made.name);
  END LOOP;
END
$$;
REVOKE ALL ON FUNCTION freehold_guard.protect_new_tables() FROM PUBLIC;
