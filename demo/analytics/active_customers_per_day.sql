-- name: active_customers_per_day
-- about: Customers who placed an order, by the day
-- grain: day
-- schedule: every 1m
-- minimum group: 2
-- watermark: changed_at, inserts only
SELECT (created_at AT TIME ZONE 'UTC')::date AS day,
       count(DISTINCT customer_id) AS customers,
       max(created_at) AS changed_at
FROM orders
GROUP BY 1
