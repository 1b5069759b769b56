-- Their place is taken by those that are told a session's number beside the context.
DROP FUNCTION IF EXISTS freehold.enter(text), freehold.enter_catalog(text);
