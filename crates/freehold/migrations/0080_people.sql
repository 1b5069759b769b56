-- People: an address is believed when it was proven, letters wait in an outbox, guesses are counted for
-- all servers together, and what is done to people and tenants is written down.
-- Run by freehold_owner, search path `freehold, pg_temp`, in one transaction.

-- ── Proof ──────────────────────────────────────────────────────────────────────────────────

ALTER TABLE freehold.identity
  -- When somebody showed that the address is theirs, by a token sent to it, or somebody vouched for
  -- them; who that was (the person, an operator, or the nil UUID for the command line), and why.
  ADD COLUMN proven_at   timestamptz,
  ADD COLUMN proven_by   uuid,
  ADD COLUMN proven_why  text,
  ADD COLUMN disabled_at timestamptz,
  -- Rises with each change of password or address and with each disabling: what was signed for an
  -- earlier one is not believed any more.
  ADD COLUMN epoch       int NOT NULL DEFAULT 0;
-- Who is here already came before addresses were proven, and keeps what they have. Where sign-up was
-- open to everybody, an address may be a stranger's: `freehold person list` shows whom this was done for.
UPDATE freehold.identity SET proven_at = now(), proven_by = '00000000-0000-0000-0000-000000000000',
  proven_why = 'known before addresses were proven';
ALTER TABLE freehold.identity
  ADD CONSTRAINT identity_proof_is_whole CHECK ((proven_at IS NULL) = (proven_by IS NULL) AND (proven_at IS NULL) = (proven_why IS NULL)),
  ADD CONSTRAINT identity_operator_is_proven CHECK (NOT is_operator OR proven_at IS NOT NULL);
CREATE INDEX identity_operator_idx ON freehold.identity (email) WHERE is_operator;

-- ── What waits for a proof ─────────────────────────────────────────────────────────────────
-- Of tokens there are SHA-256 hashes alone. A row has none until its letter is written: the token is
-- made when it is sent and is nowhere else.

ALTER TABLE freehold.invitation
  ALTER COLUMN token_hash DROP NOT NULL,
  -- By an operator or the command line, rather than by a member of the tenant.
  ADD COLUMN by_operator boolean NOT NULL DEFAULT false;
CREATE INDEX invitation_inviter_idx ON freehold.invitation (invited_by);

CREATE TABLE freehold.sign_up (
  id            uuid PRIMARY KEY,
  email         text NOT NULL CHECK (email = lower(email)),
  slug          text NOT NULL,
  name          text NOT NULL,
  -- Of the password that was given, which must be given again with the token: a stranger who signs
  -- somebody else up chooses no password for them.
  password_hash text,
  token_hash    bytea UNIQUE,
  created_at    timestamptz NOT NULL DEFAULT now(),
  expires_at    timestamptz NOT NULL
);
CREATE INDEX sign_up_email_idx ON freehold.sign_up (email);

CREATE TABLE freehold.password_reset (
  token_hash  bytea PRIMARY KEY,
  identity_id uuid NOT NULL REFERENCES freehold.identity ON DELETE CASCADE,
  expires_at  timestamptz NOT NULL
);
CREATE INDEX password_reset_identity_idx ON freehold.password_reset (identity_id);

-- One a person; a later one takes its place.
CREATE TABLE freehold.address_change (
  id               uuid PRIMARY KEY,
  identity_id      uuid NOT NULL UNIQUE REFERENCES freehold.identity ON DELETE CASCADE,
  email            text NOT NULL CHECK (email = lower(email)),
  old_token_hash   bytea UNIQUE,
  new_token_hash   bytea UNIQUE,
  old_confirmed_at timestamptz,
  new_confirmed_at timestamptz,
  expires_at       timestamptz NOT NULL
);

-- ── Letters ────────────────────────────────────────────────────────────────────────────────

CREATE TABLE freehold.outbox (
  -- Version 7: in the order of time.
  id         uuid PRIMARY KEY,
  kind       text NOT NULL CHECK (kind IN ('sign_up', 'invitation', 'reset', 'address_leave', 'address_proof',
               'address_taken', 'address_changed', 'password_changed')),
  email      text NOT NULL CHECK (email = lower(email)),
  tenant_id  uuid REFERENCES freehold.tenant ON DELETE CASCADE,
  -- The sign_up, invitation or address_change that it is about.
  about      uuid,
  -- The addresses of a change that is done.
  addresses  text[],
  created_at timestamptz NOT NULL DEFAULT now(),
  state      text NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'sent', 'dropped', 'failed')),
  attempts   int NOT NULL DEFAULT 0,
  -- When it is tried next; while somebody sends it, when others may.
  next_at    timestamptz NOT NULL DEFAULT now(),
  error      text CHECK (char_length(error) <= 1000)
);
CREATE INDEX outbox_waiting_idx ON freehold.outbox (next_at) WHERE state = 'waiting';
CREATE INDEX outbox_email_idx ON freehold.outbox (email, created_at);
CREATE INDEX outbox_tenant_idx ON freehold.outbox (tenant_id, created_at);

