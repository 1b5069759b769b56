-- Notes on orders, as an example of a rule inside a tenant: everyone in the tenant who may read
-- sees all notes, but a note is changed or deleted only by the person who wrote it.

CREATE TABLE order_notes (
    id         uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    order_id   uuid NOT NULL REFERENCES orders (id) ON DELETE CASCADE,
    -- Who is acting in this transaction. It comes with the request's token, not with its body.
    author_id  uuid NOT NULL DEFAULT freehold.actor_id(),
    body       text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),

    CONSTRAINT order_notes_body_length CHECK (char_length(body) BETWEEN 1 AND 4000)
);

CREATE INDEX order_notes_order_id_idx ON order_notes (order_id, created_at);

-- Freehold's own policies let the tenant's roles in and keep everyone else out. A restrictive
-- policy can only narrow that further. The subquery makes PostgreSQL ask for the actor once per
-- statement, not once per row.
--
-- These are for freehold_member (and freehold_admin, which inherits it), so a later migration,
-- run by the schema's owner, can still change every row.
CREATE POLICY order_notes_written_in_own_name ON order_notes
    AS RESTRICTIVE FOR INSERT TO freehold_member
    WITH CHECK (author_id = (SELECT freehold.actor_id()));

CREATE POLICY order_notes_updated_by_author ON order_notes
    AS RESTRICTIVE FOR UPDATE TO freehold_member
    USING (author_id = (SELECT freehold.actor_id()))
    WITH CHECK (author_id = (SELECT freehold.actor_id()));

CREATE POLICY order_notes_deleted_by_author ON order_notes
    AS RESTRICTIVE FOR DELETE TO freehold_member
    USING (author_id = (SELECT freehold.actor_id()));

-- A table that no migration grants to anyone gets the usual grants: viewers read, members write.
-- One that is granted by hand keeps exactly what is written here. Grants say which statements a
-- role may make, policies which rows they reach: a member may change the text of a note, but not
-- its order, its author or its date. freehold_member also has what freehold_viewer has.
GRANT SELECT ON order_notes TO freehold_viewer;
GRANT INSERT, UPDATE (body), DELETE ON order_notes TO freehold_member;
