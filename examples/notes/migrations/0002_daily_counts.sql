-- How many notes there were on each day, kept by the service's background task.

CREATE TABLE daily_counts (
    day   date PRIMARY KEY,
    notes bigint NOT NULL
);
