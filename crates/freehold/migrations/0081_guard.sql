-- Keys, verdict and session numbers have moved to the schema and the role freehold_guard.
DROP TABLE IF EXISTS freehold.seal_key;
DROP SEQUENCE IF EXISTS freehold.session_number;
DROP FUNCTION IF EXISTS freehold.notify_seal_key(), freehold.unseal(text), freehold.admit(text, int8),
  freehold.open_session(text), freehold.refuse(text),
  freehold.context(), freehold.seal_mode();
