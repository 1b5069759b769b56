-- A restored dump: pg_restore cannot fill a materialized view over tables under forced row-level
-- security, so fleet figures come back empty, and PostgreSQL refreshes only what is filled
-- CONCURRENTLY. The first run after a restore fills them.
-- Run by freehold_owner, search path `freehold, pg_temp`, in one transaction.

-- As before, but for what holds nothing yet. Nobody can read that, so its lock is in nobody's way.
CREATE OR REPLACE FUNCTION freehold.refresh_analytics(definition text) RETURNS int
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  fleet text := format('freehold_analytics.%I', 'fleet_' || definition);
  withheld int;
BEGIN
  PERFORM FROM freehold.analytics a WHERE a.name = definition;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'freehold: there are no such analytics' USING ERRCODE = 'P0002';
  END IF;
  IF (SELECT c.relispopulated FROM pg_class c WHERE c.oid = fleet::regclass) THEN
    EXECUTE 'REFRESH MATERIALIZED VIEW CONCURRENTLY ' || fleet;
  ELSE
    EXECUTE 'REFRESH MATERIALIZED VIEW ' || fleet;
  END IF;
  EXECUTE format('SELECT count(*) FROM %s WHERE withheld', fleet) INTO withheld;
  RETURN withheld;
END
$$;
