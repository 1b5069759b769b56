-- Totals of analytics: a group's total is computed anew when a row of the group has changed, and
-- not whenever anything is published. To publish a few changes among the rows of 20,000 tenants
-- and a year of days then costs what changed, and not seven million rows.
-- Run by freehold_owner, search path `freehold, pg_temp`, in one transaction.

-- Notes the groups of the rows of a rollup that were written or removed, by whatever did it, for
-- the next publication. Its argument is the grain's columns; `changed` is the trigger's name for
-- the rows. With the owner's rights: whoever collects cannot unsay that something changed.
CREATE FUNCTION freehold.note_touched() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  EXECUTE format('INSERT INTO freehold_analytics.%I (%s) SELECT DISTINCT %2$s FROM changed',
    'touched_' || substr(TG_TABLE_NAME, length('rollup_') + 1), TG_ARGV[0]);
  RETURN NULL;
END
$$;
REVOKE ALL ON FUNCTION freehold.note_touched() FROM PUBLIC;

-- Publishes what is in a rollup, and says how many groups are too small to be shown. What has no
-- totals was made by a former release, and its view reads the rollup; `analytics apply` makes it
-- anew. A view without content comes from a restored dump; nobody can read it, so the lock that it
-- takes to fill it is in nobody's way.
CREATE OR REPLACE FUNCTION freehold.refresh_analytics(definition text) RETURNS int
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  fleet text := format('freehold_analytics.%I', 'fleet_' || definition);
  retotal text := format('freehold_analytics.%I()', 'retotal_' || definition);
  changed boolean := true;
  withheld int;
BEGIN
  PERFORM FROM freehold.analytics a WHERE a.name = definition;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'freehold: there are no such analytics' USING ERRCODE = 'P0002';
  END IF;
  IF to_regprocedure(retotal) IS NOT NULL THEN
    EXECUTE 'SELECT ' || retotal INTO changed;
  END IF;
  IF NOT (SELECT c.relispopulated FROM pg_class c WHERE c.oid = fleet::regclass) THEN
    EXECUTE 'REFRESH MATERIALIZED VIEW ' || fleet;
  ELSIF changed THEN
    EXECUTE 'REFRESH MATERIALIZED VIEW CONCURRENTLY ' || fleet;
  END IF;
  EXECUTE format('SELECT count(*) FROM %s WHERE withheld', fleet) INTO withheld;
  RETURN withheld;
END
$$;
