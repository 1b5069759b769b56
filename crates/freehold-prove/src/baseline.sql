-- What the tenants of a proof hold: text that names its owner, in every row.
--
-- Written as for a single customer, like any baseline: Freehold puts it into a schema for each
-- tenant and protects it. Every text column carries the tenant's mark, every `id` begins with the
-- tenant's own 60 bits, and `tag` is the tenant's number in every row, so that an aggregate tells
-- as well whose rows went into it.

-- Read by everybody, written by nobody: how many rows there are is known at every moment.
CREATE TABLE canaries (
    id      uuid PRIMARY KEY,
    no      integer NOT NULL UNIQUE,
    tag     bigint NOT NULL,
    body    text NOT NULL,
    note    text NOT NULL,
    made_at timestamptz NOT NULL DEFAULT now()
);

-- Written by requests whose end is waited for. Each worker has rows of its own, and works on one
-- request at a time, so it knows what must be there.
CREATE TABLE ledger (
    id        uuid PRIMARY KEY,
    worker    integer NOT NULL,
    no        integer NOT NULL,
    revision  integer NOT NULL,
    tag       bigint NOT NULL,
    canary_id uuid NOT NULL REFERENCES canaries (id),
    body      text NOT NULL,

    UNIQUE (worker, no)
);

-- Written by requests that are dropped on the way: all parts of a batch are there, or none.
CREATE TABLE dropped (
    worker integer NOT NULL,
    batch  integer NOT NULL,
    part   integer NOT NULL,
    tag    bigint NOT NULL,
    body   text NOT NULL,

    PRIMARY KEY (worker, batch, part)
);

CREATE VIEW pages WITH (security_invoker = true) AS
SELECT ledger.worker,
       ledger.no,
       ledger.revision,
       ledger.body,
       canaries.id AS canary_id,
       canaries.body AS canary_body
FROM ledger
JOIN canaries ON canaries.id = ledger.canary_id;
