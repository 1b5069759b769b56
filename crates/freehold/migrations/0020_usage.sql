-- Usage: what each tenant's statements cost, by table and hour, of all servers together.
-- Run by freehold_owner, search path `freehold, pg_temp`, in one transaction.

CREATE TABLE freehold.usage (
  hour       timestamptz NOT NULL,
  tenant_id  uuid NOT NULL REFERENCES freehold.tenant ON DELETE CASCADE,
  table_name text NOT NULL,
  queries    bigint NOT NULL,
  rows       bigint NOT NULL,
  errors     bigint NOT NULL,
  time_us    bigint NOT NULL,
  wait_us    bigint NOT NULL,
  PRIMARY KEY (hour, tenant_id, table_name)
) WITH (fillfactor = 70); -- an hour's rows are updated in place, once a minute
CREATE INDEX usage_tenant_idx ON freehold.usage (tenant_id, hour);

-- The last batch that each server has written, so that none counts twice.
CREATE TABLE freehold.usage_writer (
  server     uuid PRIMARY KEY,
  batch      bigint NOT NULL,
  written_at timestamptz NOT NULL
);

-- The busiest tenants of each server in the seconds that have just passed.
CREATE TABLE freehold.busiest (
  server    uuid NOT NULL,
  tenant_id uuid NOT NULL REFERENCES freehold.tenant ON DELETE CASCADE,
  ended_at  timestamptz NOT NULL,
  window_us bigint NOT NULL CHECK (window_us > 0),
  queries   bigint NOT NULL,
  rows      bigint NOT NULL,
  errors    bigint NOT NULL,
  time_us   bigint NOT NULL,
  wait_us   bigint NOT NULL,
  PRIMARY KEY (server, tenant_id)
);
CREATE INDEX busiest_tenant_idx ON freehold.busiest (tenant_id);

DO $$
DECLARE
  t text;
BEGIN
  FOREACH t IN ARRAY ARRAY['usage', 'usage_writer', 'busiest'] LOOP
    EXECUTE format('ALTER TABLE freehold.%I ENABLE ROW LEVEL SECURITY', t);
    EXECUTE format('ALTER TABLE freehold.%I FORCE ROW LEVEL SECURITY', t);
    EXECUTE format('CREATE POLICY owner_access ON freehold.%I TO freehold_owner USING (true) WITH CHECK (true)', t);
    EXECUTE format('CREATE POLICY app_access ON freehold.%I TO freehold_catalog USING (true) WITH CHECK (true)', t);
    EXECUTE format('CREATE POLICY catalog_only ON freehold.%I AS RESTRICTIVE USING ((SELECT freehold.in_catalog()))', t);
    EXECUTE format('GRANT SELECT ON freehold.%I TO freehold_catalog', t);
  END LOOP;
END
$$;

-- Adds a batch of a server, once. A tenant that is gone is passed over.
CREATE FUNCTION freehold.record_usage(writer uuid, number bigint, entries jsonb) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = freehold, pg_temp AS $$
BEGIN
  INSERT INTO freehold.usage_writer AS w VALUES (writer, number, now())
  ON CONFLICT (server) DO UPDATE SET batch = excluded.batch, written_at = excluded.written_at
    WHERE w.batch < excluded.batch;
  IF NOT FOUND THEN
    RETURN;
  END IF;
  INSERT INTO freehold.usage AS u (hour, tenant_id, table_name, queries, rows, errors, time_us, wait_us)
  SELECT date_trunc('hour', now()), t.id, e.table_name, e.queries, e.rows, e.errors, e.time_us, e.wait_us
  FROM jsonb_to_recordset(entries) AS e (tenant_id uuid, table_name text, queries bigint, rows bigint,
    errors bigint, time_us bigint, wait_us bigint)
  JOIN freehold.tenant t ON t.id = e.tenant_id
  ORDER BY t.id, e.table_name
  ON CONFLICT (hour, tenant_id, table_name) DO UPDATE SET queries = u.queries + excluded.queries,
    rows = u.rows + excluded.rows, errors = u.errors + excluded.errors,
    time_us = u.time_us + excluded.time_us, wait_us = u.wait_us + excluded.wait_us;
END
$$;

-- Puts what a server's busiest tenants just did in the place of what they did before.
CREATE FUNCTION freehold.record_busiest(writer uuid, window_us bigint, entries jsonb) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = freehold, pg_temp AS $$
BEGIN
  DELETE FROM freehold.busiest b WHERE b.server = writer OR b.ended_at < now() - interval '1 minute';
  INSERT INTO freehold.busiest (server, tenant_id, ended_at, window_us, queries, rows, errors, time_us, wait_us)
  SELECT writer, t.id, now(), record_busiest.window_us, e.queries, e.rows, e.errors, e.time_us, e.wait_us
  FROM jsonb_to_recordset(entries) AS e (tenant_id uuid, queries bigint, rows bigint, errors bigint,
    time_us bigint, wait_us bigint)
  JOIN freehold.tenant t ON t.id = e.tenant_id
  ORDER BY t.id;
END
$$;

-- Keeps 25 hours: at 20,000 tenants that use four tables each in every hour, 200 MB.
CREATE FUNCTION freehold.prune_usage() RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = freehold, pg_temp AS $$
  DELETE FROM freehold.usage WHERE hour < date_trunc('hour', now()) - interval '24 hours';
  DELETE FROM freehold.usage_writer WHERE written_at < now() - interval '25 hours';
$$;

REVOKE ALL ON FUNCTION freehold.record_usage(uuid, bigint, jsonb), freehold.record_busiest(uuid, bigint, jsonb),
  freehold.prune_usage() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION freehold.record_usage(uuid, bigint, jsonb), freehold.record_busiest(uuid, bigint, jsonb),
  freehold.prune_usage() TO freehold_catalog;
