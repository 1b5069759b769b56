-- Slow queries: which statements of which tenant take long, and how PostgreSQL plans them. A
-- statement stands here without its values, and so does its plan.
-- Run by freehold_owner, search path `freehold, pg_temp`, in one transaction.

CREATE TABLE freehold.slow_query (
  tenant_id          uuid NOT NULL REFERENCES freehold.tenant ON DELETE CASCADE,
  -- A digest of the statement without its values: statements that differ in values alone are one.
  shape              text NOT NULL CHECK (shape ~ '^[0-9a-f]{32}$'),
  table_name         text NOT NULL,
  statement          text NOT NULL CHECK (char_length(statement) <= 4000),
  count              bigint NOT NULL CHECK (count > 0),
  failed             bigint NOT NULL,
  total_us           bigint NOT NULL,
  first_at           timestamptz NOT NULL,
  last_at            timestamptz NOT NULL,
  -- Of all of them, the one that took longest.
  slowest_us         bigint NOT NULL,
  slowest_rows       bigint NOT NULL,
  slowest_at         timestamptz NOT NULL,
  slowest_request_id text CHECK (char_length(slowest_request_id) <= 1000),
  -- EXPLAIN's, for any values.
  plan               jsonb CHECK (octet_length(plan::text) <= 100000),
  planned_at         timestamptz,
  PRIMARY KEY (tenant_id, shape)
);
CREATE INDEX slow_query_last_idx ON freehold.slow_query (last_at DESC, tenant_id, shape);

ALTER TABLE freehold.slow_query ENABLE ROW LEVEL SECURITY;
ALTER TABLE freehold.slow_query FORCE ROW LEVEL SECURITY;
CREATE POLICY owner_access ON freehold.slow_query TO freehold_owner USING (true) WITH CHECK (true);
CREATE POLICY app_access ON freehold.slow_query TO freehold_catalog USING (true) WITH CHECK (true);
CREATE POLICY tenant_scope ON freehold.slow_query AS RESTRICTIVE
  USING ((SELECT freehold.in_catalog()) OR tenant_id = (SELECT freehold.tenant()));
GRANT SELECT ON freehold.slow_query TO freehold_catalog;

-- Adds to what is there. A tenant keeps the 50 statements that were slow last, so that one which
-- makes up ever new ones fills no table. One that is gone is passed over.
CREATE FUNCTION freehold.record_slow_queries(entries jsonb) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = freehold, pg_temp AS $$
  INSERT INTO freehold.slow_query AS s (tenant_id, shape, table_name, statement, count, failed, total_us,
    first_at, last_at, slowest_us, slowest_rows, slowest_at, slowest_request_id)
  SELECT t.id, e.shape, e.table_name, e.statement, e.count, e.failed, e.total_us,
    e.first_at, e.last_at, e.slowest_us, e.slowest_rows, e.slowest_at, e.slowest_request_id
  FROM jsonb_to_recordset(entries) AS e (tenant_id uuid, shape text, table_name text, statement text, count bigint,
    failed bigint, total_us bigint, first_at timestamptz, last_at timestamptz, slowest_us bigint, slowest_rows bigint,
    slowest_at timestamptz, slowest_request_id text)
  JOIN freehold.tenant t ON t.id = e.tenant_id
  ORDER BY t.id, e.shape
  ON CONFLICT (tenant_id, shape) DO UPDATE SET
    count = s.count + excluded.count, failed = s.failed + excluded.failed, total_us = s.total_us + excluded.total_us,
    last_at = greatest(s.last_at, excluded.last_at),
    (slowest_us, slowest_rows, slowest_at, slowest_request_id) = (
      SELECT * FROM (VALUES (s.slowest_us, s.slowest_rows, s.slowest_at, s.slowest_request_id),
        (excluded.slowest_us, excluded.slowest_rows, excluded.slowest_at, excluded.slowest_request_id)) AS v (us, rows, at, id)
      ORDER BY v.us DESC LIMIT 1);
  DELETE FROM freehold.slow_query s USING (
    SELECT r.tenant_id, r.shape, row_number() OVER (PARTITION BY r.tenant_id ORDER BY r.last_at DESC, r.shape) AS place
    FROM freehold.slow_query r
    WHERE r.tenant_id IN (SELECT e.tenant_id FROM jsonb_to_recordset(entries) AS e (tenant_id uuid))) AS ranked
  WHERE s.tenant_id = ranked.tenant_id AND s.shape = ranked.shape AND ranked.place > 50
$$;

CREATE FUNCTION freehold.record_slow_plan(tenant uuid, shape text, plan jsonb) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = freehold, pg_temp AS $$
  UPDATE freehold.slow_query s SET plan = $3, planned_at = now() WHERE s.tenant_id = $1 AND s.shape = $2
$$;

-- Keeps what was slow within seven days, 10,000 statements of all tenants at most.
CREATE FUNCTION freehold.prune_slow_queries() RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = freehold, pg_temp AS $$
  DELETE FROM freehold.slow_query WHERE last_at < now() - interval '7 days';
  DELETE FROM freehold.slow_query s USING (
    SELECT r.tenant_id, r.shape FROM freehold.slow_query r ORDER BY r.last_at DESC, r.tenant_id, r.shape OFFSET 10000) AS rest
  WHERE s.tenant_id = rest.tenant_id AND s.shape = rest.shape
$$;

REVOKE ALL ON FUNCTION freehold.record_slow_queries(jsonb), freehold.record_slow_plan(uuid, text, jsonb),
  freehold.prune_slow_queries() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION freehold.record_slow_queries(jsonb), freehold.record_slow_plan(uuid, text, jsonb),
  freehold.prune_slow_queries() TO freehold_catalog;
