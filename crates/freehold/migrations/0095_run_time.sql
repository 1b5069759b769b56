-- Tables that are not protected though tenants are at work: made by their own SQL at run time, or stripped
-- by hand. The guard has a function for the former (context/guard.sql), which servers of the former release
-- would take for a fault.
-- Run by freehold_owner, search path `freehold, pg_temp`, in one transaction.

-- Keeps one table of a tenant from every other tenant, and says whether it had to. A server asks for it when
-- it finds one, so it is done whether or not anybody is there; it only ever takes away. What no policy can
-- protect is granted to nobody any more.
CREATE FUNCTION freehold.isolate_table(name text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '500ms' AS $$
DECLARE
  bare record;
  policy record;
  done boolean := false;
BEGIN
  SELECT c.oid, c.relkind, c.relrowsecurity AND c.relforcerowsecurity AS is_forced, format('%I.%I', n.nspname, c.relname) AS name,
    format('( SELECT freehold.require_tenant(%L::uuid) AS require_tenant)', substr(n.nspname, 8)::uuid) AS isolated INTO bare
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname ~ '^tenant_[0-9a-f]{32}$'
  WHERE c.oid = to_regclass(isolate_table.name) AND c.relkind IN ('r', 'p', 'm', 'f') AND c.relowner = 'freehold_owner'::regrole;
  IF NOT FOUND THEN
    RETURN false;
  END IF;
  IF bare.relkind IN ('m', 'f') THEN
    FOR policy IN
      SELECT DISTINCT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END AS role
      FROM (SELECT relacl AS acl FROM pg_class WHERE oid = bare.oid UNION ALL SELECT attacl FROM pg_attribute WHERE attrelid = bare.oid) r, aclexplode(r.acl) a
      WHERE a.grantee <> 'freehold_owner'::regrole
    LOOP
      EXECUTE format('REVOKE ALL ON %s FROM %s', bare.name, policy.role);
      done := true;
    END LOOP;
    RETURN done;
  END IF;
  IF NOT bare.is_forced THEN
    EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', bare.name);
    done := true;
  END IF;
  IF NOT EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = bare.oid AND NOT p.polpermissive AND p.polcmd = '*' AND p.polroles = '{0}'
      AND pg_get_expr(p.polqual, p.polrelid) = bare.isolated AND pg_get_expr(p.polwithcheck, p.polrelid) = bare.isolated) THEN
    -- One that somebody wrote under this name stays, and the doctor goes on to name it.
    FOR policy IN
      SELECT w.name, w.rest FROM (VALUES
        (1, 'tenant_isolation', format('AS RESTRICTIVE USING (%1$s) WITH CHECK (%1$s)', bare.isolated)),
        (2, 'tenant_isolation_by_server', format('AS RESTRICTIVE USING (%1$s) WITH CHECK (%1$s)', bare.isolated)),
        (3, 'owner_access', 'TO freehold_owner USING (true) WITH CHECK (true)'),
        (4, 'analytics_read', 'FOR SELECT TO freehold_analytics USING (true)'),
        (5, 'tenant_access', 'TO freehold_viewer USING (true) WITH CHECK (true)')) w(place, name, rest)
      WHERE NOT EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = bare.oid AND p.polname = w.name)
        AND (w.place <> 2 OR EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = bare.oid AND p.polname = 'tenant_isolation'))
        AND (w.place <> 5 OR NOT EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = bare.oid AND p.polpermissive))
      ORDER BY w.place
    LOOP
      EXECUTE format('CREATE POLICY %I ON %s %s', policy.name, bare.name, policy.rest);
      done := true;
    END LOOP;
  END IF;
  RETURN done;
END
$$;
REVOKE ALL ON FUNCTION freehold.isolate_table(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION freehold.isolate_table(text) TO freehold_catalog;