-- How many letters of a kind went to an address within an hour, and how many a tenant caused within a
-- day. Of all tenants: many may write to one address. By kind, so that what strangers ask for in the
-- owner's name is not in the way of what the owner asks for.
CREATE FUNCTION freehold.count_letters(address text, letter text, tenant uuid, OUT of_address int8, OUT of_tenant int8)
LANGUAGE sql SECURITY DEFINER SET search_path = freehold, pg_temp AS $$
  SELECT (SELECT count(*) FROM freehold.outbox o WHERE o.email = address AND o.kind = letter AND o.created_at > now() - interval '1 hour'),
         (SELECT count(*) FROM freehold.outbox o WHERE o.tenant_id = tenant AND o.created_at > now() - interval '1 day')
  WHERE freehold.tenant() IS NOT NULL OR freehold.in_catalog()
$$;

-- ── Guesses ────────────────────────────────────────────────────────────────────────────────

-- How far each budget of guesses is used up: at `free_at` it is whole again. A row whose time has come
-- is as good as none.
CREATE TABLE freehold.guess (
  key     bytea PRIMARY KEY,
  free_at timestamptz NOT NULL
);
CREATE INDEX guess_free_idx ON freehold.guess (free_at);

-- Takes one guess from each budget, in their order. If one is used up, it returns which, and the seconds
-- after which there is a guess again; those before it are charged all the same. `bursts` is how many may
-- come at once, `secs` how long it takes until one more may.
CREATE FUNCTION freehold.take_guess(keys bytea[], bursts int[], secs float8[], OUT used_up bytea, OUT wait float8)
LANGUAGE plpgsql AS $$
DECLARE
  present timestamptz := clock_timestamp();
  step interval;
  free timestamptz;
BEGIN
  FOR n IN 1 .. cardinality(keys) LOOP
    step := make_interval(secs => secs[n]);
    INSERT INTO freehold.guess AS g (key, free_at) VALUES (keys[n], present + step)
    ON CONFLICT (key) DO UPDATE SET free_at = greatest(g.free_at, present) + step
      WHERE greatest(g.free_at, present) + step <= present + step * bursts[n]
    RETURNING g.free_at INTO free;
    IF NOT FOUND THEN
      SELECT g.free_at INTO free FROM freehold.guess g WHERE g.key = keys[n];
      used_up := keys[n];
      wait := greatest(extract(epoch FROM free - step * (bursts[n] - 1) - present)::float8, 0.001);
      RETURN;
    END IF;
  END LOOP;
END
$$;

-- Gives back what a guess has taken that turned out to be none. In the same order, so that two who do
-- either do not wait for each other.
CREATE FUNCTION freehold.return_guess(keys bytea[], secs float8[]) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
  FOR n IN 1 .. cardinality(keys) LOOP
    UPDATE freehold.guess SET free_at = free_at - make_interval(secs => secs[n]) WHERE key = keys[n];
  END LOOP;
END
$$;

-- ── What was done ──────────────────────────────────────────────────────────────────────────

CREATE TABLE freehold.audit (
  -- Version 7: in the order of time.
  id          uuid PRIMARY KEY,
  occurred_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  action      text NOT NULL CHECK (char_length(action) <= 100),
  -- Who did it: a person, the nil UUID for the command line and the system, NULL for somebody who has
  -- not signed in. No foreign keys: the record outlives the tenant and the person.
  actor_id    uuid,
  -- On whom: a person with the address of that time, a tenant.
  target_id   uuid,
  target      text CHECK (char_length(target) <= 300),
  tenant_id   uuid,
  -- From where: a client's address, or the account at a command line; and which request it was.
  origin      text CHECK (char_length(origin) <= 400),
  request_id  text CHECK (char_length(request_id) <= 1000),
  why         text CHECK (char_length(why) <= 1000),
  detail      jsonb NOT NULL DEFAULT '{}'
);
CREATE INDEX audit_tenant_idx ON freehold.audit (tenant_id, id);
CREATE INDEX audit_target_idx ON freehold.audit (target_id, id);
CREATE INDEX audit_address_idx ON freehold.audit (target);

