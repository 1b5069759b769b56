-- Analytics across tenants: definitions, what was collected of whom, and what was published.
--
-- A rollup holds rows of every tenant in one table, so here rows, not schemas, belong to tenants:
-- each rollup is under row-level security by tenant_id. The tables themselves are made when a
-- definition is applied; `analytics/schema.rs` has their SQL.

CREATE SCHEMA freehold_analytics;

-- The definitions, text and all, so that every server collects the same.
CREATE TABLE freehold.analytics (
  name          text PRIMARY KEY CHECK (name ~ '^[a-z][a-z0-9_]{0,39}$'),
  checksum      text NOT NULL,
  source        text NOT NULL,
  -- What the definition came to when it was described against the template, as JSON.
  rollup        text NOT NULL,
  schedule_secs int  NOT NULL CHECK (schedule_secs > 0),
  applied_at    timestamptz NOT NULL DEFAULT now()
);

-- The latest run of each. Its token is the fence: a run writes and publishes only while the row
-- holds its own, and a later run that puts another there waits for writes under way.
CREATE TABLE freehold.analytics_run (
  name        text PRIMARY KEY REFERENCES freehold.analytics ON DELETE CASCADE,
  token       uuid,
  -- What the run has read is at least as new as this.
  as_of       timestamptz,
  started_at  timestamptz,
  finished_at timestamptz,
  -- Since when PostgreSQL has counted changes without a gap; NULL: that is not known.
  counted_since text,
  error       text
);

-- How far each tenant is. What failed keeps the time of its last success.
CREATE TABLE freehold.analytics_collection (
  name         text NOT NULL REFERENCES freehold.analytics ON DELETE CASCADE,
  tenant_id    uuid NOT NULL REFERENCES freehold.tenant ON DELETE CASCADE,
  collected_at timestamptz,
  -- When its rows were last collected without regard to a watermark.
  full_at      timestamptz,
  -- PostgreSQL's counts of changes to the tables read, before they were read; NULL: not known.
  inserted     bigint,
  updated      bigint,
  deleted      bigint,
  files        bigint,
  error        text,
  failed_at    timestamptz,
  PRIMARY KEY (name, tenant_id)
) WITH (fillfactor = 60); -- each run updates most rows in place
CREATE INDEX analytics_collection_tenant_idx ON freehold.analytics_collection (tenant_id);

-- What the published figures are made of; written in the transaction that publishes them.
CREATE TABLE freehold.analytics_publication (
  name         text PRIMARY KEY REFERENCES freehold.analytics ON DELETE CASCADE,
  published_at timestamptz NOT NULL,
  as_of        timestamptz NOT NULL,
  -- The oldest figures of an active tenant that are in it.
  oldest_as_of timestamptz,
  tenants      int NOT NULL,
  fresh        int NOT NULL,
  failed       int NOT NULL,
  -- Active tenants of whom nothing was ever collected.
  missing      int NOT NULL,
  -- Groups of fewer tenants than the definition's minimum.
  withheld     int NOT NULL
);

-- ── Who sees what ──────────────────────────────────────────────────────────────────────────

-- For what is of no tenant: an operator's context passes, a tenant's is refused aloud.
CREATE FUNCTION freehold.require_catalog() RETURNS boolean
LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
BEGIN
  IF freehold.in_catalog() THEN
    RETURN true;
  END IF;
  RAISE EXCEPTION 'freehold: tenant context refused' USING ERRCODE = '42501';
END
$$;

DO $$
DECLARE
  t text;
