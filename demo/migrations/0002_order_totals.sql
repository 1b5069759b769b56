-- Every order knows its total, kept up to date from its items.

ALTER TABLE orders
    ADD COLUMN total_cents bigint NOT NULL DEFAULT 0,
    ADD CONSTRAINT orders_total_not_negative CHECK (total_cents >= 0);

-- For orders that exist when this migration reaches a tenant.
UPDATE orders
SET total_cents = items.total_cents
FROM (SELECT order_id, sum(line_total_cents) AS total_cents FROM order_items GROUP BY order_id) AS items
WHERE items.order_id = orders.id;

-- Adds what changed, once per statement. Summing all items of the order again would be simpler,
-- but two transactions that add to one order at the same time would not see each other's item.
CREATE FUNCTION add_to_order_totals() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP IN ('UPDATE', 'DELETE') THEN
        UPDATE orders
        SET total_cents = orders.total_cents - gone.total_cents
        FROM (SELECT order_id, sum(line_total_cents) AS total_cents FROM old_items GROUP BY order_id) AS gone
        WHERE gone.order_id = orders.id;
    END IF;
    IF TG_OP IN ('INSERT', 'UPDATE') THEN
        UPDATE orders
        SET total_cents = orders.total_cents + come.total_cents
        FROM (SELECT order_id, sum(line_total_cents) AS total_cents FROM new_items GROUP BY order_id) AS come
        WHERE come.order_id = orders.id;
    END IF;
    RETURN NULL;
END
$$;

CREATE TRIGGER order_items_inserted
    AFTER INSERT ON order_items
    REFERENCING NEW TABLE AS new_items
    FOR EACH STATEMENT EXECUTE FUNCTION add_to_order_totals();

CREATE TRIGGER order_items_updated
    AFTER UPDATE ON order_items
    REFERENCING OLD TABLE AS old_items NEW TABLE AS new_items
    FOR EACH STATEMENT EXECUTE FUNCTION add_to_order_totals();

CREATE TRIGGER order_items_deleted
    AFTER DELETE ON order_items
    REFERENCING OLD TABLE AS old_items
    FOR EACH STATEMENT EXECUTE FUNCTION add_to_order_totals();

-- One line per order, ready for a list. The lateral subquery runs only for the orders that are
-- shown, so "the newest twenty" stays quick. security_invoker makes the reader's own rights and
-- policies count; without it the view would read as its owner.
CREATE VIEW order_summary WITH (security_invoker = true) AS
SELECT orders.id,
       orders.created_at,
       orders.status,
       orders.total_cents,
       orders.customer_id,
       customers.full_name AS customer_name,
       items.line_count,
       items.unit_count
FROM orders
JOIN customers ON customers.id = orders.customer_id
CROSS JOIN LATERAL (
    SELECT count(*) AS line_count, coalesce(sum(quantity), 0) AS unit_count
    FROM order_items
    WHERE order_items.order_id = orders.id
) AS items;
