#!/bin/sh
# Run once, when the primary is made: the replica's own role, and leave to connect.
set -eu
psql --username postgres --dbname freehold --set password="$REPLICATION_PASSWORD" <<'SQL'
CREATE ROLE replication LOGIN REPLICATION PASSWORD :'password';
SQL
echo 'host replication replication all scram-sha-256' >> "$PGDATA/pg_hba.conf"
