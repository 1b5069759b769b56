-- The catalog: what Freehold knows about tenants, people and the fleet.
-- Run by freehold_owner, search path `freehold, pg_temp`, in one transaction. The functions that
-- policies call are in context/, which is applied before.

-- Runs a migration's text so that it cannot end the transaction it runs in.
CREATE FUNCTION freehold.run_migration(statements text) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
  EXECUTE statements;
END
$$;

-- ── The baseline and the fleet ─────────────────────────────────────────────────────────────

-- The migrations that make up the baseline, text and all: a tenant is provisioned from here,
-- so every server provisions the same baseline, whatever folder lies beside it. A snapshot is what the
-- template was after that migration, as JSON: what tenants are made of and compared with.
CREATE TABLE freehold.baseline (
  version    bigint PRIMARY KEY CHECK (version > 0),
  name       text NOT NULL,
  -- As errors and reports name it; a tenant's failure is told in the words of the folder's own tool.
  label      text NOT NULL,
  checksum   text NOT NULL,
  statements text NOT NULL,
  snapshot   text NOT NULL,
  applied_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE freehold.tenant (
  id         uuid PRIMARY KEY,
  slug       text NOT NULL CONSTRAINT tenant_slug_key UNIQUE,
  name       text NOT NULL,
  status     text NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'suspended')),
  -- The newest migration of the baseline that the schema has; 0 before the first.
  version    bigint NOT NULL DEFAULT 0,
  -- Its part of the connections beside tenants of weight 1, where not all can have one.
  weight     smallint NOT NULL DEFAULT 1 CHECK (weight BETWEEN 1 AND 100),
  created_at timestamptz NOT NULL DEFAULT now(),
  CHECK (slug ~ '^[a-z][a-z0-9-]{2,62}$')
);
-- What the migrator asks first: who is behind?
CREATE INDEX tenant_version_idx ON freehold.tenant (version);

-- Which migration reached which tenant, and when.
CREATE TABLE freehold.ledger (
  tenant_id   uuid NOT NULL REFERENCES freehold.tenant ON DELETE CASCADE,
  version     bigint NOT NULL REFERENCES freehold.baseline,
  checksum    text NOT NULL,
  applied_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
  duration_ms int  NOT NULL,
  PRIMARY KEY (tenant_id, version)
);

