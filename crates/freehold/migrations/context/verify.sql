-- What portable and best have in common: the check of a seal. Run with the rights of
-- freehold_guard, who alone can read the keys. HMAC by PostgreSQL's own sha256(), so no extension is needed.

-- The claim of a sealed context, or an error.
CREATE OR REPLACE FUNCTION freehold_guard.unseal(context text) RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  message bytea := pg_catalog.convert_to(pg_catalog.substr(context, 65), 'UTF8');
  reason text := 'unknown seal';
  -- HMAC's key, already combined with the two pads.
  inner_pad bytea;
  outer_pad bytea;
BEGIN
  SELECT k.inner_pad, k.outer_pad INTO inner_pad, outer_pad FROM freehold_guard.seal_key k
  WHERE k.id OPERATOR(pg_catalog.=) pg_catalog.substr(context, 65, 10)
    AND (k.retires_at IS NULL OR k.retires_at OPERATOR(pg_catalog.>) pg_catalog.now());
  IF pg_catalog.encode(pg_catalog.sha256(outer_pad OPERATOR(pg_catalog.||) pg_catalog.sha256(inner_pad OPERATOR(pg_catalog.||) message)), 'hex')
     OPERATOR(pg_catalog.=) pg_catalog.substr(context, 1, 64) THEN
    -- It ends by the transaction's beginning, which no SQL can change: a long one does not outlive
    -- its context. That it was made for seconds is seen by the clock: it may be made in the middle.
    reason := 'expired';
    IF pg_catalog.substr(context, 75, 10)::float8 OPERATOR(pg_catalog.>=) pg_catalog.date_part('epoch', pg_catalog.now())
       AND pg_catalog.substr(context, 75, 10)::float8 OPERATOR(pg_catalog.-) pg_catalog.date_part('epoch', pg_catalog.clock_timestamp()) OPERATOR(pg_catalog.<=) 6::pg_catalog.float8 THEN
      reason := 'made for another session';
      IF pg_catalog.substr(context, 85, 10)::int4 IN (0, pg_catalog.pg_backend_pid()) THEN
        RETURN pg_catalog.substr(context, 95);
      END IF;
    END IF;
  END IF;
  RETURN freehold_guard.refuse(reason);
END
$$;
