-- Their place is taken by those that are told a session's number beside the context.
DROP FUNCTION IF EXISTS freehold.admit(text), freehold.enter(text), freehold.enter_catalog(text);

-- A session's number is its currval. Nobody but the owner has any right to it. Unlogged: what it is
-- set to goes into no log and to no replica, and waits for none.
CREATE UNLOGGED SEQUENCE freehold.session_number AS int8 MINVALUE -9223372036854775808 START 0;