-- Adds to the record; nobody but the owner changes or removes any of it. In a tenant's context it is
-- that tenant's record and that actor's doing, whatever is given.
CREATE FUNCTION freehold.record_audit(entry jsonb) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = freehold, pg_temp AS $$
  INSERT INTO freehold.audit (id, action, actor_id, target_id, target, tenant_id, origin, request_id, why, detail)
  SELECT e.id, e.action, coalesce(freehold.actor_id(), e.actor_id), e.target_id, e.target,
    coalesce(freehold.tenant(), e.tenant_id), e.origin, e.request_id, e.why, coalesce(e.detail, '{}')
  FROM jsonb_to_record(entry) AS e (id uuid, action text, actor_id uuid, target_id uuid, target text,
    tenant_id uuid, origin text, request_id text, why text, detail jsonb)
  -- Without any context there is nobody whose doing it could be.
  WHERE freehold.tenant() IS NOT NULL OR freehold.in_catalog()
$$;

-- Keeps 400 days of it: a year, and a month to look back on it. Requests that anybody may make for any
-- address are kept for 30 days, since the address may be that of somebody who has nothing to do with the
-- service. The bounds stand here, where the app role cannot choose them.
CREATE FUNCTION freehold.prune_audit() RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = freehold, pg_temp AS $$
  DELETE FROM freehold.audit WHERE occurred_at < now() - interval '400 days'
    OR (occurred_at < now() - interval '30 days' AND action IN ('signup.request', 'password.request'))
$$;

-- ── Row-level security and grants ──────────────────────────────────────────────────────────
DO $$
DECLARE
  t text;
BEGIN
  FOREACH t IN ARRAY ARRAY['sign_up', 'password_reset', 'address_change', 'outbox', 'guess', 'audit'] LOOP
    EXECUTE format('ALTER TABLE freehold.%I ENABLE ROW LEVEL SECURITY', t);
    EXECUTE format('ALTER TABLE freehold.%I FORCE ROW LEVEL SECURITY', t);
    EXECUTE format('CREATE POLICY owner_access ON freehold.%I TO freehold_owner USING (true) WITH CHECK (true)', t);
    EXECUTE format('CREATE POLICY app_access ON freehold.%I TO freehold_catalog USING (true) WITH CHECK (true)', t);
  END LOOP;
  FOREACH t IN ARRAY ARRAY['sign_up', 'password_reset', 'address_change', 'guess'] LOOP
    EXECUTE format('CREATE POLICY catalog_only ON freehold.%I AS RESTRICTIVE USING ((SELECT freehold.in_catalog()))', t);
  END LOOP;
  -- For the app role: the owner's functions above look beyond one tenant.
  FOREACH t IN ARRAY ARRAY['outbox', 'audit'] LOOP
    EXECUTE format('CREATE POLICY tenant_scope ON freehold.%I AS RESTRICTIVE TO freehold_catalog USING ((SELECT freehold.in_catalog()) OR tenant_id = (SELECT freehold.tenant()))', t);
  END LOOP;
END
$$;
GRANT SELECT, INSERT, UPDATE, DELETE ON freehold.sign_up, freehold.password_reset, freehold.address_change,
  freehold.outbox, freehold.guess TO freehold_catalog;
GRANT SELECT ON freehold.audit TO freehold_catalog;
GRANT DELETE ON freehold.identity, freehold.credential TO freehold_catalog;
-- A sign-up that is sent again before its proof has no tenant to remember, and no owner to write it.
GRANT INSERT, DELETE ON freehold.idempotency TO freehold_catalog;
REVOKE ALL ON FUNCTION freehold.take_guess(bytea[], int[], float8[]), freehold.return_guess(bytea[], float8[]),
  freehold.count_letters(text, text, uuid), freehold.record_audit(jsonb), freehold.prune_audit() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION freehold.take_guess(bytea[], int[], float8[]), freehold.return_guess(bytea[], float8[]),
  freehold.count_letters(text, text, uuid), freehold.record_audit(jsonb), freehold.prune_audit() TO freehold_catalog;

-- ── Word to every server ───────────────────────────────────────────────────────────────────
-- A session that has ended is refused within a second, and so is whoever was disabled.
CREATE FUNCTION freehold.notify_session() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pg_catalog.pg_notify('freehold', 'session:' || OLD.id::text);
  RETURN NULL;
END
$$;
CREATE TRIGGER notify AFTER UPDATE OF revoked_at OR DELETE ON freehold.session
  FOR EACH ROW EXECUTE FUNCTION freehold.notify_session();

CREATE FUNCTION freehold.notify_identity() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pg_catalog.pg_notify('freehold', 'identity:' || OLD.id::text);
  RETURN NULL;
END
$$;
CREATE TRIGGER notify AFTER UPDATE OF disabled_at ON freehold.identity
  FOR EACH ROW EXECUTE FUNCTION freehold.notify_identity();

CREATE FUNCTION freehold.notify_mail() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pg_catalog.pg_notify('freehold', 'mail');
  RETURN NULL;
END
$$;
CREATE TRIGGER notify AFTER INSERT ON freehold.outbox
  FOR EACH STATEMENT EXECUTE FUNCTION freehold.notify_mail();
