-- The cache: which state of a tenant's or of everybody's values is the present one.
--
-- Servers keep values in their own memory and in Redis, each under the epoch that stands here. A
-- new epoch makes all that was kept before unreachable, wherever it is: so what is right does not
-- depend on whether Redis heard of it, lost it, or came back with a state of yesterday.
-- Run by freehold_owner, search path `freehold, pg_temp`, in one transaction.

-- No epoch is ever given twice.
CREATE SEQUENCE freehold.cache_epoch_seq;

-- A row for each tenant and name that somebody has asked the cache for lately. No foreign key: it
-- would wait for whoever migrates the tenant. A trigger removes what is a deleted tenant's.
CREATE TABLE freehold.cache_epoch (
  -- The nil UUID: of no tenant.
  tenant_id uuid   NOT NULL,
  name      text   NOT NULL CHECK (name ~ '^[a-z][a-z0-9_]{0,39}$'),
  epoch     bigint NOT NULL DEFAULT nextval('freehold.cache_epoch_seq'),
  used_at   timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, name)
) WITH (fillfactor = 70); -- most changes are to epoch alone, in place

ALTER TABLE freehold.cache_epoch ENABLE ROW LEVEL SECURITY;
ALTER TABLE freehold.cache_epoch FORCE ROW LEVEL SECURITY;
CREATE POLICY owner_access ON freehold.cache_epoch TO freehold_owner USING (true) WITH CHECK (true);
CREATE POLICY app_access ON freehold.cache_epoch TO freehold_catalog USING (true) WITH CHECK (true);
CREATE POLICY tenant_scope ON freehold.cache_epoch AS RESTRICTIVE
  USING ((SELECT freehold.in_catalog()) OR tenant_id = (SELECT freehold.tenant()));

GRANT SELECT, INSERT, UPDATE, DELETE ON freehold.cache_epoch TO freehold_catalog;
GRANT USAGE ON SEQUENCE freehold.cache_epoch_seq TO freehold_catalog;

-- Word to every server, on a channel of its own: an older server would take it for a reason to
-- forget everything. The payload is a hint; a forged one costs a query.
CREATE FUNCTION freehold.notify_cache() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pg_catalog.pg_notify('freehold_cache', OLD.tenant_id::text || ':' || OLD.name);
  RETURN NULL;
END
$$;
CREATE TRIGGER notify AFTER UPDATE OF epoch OR DELETE ON freehold.cache_epoch
  FOR EACH ROW EXECUTE FUNCTION freehold.notify_cache();

-- Of a tenant that is suspended, resumed or migrated, nothing that was kept is believed. Here,
-- version counts too: where the cache was not asked of late, nothing is found and nothing written.
CREATE FUNCTION freehold.end_tenants_epochs() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF TG_OP = 'DELETE' THEN
    DELETE FROM freehold.cache_epoch WHERE tenant_id = OLD.id;
  ELSE
    UPDATE freehold.cache_epoch SET epoch = nextval('freehold.cache_epoch_seq') WHERE tenant_id = NEW.id;
  END IF;
  RETURN NULL;
END
$$;
CREATE TRIGGER end_epochs AFTER UPDATE OF status, version OR DELETE ON freehold.tenant
  FOR EACH ROW EXECUTE FUNCTION freehold.end_tenants_epochs();

-- Figures are published by transactions that see one moment only and must not meet in a row; so
-- they write none here. What is kept of figures depends on what is published, and is asked for that.
CREATE FUNCTION freehold.cache_source(name text) RETURNS bigint
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT CASE WHEN $1 = 'analytics' THEN hashtextextended(
    (SELECT string_agg(concat_ws(' ', a.name, a.checksum, a.applied_at, p.published_at, p.as_of), ',' ORDER BY a.name)
     FROM freehold.analytics a LEFT JOIN freehold.analytics_publication p USING (name)), 0) END
$$;
REVOKE ALL ON FUNCTION freehold.cache_source(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION freehold.cache_source(text) TO freehold_catalog;

CREATE FUNCTION freehold.notify_published() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pg_catalog.pg_notify('freehold_cache', '00000000-0000-0000-0000-000000000000:analytics');
  RETURN NULL;
END
$$;
CREATE TRIGGER notify_cache AFTER INSERT OR UPDATE OR DELETE ON freehold.analytics_publication
  FOR EACH STATEMENT EXECUTE FUNCTION freehold.notify_published();
CREATE TRIGGER notify_cache AFTER INSERT OR UPDATE OR DELETE ON freehold.analytics
  FOR EACH STATEMENT EXECUTE FUNCTION freehold.notify_published();
