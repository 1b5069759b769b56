-- Violations: what was refused because somebody reached for what is not theirs. Kept apart from
-- the log so that an operator finds them, and they outlive the transaction that was rolled back.
-- Run by freehold_owner, search path `freehold, pg_temp`, in one transaction.

CREATE TABLE freehold.violation (
  -- Version 7, made by the server that saw it: in the order of time.
  id               uuid PRIMARY KEY,
  occurred_at      timestamptz NOT NULL,
  kind             text NOT NULL CHECK (kind IN ('context_refused', 'token_tenant_mismatch',
                     'wrong_scope', 'write_refused', 'forged_token')),
  -- No foreign keys: the record outlives the tenant and the person.
  tenant_id        uuid,
  actor_id         uuid,
  -- The tenant that was claimed or reached for.
  target_tenant_id uuid,
  sqlstate         text CHECK (char_length(sqlstate) = 5),
  request_id       text CHECK (char_length(request_id) <= 1000),
  -- The beginning of the statement, without its values.
  statement        text CHECK (char_length(statement) <= 1000),
  reason           text CHECK (char_length(reason) <= 1000),
  -- Identical ones within a second are one row.
  count            bigint NOT NULL CHECK (count > 0)
);
CREATE INDEX violation_kind_idx ON freehold.violation (kind, id);

ALTER TABLE freehold.violation ENABLE ROW LEVEL SECURITY;
ALTER TABLE freehold.violation FORCE ROW LEVEL SECURITY;
CREATE POLICY owner_access ON freehold.violation TO freehold_owner USING (true) WITH CHECK (true);
CREATE POLICY app_access ON freehold.violation TO freehold_catalog USING (true) WITH CHECK (true);
CREATE POLICY catalog_only ON freehold.violation AS RESTRICTIVE USING ((SELECT freehold.in_catalog()));

-- The app role reads them, and adds to them by the two functions below. It can neither change nor
-- remove what is written, so whoever comes to run SQL as that role cannot cover their tracks.
GRANT SELECT ON freehold.violation TO freehold_catalog;

-- Writes rows down, or raises the count of those that are there. Twice is as once.
CREATE FUNCTION freehold.record_violations(events jsonb) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = freehold, pg_temp AS $$
  INSERT INTO freehold.violation AS v (id, occurred_at, kind, tenant_id, actor_id, target_tenant_id,
    sqlstate, request_id, statement, reason, count)
  SELECT id, occurred_at, kind, tenant_id, actor_id, target_tenant_id,
    sqlstate, request_id, statement, reason, count
  FROM jsonb_to_recordset(events) AS e (id uuid, occurred_at timestamptz, kind text, tenant_id uuid,
    actor_id uuid, target_tenant_id uuid, sqlstate text, request_id text, statement text, reason text, count bigint)
  ON CONFLICT (id) DO UPDATE SET count = greatest(v.count, excluded.count)
$$;

-- Keeps 90 days, and of each kind the newest 10,000 rows: a flood of one kind does not wash away
-- another. A row takes some 300 bytes, so the table stays under 20 MB. The bounds stand here, where
-- the app role cannot choose them.
CREATE FUNCTION freehold.prune_violations() RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = freehold, pg_temp AS $$
  DELETE FROM freehold.violation WHERE occurred_at < now() - interval '90 days';
  WITH bound AS MATERIALIZED (
    SELECT kind, (SELECT v.id FROM freehold.violation v WHERE v.kind = k.kind ORDER BY v.id DESC OFFSET 10000 LIMIT 1) AS id
    FROM (VALUES ('context_refused'), ('token_tenant_mismatch'), ('wrong_scope'), ('write_refused'), ('forged_token')) AS k (kind)
  )
  DELETE FROM freehold.violation v USING bound WHERE v.kind = bound.kind AND v.id <= bound.id
$$;

REVOKE ALL ON FUNCTION freehold.record_violations(jsonb), freehold.prune_violations() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION freehold.record_violations(jsonb), freehold.prune_violations() TO freehold_catalog;
