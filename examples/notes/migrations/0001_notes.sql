-- Notes in notebooks. Runs once in each tenant's schema; nothing here knows of tenants.

CREATE TABLE notebooks (
    id   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL,

    CONSTRAINT notebooks_name_key UNIQUE (name),
    CONSTRAINT notebooks_name_length CHECK (char_length(name) BETWEEN 1 AND 100)
);

CREATE TABLE notes (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    notebook_id bigint NOT NULL REFERENCES notebooks (id),
    title       text NOT NULL,
    body        text NOT NULL DEFAULT '',
    -- Who acts in this transaction, by the request's token and not by its body.
    author_id   uuid NOT NULL DEFAULT freehold.actor_id(),
    created_at  timestamptz NOT NULL DEFAULT now(),

    CONSTRAINT notes_title_key UNIQUE (notebook_id, title),
    CONSTRAINT notes_title_length CHECK (char_length(title) BETWEEN 1 AND 200)
);

-- Under row-level security equality on text reaches an index; LIKE and full text do not.
CREATE INDEX notes_title_idx ON notes (title);

-- security_invoker makes the reader's own policies count; without it the migration is refused.
CREATE VIEW note_list WITH (security_invoker = true) AS
SELECT notes.id, notebooks.name AS notebook, title, body, author_id, created_at
FROM notes JOIN notebooks ON notebooks.id = notes.notebook_id;
