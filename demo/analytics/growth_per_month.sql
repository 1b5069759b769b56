-- name: growth_per_month
-- about: New customers and revenue by the month, and how much a tenant grew over its month before
-- grain: month
-- schedule: every 5m
-- minimum group: 2
-- average: growth_percent
-- watermark: changed_at, inserts only
SELECT month,
       new_customers,
       revenue_cents,
       round(100.0 * (revenue_cents - lag(revenue_cents) OVER months)
             / nullif(lag(revenue_cents) OVER months, 0), 1) AS growth_percent,
       -- A month's growth changes with the month before.
       greatest(changed_at, lag(changed_at) OVER months) AS changed_at
FROM (
    SELECT date_trunc('month', at AT TIME ZONE 'UTC')::date AS month,
           sum(customers) AS new_customers,
           sum(cents)::bigint AS revenue_cents,
           max(at) AS changed_at
    FROM (
        SELECT created_at AS at, 1 AS customers, 0 AS cents FROM customers
        UNION ALL
        SELECT created_at, 0, total_cents FROM orders WHERE status <> 'cancelled'
    ) AS events
    GROUP BY 1
) AS by_month
WINDOW months AS (ORDER BY month)