-- The last failure of each tenant that could not be migrated; gone once it could.
CREATE TABLE freehold.migration_failure (
  tenant_id uuid PRIMARY KEY REFERENCES freehold.tenant ON DELETE CASCADE,
  version   bigint NOT NULL,
  error     text NOT NULL,
  failed_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Whether migrations of the fleet are paused, and by whom: one row, or none.
CREATE TABLE freehold.migration_pause (
  singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
  paused_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  paused_by uuid NOT NULL,
  why       text NOT NULL
);

-- ── People ─────────────────────────────────────────────────────────────────────────────────

CREATE TABLE freehold.identity (
  id          uuid PRIMARY KEY,
  -- Stored in lower case; two spellings of one address are one person.
  email       text NOT NULL CONSTRAINT identity_email_key UNIQUE CHECK (email = lower(email)),
  name        text NOT NULL DEFAULT '',
  is_operator boolean NOT NULL DEFAULT false,
  created_at  timestamptz NOT NULL DEFAULT now()
);

-- Apart from identity, so that listing a tenant's members never comes near a hash.
CREATE TABLE freehold.credential (
  identity_id   uuid PRIMARY KEY REFERENCES freehold.identity ON DELETE CASCADE,
  password_hash text NOT NULL,
  changed_at    timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE freehold.membership (
  tenant_id   uuid NOT NULL REFERENCES freehold.tenant ON DELETE CASCADE,
  identity_id uuid NOT NULL REFERENCES freehold.identity ON DELETE CASCADE,
  role        text NOT NULL CHECK (role IN ('viewer', 'member', 'admin', 'owner')),
  created_at  timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, identity_id)
);
CREATE INDEX membership_identity_idx ON freehold.membership (identity_id);

CREATE TABLE freehold.invitation (
  id         uuid PRIMARY KEY,
  tenant_id  uuid NOT NULL REFERENCES freehold.tenant ON DELETE CASCADE,
  email      text NOT NULL CHECK (email = lower(email)),
  role       text NOT NULL CHECK (role IN ('viewer', 'member', 'admin', 'owner')),
  -- SHA-256 of the token; the token itself is shown once and kept nowhere.
  token_hash bytea NOT NULL UNIQUE,
  invited_by uuid NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  expires_at timestamptz NOT NULL,
  CONSTRAINT invitation_email_key UNIQUE (tenant_id, email)
);

-- One sign-in on one device: a family of refresh tokens.
CREATE TABLE freehold.session (
  id          uuid PRIMARY KEY,
  identity_id uuid NOT NULL REFERENCES freehold.identity ON DELETE CASCADE,
  -- NULL: an operator's session, in no tenant.
  tenant_id   uuid REFERENCES freehold.tenant ON DELETE CASCADE,
  created_at  timestamptz NOT NULL DEFAULT now(),
  expires_at  timestamptz NOT NULL,
  revoked_at  timestamptz
);
CREATE INDEX session_identity_idx ON freehold.session (identity_id);
CREATE INDEX session_tenant_idx ON freehold.session (tenant_id);
CREATE INDEX session_expires_idx ON freehold.session (expires_at);

CREATE TABLE freehold.refresh_token (
  token_hash bytea PRIMARY KEY,
  session_id uuid NOT NULL REFERENCES freehold.session ON DELETE CASCADE,
  created_at timestamptz NOT NULL DEFAULT now(),
  -- Set when it was exchanged; a second exchange means that somebody copied it.
  used_at    timestamptz
);
CREATE INDEX refresh_token_session_idx ON freehold.refresh_token (session_id);

-- The answers to requests that came with an Idempotency-Key.
CREATE TABLE freehold.idempotency (
  scope        text NOT NULL,
  key          text NOT NULL,
  request_hash bytea NOT NULL,
  tenant_id    uuid,
  created_at   timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (scope, key)
);
CREATE INDEX idempotency_created_idx ON freehold.idempotency (created_at);

-- ── Row-level security of the catalog itself ───────────────────────────────────────────────
-- An operator's context sees all; a tenant's context sees that tenant's rows; none: an error.
DO $$
DECLARE
  t text;
BEGIN
  FOREACH t IN ARRAY ARRAY['baseline', 'tenant', 'ledger', 'migration_failure', 'migration_pause', 'identity',
    'credential', 'membership', 'invitation', 'session', 'refresh_token', 'idempotency'] LOOP
    EXECUTE format('ALTER TABLE freehold.%I ENABLE ROW LEVEL SECURITY', t);
    EXECUTE format('ALTER TABLE freehold.%I FORCE ROW LEVEL SECURITY', t);
    EXECUTE format('CREATE POLICY owner_access ON freehold.%I TO freehold_owner USING (true) WITH CHECK (true)', t);
    EXECUTE format('CREATE POLICY app_access ON freehold.%I TO freehold_catalog USING (true) WITH CHECK (true)', t);
  END LOOP;
  FOREACH t IN ARRAY ARRAY['baseline', 'ledger', 'migration_failure', 'migration_pause', 'credential', 'session',
    'refresh_token', 'idempotency'] LOOP
    EXECUTE format('CREATE POLICY catalog_only ON freehold.%I AS RESTRICTIVE USING ((SELECT freehold.in_catalog()))', t);
  END LOOP;
  FOREACH t IN ARRAY ARRAY['membership', 'invitation'] LOOP
    EXECUTE format('CREATE POLICY tenant_scope ON freehold.%I AS RESTRICTIVE USING ((SELECT freehold.in_catalog()) OR tenant_id = (SELECT freehold.tenant()))', t);
  END LOOP;
END
$$;
CREATE POLICY tenant_scope ON freehold.tenant AS RESTRICTIVE
  USING ((SELECT freehold.in_catalog()) OR id = (SELECT freehold.tenant()))
  WITH CHECK ((SELECT freehold.in_catalog()));
CREATE POLICY tenant_scope ON freehold.identity AS RESTRICTIVE
  USING ((SELECT freehold.in_catalog()) OR id IN (SELECT identity_id FROM freehold.membership))
  WITH CHECK ((SELECT freehold.in_catalog()));

-- ── Grants ─────────────────────────────────────────────────────────────────────────────────
-- freehold_app and the tenants' roles call its functions and reach none of its tables: SQL of a tenant's may
-- become freehold_app.
GRANT USAGE ON SCHEMA freehold TO freehold_catalog, freehold_app, freehold_viewer, freehold_analytics;
GRANT SELECT ON freehold.baseline, freehold.ledger, freehold.migration_failure, freehold.catalog_migration TO freehold_catalog;
GRANT SELECT ON freehold.catalog_migration TO freehold_app;
GRANT SELECT, INSERT, DELETE ON freehold.migration_pause TO freehold_catalog;
GRANT SELECT ON freehold.tenant TO freehold_catalog;
GRANT UPDATE (status, weight) ON freehold.tenant TO freehold_catalog;
GRANT SELECT, INSERT, UPDATE ON freehold.identity, freehold.credential TO freehold_catalog;
GRANT SELECT, INSERT, UPDATE, DELETE ON freehold.membership, freehold.invitation, freehold.session, freehold.refresh_token TO freehold_catalog;
GRANT SELECT ON freehold.idempotency TO freehold_catalog;
REVOKE ALL ON FUNCTION freehold.run_migration(text) FROM PUBLIC;

-- ── Word to every server ───────────────────────────────────────────────────────────────────
-- Servers cache tenants and memberships; these tell them what to forget. The payload carries
-- ids only and is a hint: a forged one costs a reload and grants nothing.
CREATE FUNCTION freehold.notify_tenant() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pg_catalog.pg_notify('freehold', 'tenant:' || coalesce(NEW.id, OLD.id)::text);
  RETURN NULL;
END
$$;
-- Not of version: a migration of the whole fleet is nobody's business here.
CREATE TRIGGER notify AFTER UPDATE OF status, slug, name, weight OR DELETE ON freehold.tenant
  FOR EACH ROW EXECUTE FUNCTION freehold.notify_tenant();

CREATE FUNCTION freehold.notify_membership() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pg_catalog.pg_notify('freehold', 'member:' || coalesce(NEW.tenant_id, OLD.tenant_id)::text
    || ':' || coalesce(NEW.identity_id, OLD.identity_id)::text);
  RETURN NULL;
END
$$;
CREATE TRIGGER notify AFTER INSERT OR UPDATE OR DELETE ON freehold.membership
  FOR EACH ROW EXECUTE FUNCTION freehold.notify_membership();

CREATE FUNCTION freehold.notify_baseline() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pg_catalog.pg_notify('freehold', 'baseline');
  RETURN NULL;
END
$$;
CREATE TRIGGER notify AFTER INSERT OR DELETE ON freehold.baseline
  FOR EACH STATEMENT EXECUTE FUNCTION freehold.notify_baseline();