BEGIN
  FOREACH t IN ARRAY ARRAY['analytics', 'analytics_run', 'analytics_collection', 'analytics_publication'] LOOP
    EXECUTE format('ALTER TABLE freehold.%I ENABLE ROW LEVEL SECURITY', t);
    EXECUTE format('ALTER TABLE freehold.%I FORCE ROW LEVEL SECURITY', t);
    EXECUTE format('CREATE POLICY owner_access ON freehold.%I TO freehold_owner USING (true) WITH CHECK (true)', t);
    EXECUTE format('CREATE POLICY app_read ON freehold.%I FOR SELECT TO freehold_catalog USING (true)', t);
  END LOOP;
  FOREACH t IN ARRAY ARRAY['analytics_run', 'analytics_publication'] LOOP
    EXECUTE format('CREATE POLICY catalog_only ON freehold.%I AS RESTRICTIVE USING ((SELECT freehold.in_catalog()))', t);
  END LOOP;
  FOREACH t IN ARRAY ARRAY['analytics_run', 'analytics_collection', 'analytics_publication'] LOOP
    EXECUTE format('CREATE POLICY analytics_access ON freehold.%I TO freehold_analytics USING (true) WITH CHECK (true)', t);
    EXECUTE format('GRANT SELECT, INSERT, UPDATE ON freehold.%I TO freehold_analytics', t);
  END LOOP;
END
$$;
-- Members may know which figures there are of them.
CREATE POLICY catalog_or_tenant ON freehold.analytics AS RESTRICTIVE
  USING ((SELECT freehold.in_catalog()) OR (SELECT freehold.tenant()) IS NOT NULL)
  WITH CHECK ((SELECT freehold.in_catalog()));
CREATE POLICY analytics_read ON freehold.analytics FOR SELECT TO freehold_analytics USING (true);
CREATE POLICY tenant_scope ON freehold.analytics_collection AS RESTRICTIVE
  USING ((SELECT freehold.in_catalog()) OR tenant_id = (SELECT freehold.tenant()));
CREATE POLICY analytics_read ON freehold.tenant FOR SELECT TO freehold_analytics USING (true);

GRANT SELECT ON freehold.analytics, freehold.analytics_run, freehold.analytics_collection,
  freehold.analytics_publication TO freehold_catalog;
GRANT SELECT ON freehold.analytics TO freehold_analytics;
-- So that it knows whom to read, and no more of them.
GRANT SELECT (id, slug, status) ON freehold.tenant TO freehold_analytics;
GRANT USAGE ON SCHEMA freehold_analytics TO freehold_catalog, freehold_analytics;

-- ── Work that needs the owner's rights ─────────────────────────────────────────────────────

-- Publishes what is in a rollup, and says how many groups are too small to be shown. Only a
-- materialized view's owner may refresh it, and that is not the role that collects.
CREATE FUNCTION freehold.refresh_analytics(definition text) RETURNS int
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  withheld int;
BEGIN
  PERFORM FROM freehold.analytics a WHERE a.name = definition;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'freehold: there are no such analytics' USING ERRCODE = 'P0002';
  END IF;
  EXECUTE format('REFRESH MATERIALIZED VIEW CONCURRENTLY freehold_analytics.%I', 'fleet_' || definition);
  EXECUTE format('SELECT count(*) FROM freehold_analytics.%I WHERE withheld', 'fleet_' || definition) INTO withheld;
  RETURN withheld;
END
$$;
REVOKE ALL ON FUNCTION freehold.refresh_analytics(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION freehold.refresh_analytics(text) TO freehold_analytics;

-- A tenant that is gone leaves no figures. Named to come after the foreign key's own trigger,
-- which waits for a collection under way; so its rows are found here. It runs with the rights of
-- whoever deletes: the owner or a superuser, and a policy asks who the session is, not the function.
CREATE FUNCTION freehold.forget_analytics() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  definition text;
BEGIN
  FOR definition IN SELECT a.name FROM freehold.analytics a LOOP
    EXECUTE format('DELETE FROM freehold_analytics.%I WHERE tenant_id = $1', 'rollup_' || definition) USING OLD.id;
  END LOOP;
  RETURN NULL;
END
$$;
CREATE TRIGGER forget_analytics AFTER DELETE ON freehold.tenant
  FOR EACH ROW EXECUTE FUNCTION freehold.forget_analytics();
