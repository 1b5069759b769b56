-- name: revenue_per_day
-- about: What was ordered and not cancelled, by the day, in cents
-- grain: day
-- schedule: every 1m
-- minimum group: 2
-- watermark: changed_at, inserts only
SELECT (created_at AT TIME ZONE 'UTC')::date AS day,
       coalesce(sum(total_cents) FILTER (WHERE status <> 'cancelled'), 0)::bigint AS revenue_cents,
       max(created_at) AS changed_at
FROM orders
GROUP BY 1
