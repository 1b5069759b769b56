-- The context: what it is made of, and who may go without one. Applied anew at every `init`, after
-- one of plain.sql, portable.sql and best.sql, which say whom to believe.
--
-- What a server sends to `enter` is one text of fixed places:
--     1  seal: HMAC-SHA-256, in hex, over all that follows it
--    65  id of the key it was made with, ten digits
--    75  when it ends, in seconds since 1970, ten digits; at most five seconds ahead
--    85  the backend it is for, ten digits; 0 where a pooler hides which that is
--    95  the claim: tenant_<tenant>_<actor>_<role>   for work in one tenant
--                   operator_<actor>                 for work on the catalog
-- or, in a session that best.sql has opened, the bare claim and beside it the session's number.
-- Ids in a claim are 32 hex digits. There is no _ before the claim's own, so its parts are found by
-- them, with a seal or without. `freehold_guard.admit` takes the text at the door, and
-- `freehold_guard.context` gives the claim that is believed in this transaction, or ''.

-- What SQL of the last transaction on this session may have left although it was rolled back, or beside
-- what its end has cleaned (`leave` in tx/transaction.rs): temporary tables, session locks, and a state of
-- random() that it knows. DISCARD ALL cannot run in a transaction, and would take the server's prepared
-- statements with it. currval and lastval tell nothing to a role without rights on the sequence.
-- In SQL, so that it is inlined at the door: a call of PL/pgSQL costs more than all that it does here.
CREATE OR REPLACE FUNCTION freehold.discard_temp() RETURNS boolean
LANGUAGE plpgsql AS $$
BEGIN
  DISCARD TEMP;
  RETURN true;
END
$$;
CREATE OR REPLACE FUNCTION freehold.begin_clean(seed float8) RETURNS boolean
LANGUAGE sql AS $$
  SELECT pg_catalog.setseed(seed) IS NOT NULL AND pg_catalog.pg_advisory_unlock_all() IS NOT NULL
    AND (pg_catalog.pg_my_temp_schema() OPERATOR(pg_catalog.=) '0'::pg_catalog.oid OR freehold.discard_temp())
$$;

-- The door: sets context, search path and role, for this transaction alone. Both doors are in SQL, so
-- that they are inlined into what the server has prepared. In the path, pg_temp is last, so that no
-- temporary table can shadow a real one.
CREATE OR REPLACE FUNCTION freehold.enter(context text, session int8 DEFAULT NULL) RETURNS boolean
LANGUAGE sql AS $$
  SELECT freehold_guard.admit(context, session) IS NOT NULL
    AND pg_catalog.set_config('role', CASE pg_catalog.split_part(context, '_', 4)
        WHEN 'viewer' THEN 'freehold_viewer'
        WHEN 'member' THEN 'freehold_member'
        WHEN 'admin' THEN 'freehold_admin'
        WHEN 'owner' THEN 'freehold_admin'
        ELSE freehold_guard.refuse('malformed context')
      END, true) IS NOT NULL
    AND pg_catalog.set_config('search_path', 'tenant_' OPERATOR(pg_catalog.||) pg_catalog.split_part(context, '_', 2)
      OPERATOR(pg_catalog.||) ', public, pg_temp', true) IS NOT NULL
$$;

-- The door to the catalog: all of it for an operator's context, one tenant's rows for a tenant's.
CREATE OR REPLACE FUNCTION freehold.enter_catalog(context text, session int8 DEFAULT NULL) RETURNS boolean
LANGUAGE sql AS $$
  SELECT freehold_guard.admit(context, session) IS NOT NULL
    AND pg_catalog.set_config('search_path', CASE
        WHEN context OPERATOR(pg_catalog.~) '^[0-9a-f]*(operator|tenant)_' THEN 'pg_catalog, pg_temp'
        ELSE freehold_guard.refuse('malformed context')
      END, true) IS NOT NULL
$$;

-- Whoever is not in the tenant's context: analytics passes, and so does the owner without any
-- context (migrations, dumps), but not with another tenant's. Everybody else is refused.
CREATE OR REPLACE FUNCTION freehold.pass_or_refuse(context text, tenant uuid) RETURNS boolean
LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
BEGIN
  IF session_user OPERATOR(pg_catalog.=) 'freehold_analytics' THEN
    RETURN true;
  END IF;
  IF session_user OPERATOR(pg_catalog.=) 'freehold_owner' AND coalesce(context, '') OPERATOR(pg_catalog.=) '' THEN
    RETURN true;
  END IF;
  RAISE EXCEPTION 'freehold: tenant context refused' USING ERRCODE = '42501', DETAIL = pg_catalog.concat('tenant=', tenant);
END
$$;

-- What every policy in a tenant's schema asks: is this transaction that tenant's?
-- It raises rather than returns false: a violation must be an error that somebody sees.
-- In SQL, so that it is inlined: a function in plpgsql plans its expressions anew whenever the
-- search path has changed, which here is at every change of tenant.
CREATE OR REPLACE FUNCTION freehold.require_tenant(tenant uuid) RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT CASE
    WHEN pg_catalog.substr(freehold_guard.context(), 1, 40)
      OPERATOR(pg_catalog.=) ('tenant_' OPERATOR(pg_catalog.||) pg_catalog.replace(tenant::pg_catalog.text, '-', '') OPERATOR(pg_catalog.||) '_')
    THEN true
    ELSE freehold.pass_or_refuse(freehold_guard.context(), tenant)
  END
$$;

-- The tenant of this transaction, or NULL.
CREATE OR REPLACE FUNCTION freehold.tenant() RETURNS uuid
LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT CASE WHEN pg_catalog.starts_with(freehold_guard.context(), 'tenant_')
    THEN pg_catalog.substr(freehold_guard.context(), 8, 32)::pg_catalog.uuid END
$$;

-- The person who acts, or NULL; for defaults and policies of a baseline.
CREATE OR REPLACE FUNCTION freehold.actor_id() RETURNS uuid
LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT CASE WHEN pg_catalog.starts_with(freehold_guard.context(), 'tenant_')
    THEN pg_catalog.substr(freehold_guard.context(), 41, 32)::pg_catalog.uuid END
$$;

-- The actor's role in the tenant (viewer, member, admin, owner), or NULL.
CREATE OR REPLACE FUNCTION freehold.actor_role() RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT CASE WHEN pg_catalog.starts_with(freehold_guard.context(), 'tenant_')
    THEN pg_catalog.substr(freehold_guard.context(), 74) END
$$;

-- Owner and analytics may look at the catalog without a context; nobody else.
CREATE OR REPLACE FUNCTION freehold.pass_catalog_or_refuse() RETURNS boolean
LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
BEGIN
  IF session_user IN ('freehold_owner', 'freehold_analytics') THEN
    RETURN true;
  END IF;
  RAISE EXCEPTION 'freehold: tenant context refused' USING ERRCODE = '42501';
END
$$;

-- What the policies of the catalog ask: may this transaction see the whole catalog?
-- False in a tenant's context, which sees its own rows only; no context at all is an error.
CREATE OR REPLACE FUNCTION freehold.in_catalog() RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT CASE
    WHEN pg_catalog.starts_with(freehold_guard.context(), 'operator_') THEN true
    WHEN pg_catalog.starts_with(freehold_guard.context(), 'tenant_') THEN session_user OPERATOR(pg_catalog.=) 'freehold_owner'
    ELSE freehold.pass_catalog_or_refuse()
  END
$$;
