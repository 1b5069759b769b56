-- Nobody in a tenant has a right to a sequence: all tenants are the same roles to PostgreSQL, and
-- row-level security knows no sequences, so who may ask one could ask every tenant's. Columns number
-- their rows as identity columns, which takes no right; what cannot be one asks here.
-- Run by freehold_owner, search path `freehold, pg_temp`, in one transaction.

-- The next number of a sequence, for the tenant whose it is. The owner may take one without any context,
-- as everywhere: in scripts and restored dumps. What the caller's search path means by a name is settled
-- before this is called.
CREATE FUNCTION freehold.next_value(sequence regclass) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  tenant uuid := freehold.tenant();
  owner text := (SELECT n.nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                 WHERE c.oid = sequence AND c.relkind = 'S');
BEGIN
  IF owner = (CASE tenant WHEN '1a169cdf-4117-86b9-a8ac-a5eeab7a958f' THEN 'freehold_template'
                ELSE 'tenant_' || replace(tenant::text, '-', '') END)
     OR (session_user = 'freehold_owner' AND coalesce(freehold_guard.context(), '') = '' AND owner ~ '^(tenant_[0-9a-f]{32}|freehold_template)$')
  THEN
    RETURN nextval(sequence);
  END IF;
  RAISE EXCEPTION 'freehold: tenant context refused' USING ERRCODE = '42501',
    DETAIL = CASE WHEN owner ~ '^tenant_[0-9a-f]{32}$' THEN 'tenant=' || substr(owner, 8)::uuid ELSE 'a sequence that is no tenant''s' END;
END
$$;
REVOKE ALL ON FUNCTION freehold.next_value(regclass) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION freehold.next_value(regclass) TO freehold_viewer;
