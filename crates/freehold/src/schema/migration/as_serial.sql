-- Makes serial columns of identity columns which protection made of serial ones.
DO $freehold$
DECLARE
  had record;
  at record;
  held record;
BEGIN
  FOR had IN
    SELECT d.refobjid::regclass AS of, a.attname AS name, q.oid AS number, q.relname AS sequence, q.relacl AS rights,
      q.oid::regclass AS qualified, s.*
    FROM pg_catalog.pg_depend d
    JOIN pg_catalog.pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid AND a.attidentity = 'd'
    JOIN pg_catalog.pg_class q ON q.oid = d.objid AND q.relkind = 'S'
    JOIN pg_catalog.pg_sequence s ON s.seqrelid = q.oid
    WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.refclassid = 'pg_catalog.pg_class'::regclass
      AND d.deptype = 'i' AND {which}
  LOOP
    EXECUTE format('SELECT last_value, is_called FROM %s', had.qualified) INTO at;
    EXECUTE format('ALTER TABLE %s ALTER COLUMN %I DROP IDENTITY', had.of, had.name);
    EXECUTE format('CREATE SEQUENCE %I AS %s START WITH %s INCREMENT BY %s MINVALUE %s MAXVALUE %s CACHE %s %s OWNED BY %s.%I',
      had.sequence, format_type(had.seqtypid, NULL), had.seqstart, had.seqincrement, had.seqmin, had.seqmax,
      had.seqcache, CASE WHEN had.seqcycle THEN 'CYCLE' ELSE 'NO CYCLE' END, had.of, had.name);
    PERFORM setval(format('%I', had.sequence), at.last_value, at.is_called);
    EXECUTE format('ALTER TABLE %s ALTER COLUMN %I SET DEFAULT nextval(%L)', had.of, had.name, format('%I', had.sequence));
    FOR held IN
      SELECT privilege_type, grantee::regrole AS role FROM aclexplode(had.rights) WHERE grantee NOT IN (0, grantor)
    LOOP
      EXECUTE format('GRANT %s ON SEQUENCE %I TO %s', held.privilege_type, had.sequence, held.role);
    END LOOP;
  END LOOP;
END
$freehold$
