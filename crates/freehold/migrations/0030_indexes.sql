-- Indexes of single tenants: what was added to one or taken from it, so that the doctor and the
-- migrator know; and what tenants' tables are asked, for advice.
-- Run by freehold_owner, search path `freehold, pg_temp`, in one transaction.

CREATE TABLE freehold.tenant_index (
  tenant_id  uuid NOT NULL REFERENCES freehold.tenant ON DELETE CASCADE,
  index_name text NOT NULL,
  table_name text NOT NULL,
  -- As PostgreSQL prints it, with `@schema.` before the names of the tenant's own.
  definition text NOT NULL,
  -- One that only this tenant has is `creating`, then `created`; one of the baseline that it does
  -- without is `dropping`, then `dropped`.
  state      text NOT NULL CHECK (state IN ('creating', 'created', 'dropping', 'dropped')),
  -- Why the last attempt failed; it can be repeated.
  error      text CHECK (char_length(error) <= 1000),
  actor_id   uuid NOT NULL,
  changed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (tenant_id, index_name)
);

-- What the data API was asked: columns, operators and order, never a value. From a sample.
CREATE TABLE freehold.query_shape (
  tenant_id  uuid NOT NULL REFERENCES freehold.tenant ON DELETE CASCADE,
  table_name text NOT NULL CHECK (char_length(table_name) <= 63),
  shape      text NOT NULL CHECK (char_length(shape) <= 2000),
  requests   bigint NOT NULL CHECK (requests > 0),
  first_at   timestamptz NOT NULL DEFAULT now(),
  last_at    timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, table_name, shape)
);

DO $$
DECLARE
  t text;
BEGIN
  FOREACH t IN ARRAY ARRAY['tenant_index', 'query_shape'] LOOP
    EXECUTE format('ALTER TABLE freehold.%I ENABLE ROW LEVEL SECURITY', t);
    EXECUTE format('ALTER TABLE freehold.%I FORCE ROW LEVEL SECURITY', t);
    EXECUTE format('CREATE POLICY owner_access ON freehold.%I TO freehold_owner USING (true) WITH CHECK (true)', t);
    EXECUTE format('CREATE POLICY app_access ON freehold.%I TO freehold_catalog USING (true) WITH CHECK (true)', t);
    EXECUTE format('CREATE POLICY catalog_only ON freehold.%I AS RESTRICTIVE USING ((SELECT freehold.in_catalog()))', t);
    EXECUTE format('GRANT SELECT ON freehold.%I TO freehold_catalog', t);
  END LOOP;
END
$$;

-- Adds to the counts. Of each tenant the 100 newest shapes are kept: the bound stands here, where
-- the app role cannot choose it.
CREATE FUNCTION freehold.record_query_shapes(shapes jsonb) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = freehold, pg_temp AS $$
  INSERT INTO freehold.query_shape AS q (tenant_id, table_name, shape, requests)
  SELECT t.id, e.table_name, e.shape, e.requests
  FROM jsonb_to_recordset(shapes) AS e (tenant_id uuid, table_name text, shape text, requests bigint)
  JOIN freehold.tenant t ON t.id = e.tenant_id
  ORDER BY t.id, e.table_name, e.shape
  ON CONFLICT (tenant_id, table_name, shape)
  DO UPDATE SET requests = q.requests + excluded.requests, last_at = now();
  DELETE FROM freehold.query_shape q USING (
    SELECT tenant_id, table_name, shape,
      row_number() OVER (PARTITION BY tenant_id ORDER BY last_at DESC, requests DESC, shape) AS place
    FROM freehold.query_shape
    WHERE tenant_id IN (SELECT e.tenant_id FROM jsonb_to_recordset(shapes) AS e (tenant_id uuid))
  ) old
  WHERE old.place > 100 AND (q.tenant_id, q.table_name, q.shape) = (old.tenant_id, old.table_name, old.shape)
$$;

-- What nobody has asked for 30 days is no evidence any more.
CREATE FUNCTION freehold.prune_query_shapes() RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = freehold, pg_temp AS $$
  DELETE FROM freehold.query_shape WHERE last_at < now() - interval '30 days'
$$;

REVOKE ALL ON FUNCTION freehold.record_query_shapes(jsonb), freehold.prune_query_shapes() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION freehold.record_query_shapes(jsonb), freehold.prune_query_shapes() TO freehold_catalog;
