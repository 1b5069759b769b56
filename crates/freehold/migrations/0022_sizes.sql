-- Sizes: how much each tenant's schema takes, over time.
-- Run by freehold_owner, search path `freehold, pg_temp`, in one transaction.

CREATE TABLE freehold.tenant_size (
  tenant_id   uuid NOT NULL REFERENCES freehold.tenant ON DELETE CASCADE,
  measured_at timestamptz NOT NULL,
  -- Tables with their indexes and what is stored out of line.
  bytes       bigint NOT NULL,
  -- As PostgreSQL estimates them.
  rows        bigint NOT NULL,
  PRIMARY KEY (tenant_id, measured_at)
);

-- How fast each grows; made of the above after each round of measuring, for whoever asks often.
CREATE TABLE freehold.tenant_growth (
  tenant_id     uuid PRIMARY KEY REFERENCES freehold.tenant ON DELETE CASCADE,
  measured_at   timestamptz NOT NULL,
  bytes         bigint NOT NULL,
  rows          bigint NOT NULL,
  -- Of a straight line through the sizes of the last seven days; 0 where there is only one.
  bytes_per_day double precision NOT NULL
) WITH (fillfactor = 70);
CREATE INDEX tenant_growth_idx ON freehold.tenant_growth (bytes_per_day DESC, tenant_id);
CREATE INDEX tenant_growth_bytes_idx ON freehold.tenant_growth (bytes DESC, tenant_id);

DO $$
DECLARE
  t text;
BEGIN
  FOREACH t IN ARRAY ARRAY['tenant_size', 'tenant_growth'] LOOP
    EXECUTE format('ALTER TABLE freehold.%I ENABLE ROW LEVEL SECURITY', t);
    EXECUTE format('ALTER TABLE freehold.%I FORCE ROW LEVEL SECURITY', t);
    EXECUTE format('CREATE POLICY owner_access ON freehold.%I TO freehold_owner USING (true) WITH CHECK (true)', t);
    EXECUTE format('CREATE POLICY app_access ON freehold.%I TO freehold_catalog USING (true) WITH CHECK (true)', t);
    EXECUTE format('CREATE POLICY catalog_only ON freehold.%I AS RESTRICTIVE USING ((SELECT freehold.in_catalog()))', t);
    EXECUTE format('GRANT SELECT ON freehold.%I TO freehold_catalog', t);
  END LOOP;
END
$$;

-- Measures the tenants that follow one, so many at a time, and returns the last; NULL at the end.
-- A size that is as it was is written once a day. A table that somebody holds by an exclusive lock,
-- as a migration does, is not waited for: the round goes on without this batch.
CREATE FUNCTION freehold.measure_sizes(after uuid, tenants int) RETURNS uuid
LANGUAGE plpgsql SECURITY DEFINER SET search_path = freehold, pg_temp SET lock_timeout = '500ms' AS $$
DECLARE
  ids uuid[];
BEGIN
  SELECT array_agg(id ORDER BY id) INTO ids
  FROM (SELECT t.id FROM freehold.tenant t WHERE after IS NULL OR t.id > after ORDER BY t.id LIMIT tenants) AS next;
  IF ids IS NULL THEN
    RETURN NULL;
  END IF;
  WITH measured AS (
    SELECT i.id, coalesce(sum(pg_catalog.pg_total_relation_size(c.oid)), 0)::bigint AS bytes,
           coalesce(sum(greatest(c.reltuples, 0)), 0)::bigint AS rows
    FROM unnest(ids) AS i (id)
    JOIN pg_catalog.pg_namespace n ON n.nspname = 'tenant_' || replace(i.id::text, '-', '')
    -- By the dependence on the schema, which has an index; pg_class has none by schema.
    LEFT JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_catalog.pg_namespace'::regclass AND d.refobjid = n.oid AND d.classid = 'pg_catalog.pg_class'::regclass
    LEFT JOIN pg_catalog.pg_class c ON c.oid = d.objid AND c.relkind IN ('r', 'm')
    GROUP BY i.id
  ), added AS (
    INSERT INTO freehold.tenant_size (tenant_id, measured_at, bytes, rows)
    SELECT m.id, now(), m.bytes, m.rows FROM measured m
    WHERE NOT EXISTS (SELECT FROM freehold.tenant_growth g JOIN freehold.tenant_size s
        ON s.tenant_id = g.tenant_id AND s.measured_at > now() - interval '1 day' AND s.bytes = m.bytes
      WHERE g.tenant_id = m.id AND g.bytes = m.bytes)
    ON CONFLICT DO NOTHING
  )
  INSERT INTO freehold.tenant_growth AS g (tenant_id, measured_at, bytes, rows, bytes_per_day)
  SELECT m.id, now(), m.bytes, m.rows, coalesce((
      SELECT regr_slope(p.bytes, extract(epoch FROM p.measured_at)) * 86400
      FROM (SELECT s.bytes, s.measured_at FROM freehold.tenant_size s
            WHERE s.tenant_id = m.id AND s.measured_at > now() - interval '7 days'
            UNION ALL SELECT m.bytes, now()) AS p), 0)
  FROM measured m
  ON CONFLICT (tenant_id) DO UPDATE SET measured_at = excluded.measured_at, bytes = excluded.bytes,
    rows = excluded.rows, bytes_per_day = excluded.bytes_per_day;
  RETURN ids[cardinality(ids)];
END
$$;

-- Keeps every size of two days, then the last of each day, for 90 days.
CREATE FUNCTION freehold.prune_sizes() RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = freehold, pg_temp AS $$
  DELETE FROM freehold.tenant_size WHERE measured_at < now() - interval '90 days';
  DELETE FROM freehold.tenant_size s WHERE s.measured_at < now() - interval '2 days'
    AND EXISTS (SELECT FROM freehold.tenant_size later WHERE later.tenant_id = s.tenant_id
      AND later.measured_at > s.measured_at
      AND later.measured_at < date_trunc('day', s.measured_at, 'UTC') + interval '1 day');
$$;

REVOKE ALL ON FUNCTION freehold.measure_sizes(uuid, int), freehold.prune_sizes() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION freehold.measure_sizes(uuid, int), freehold.prune_sizes() TO freehold_catalog;
