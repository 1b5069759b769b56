-- Keys that contexts are sealed with. Nobody but the owner has any right to them, and statistics
-- keep no sample of them.

CREATE TABLE freehold.seal_key (
  -- Ten digits, as it stands in a sealed context.
  id         text PRIMARY KEY CHECK (id ~ '^[0-9]{10}$'),
  -- HMAC's key, combined with the inner and the outer pad: 64 bytes each.
  inner_pad  bytea NOT NULL CHECK (length(inner_pad) = 64),
  outer_pad  bytea NOT NULL CHECK (length(outer_pad) = 64),
  created_at timestamptz NOT NULL DEFAULT now(),
  -- Contexts sealed with it are refused from then on; NULL: not yet decided.
  retires_at timestamptz
);
ALTER TABLE freehold.seal_key ALTER COLUMN inner_pad SET STATISTICS 0, ALTER COLUMN outer_pad SET STATISTICS 0;

-- Servers that can read the keys do so again.
CREATE FUNCTION freehold.notify_seal_key() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pg_catalog.pg_notify('freehold', 'seal_key');
  RETURN NULL;
END
$$;
CREATE TRIGGER notify AFTER INSERT OR UPDATE OR DELETE ON freehold.seal_key
  FOR EACH STATEMENT EXECUTE FUNCTION freehold.notify_seal_key();

-- Its place is taken by one that is told the tenant.
DROP FUNCTION IF EXISTS freehold.pass_or_refuse(text);
