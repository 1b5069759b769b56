-- The demo shop: customers buy products by placing orders.
--
-- Nothing here knows about tenants. Freehold runs this file once for each tenant, in one
-- transaction, with the search path set to that tenant's own schema, and puts every table
-- under row-level security afterwards. Names are therefore never qualified with a schema.
--
-- Money is in cents of the shop's one currency, as integers.

CREATE TYPE order_status AS ENUM ('pending', 'paid', 'shipped', 'delivered', 'cancelled');

CREATE TABLE customers (
    id           uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    email        text NOT NULL,
    full_name    text NOT NULL,
    phone        text,
    city         text NOT NULL,
    country_code text NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),

    CONSTRAINT customers_email_key UNIQUE (email),
    CONSTRAINT customers_email_form CHECK (email = lower(email) AND email ~ '^[^@\s]+@[^@\s]+$'),
    CONSTRAINT customers_full_name_length CHECK (char_length(full_name) BETWEEN 1 AND 200),
    CONSTRAINT customers_country_code_form CHECK (country_code ~ '^[A-Z]{2}$')
);

CREATE TABLE products (
    id          uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    sku         text NOT NULL,
    name        text NOT NULL,
    price_cents integer NOT NULL,
    stock       integer NOT NULL DEFAULT 0,
    in_stock    boolean NOT NULL GENERATED ALWAYS AS (stock > 0) STORED,
    created_at  timestamptz NOT NULL DEFAULT now(),

    CONSTRAINT products_sku_key UNIQUE (sku),
    CONSTRAINT products_sku_form CHECK (sku ~ '^[A-Z0-9]+(-[A-Z0-9]+)*$'),
    CONSTRAINT products_name_length CHECK (char_length(name) BETWEEN 1 AND 200),
    CONSTRAINT products_price_not_negative CHECK (price_cents >= 0),
    CONSTRAINT products_stock_not_negative CHECK (stock >= 0)
);

CREATE TABLE orders (
    id          uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    customer_id uuid NOT NULL REFERENCES customers (id) ON DELETE RESTRICT,
    status      order_status NOT NULL DEFAULT 'pending',
    shipped_at  timestamptz,
    created_at  timestamptz NOT NULL DEFAULT now(),

    CONSTRAINT orders_shipped_after_created CHECK (shipped_at >= created_at)
);

CREATE TABLE order_items (
    id               uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    order_id         uuid NOT NULL REFERENCES orders (id) ON DELETE CASCADE,
    product_id       uuid NOT NULL REFERENCES products (id) ON DELETE RESTRICT,
    quantity         integer NOT NULL DEFAULT 1,
    -- The price when it was ordered; products.price_cents may change later.
    unit_price_cents integer NOT NULL,
    line_total_cents bigint NOT NULL GENERATED ALWAYS AS (quantity::bigint * unit_price_cents) STORED,
    created_at       timestamptz NOT NULL DEFAULT now(),

    -- Also the index for "the items of this order".
    CONSTRAINT order_items_product_once_per_order UNIQUE (order_id, product_id),
    CONSTRAINT order_items_quantity_positive CHECK (quantity > 0),
    CONSTRAINT order_items_price_not_negative CHECK (unit_price_cents >= 0)
);

-- What the shop's pages ask for: the newest orders, the newest of one customer, the items of a
-- product. Under row-level security only leakproof operators reach an index, so these are on
-- uuid, integer and timestamptz columns, compared by equality and range. A filter on status, an
-- enum, would not use an index of its own; it narrows one of these.
CREATE INDEX orders_created_at_idx ON orders (created_at DESC);
CREATE INDEX orders_customer_id_idx ON orders (customer_id, created_at DESC);
CREATE INDEX order_items_product_id_idx ON order_items (product_id);
CREATE INDEX customers_created_at_idx ON customers (created_at DESC);
CREATE INDEX products_price_cents_idx ON products (price_cents);
