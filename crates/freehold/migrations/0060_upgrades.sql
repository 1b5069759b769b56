-- Upgrades without a pause: the catalog is brought forward first, while servers of the former release
-- go on, and they must know whether they may.
-- Run by freehold_owner, search path `freehold, pg_temp`, in one transaction.

-- The oldest catalog version whose servers can work beside this one. Nothing: only its own.
ALTER TABLE freehold.catalog_migration ADD COLUMN serves_from int;
