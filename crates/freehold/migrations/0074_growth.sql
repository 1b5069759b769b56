-- How fast a tenant grows is told per day, and forecast for a month. One that was measured for less
-- than a day has that long a past and no more: it grew by what it grew. Otherwise whoever imports
-- their data in an hour would be forecast to do so every hour.

-- Measures the tenants that follow one, so many at a time, and returns the last; NULL at the end.
-- A size that is as it was is written once a day. A table that somebody holds by an exclusive lock,
-- as a migration does, is not waited for: the round goes on without this batch.
CREATE OR REPLACE FUNCTION freehold.measure_sizes(after uuid, tenants int) RETURNS uuid
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
      SELECT regr_slope(p.bytes, extract(epoch FROM p.measured_at))
             * least(86400, extract(epoch FROM now() - min(p.measured_at)))
      FROM (SELECT s.bytes, s.measured_at FROM freehold.tenant_size s
            WHERE s.tenant_id = m.id AND s.measured_at > now() - interval '7 days'
            UNION ALL SELECT m.bytes, now()) AS p), 0)
  FROM measured m
  ON CONFLICT (tenant_id) DO UPDATE SET measured_at = excluded.measured_at, bytes = excluded.bytes,
    rows = excluded.rows, bytes_per_day = excluded.bytes_per_day;
  RETURN ids[cardinality(ids)];
END
$$;
