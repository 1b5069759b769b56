-- name: orders_per_day
-- about: Orders by the day they were placed, and how many of them were cancelled
-- grain: day
-- schedule: every 1m
-- minimum group: 2
-- watermark: changed_at, inserts only
SELECT (created_at AT TIME ZONE 'UTC')::date AS day,
       count(*) AS orders,
       count(*) FILTER (WHERE status = 'cancelled') AS cancelled,
       max(created_at) AS changed_at
FROM orders
GROUP BY 1
