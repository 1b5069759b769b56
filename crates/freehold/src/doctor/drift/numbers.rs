//! Columns have numbers, which indexes, constraints and stored expressions use. A restored table has no
//! dropped columns, and inherited columns come first in it, so its columns have other numbers than those of
//! the template. What belongs to such tables is compared by the names of columns.

/// Tables, by name, whose columns have other numbers in another schema; and what PostgreSQL prints for each of
/// their stored expressions. Printing opens a table, so it is done once for each form.
const RENUMBERED: &str = "\
), renumbered AS MATERIALIZED (
  SELECT relname FROM (
    SELECT c.relname, bit_xor(hashtextextended(a.attname, a.attnum)) AS numbers FROM rel c JOIN pg_attribute a ON a.attrelid = c.oid
    WHERE a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'p', 'f') AND c.relname IN (
      SELECT r.relname FROM rel r JOIN pg_attribute d ON d.attrelid = r.oid WHERE d.attisdropped
      UNION SELECT r.relname FROM rel r JOIN pg_inherits i ON i.inhrelid = r.oid WHERE NOT r.relispartition)
    GROUP BY c.oid, c.relname) t
  GROUP BY relname HAVING min(numbers) <> max(numbers)
), renumbered_tree AS MATERIALIZED (
  SELECT DISTINCT ON (c.relname, f.form) c.relname, f.form, c.oid, c.nspname, x.tree
  FROM renumbered n JOIN rel c ON c.relname = n.relname CROSS JOIN LATERAL (
    SELECT adbin FROM pg_attrdef WHERE adrelid = c.oid
    UNION ALL SELECT conbin FROM pg_constraint WHERE conrelid = c.oid
    UNION ALL SELECT indexprs FROM pg_index WHERE indrelid = c.oid
    UNION ALL SELECT indpred FROM pg_index WHERE indrelid = c.oid
    UNION ALL SELECT partexprs FROM pg_partitioned_table WHERE partrelid = c.oid
    UNION ALL SELECT polqual FROM pg_policy WHERE polrelid = c.oid AND polname <> 'tenant_isolation'
    UNION ALL SELECT polwithcheck FROM pg_policy WHERE polrelid = c.oid AND polname <> 'tenant_isolation'
  ) x(tree) JOIN form f ON f.text = hashtextextended(x.tree::text, 0)
  ORDER BY c.relname, f.form, c.oid
), named_form AS MATERIALIZED (
  SELECT relname, form, {printed replace(pg_get_expr(tree, oid), nspname, '@')} AS printed FROM renumbered_tree
), renumbered_trigger AS MATERIALIZED (
  SELECT DISTINCT ON (c.relname, t.tgname, f.form) c.relname, t.tgname, f.form, t.oid, c.nspname
  FROM renumbered n JOIN rel c ON c.relname = n.relname JOIN pg_trigger t ON t.tgrelid = c.oid JOIN form f ON f.text = hashtextextended(t.tgqual::text, 0)
  ORDER BY c.relname, t.tgname, f.form, t.oid
), named_trigger AS MATERIALIZED (
  SELECT relname, tgname, form, {printed replace(pg_get_triggerdef(oid), nspname, '@')} AS printed FROM renumbered_trigger
), renumbered_rule AS MATERIALIZED (
  SELECT DISTINCT ON (c.relname, r.rulename, f.form) c.relname, r.rulename, f.form, r.oid, c.nspname
  FROM rel c JOIN pg_rewrite r ON r.ev_class = c.oid JOIN form f ON f.text = hashtextextended(r.ev_action::text, 0)
  WHERE r.rulename <> '_RETURN' AND EXISTS (SELECT FROM renumbered)
  ORDER BY c.relname, r.rulename, f.form, r.oid
), named_rule AS MATERIALIZED (
  SELECT relname, rulename, form, {printed replace(pg_get_ruledef(oid), nspname, '@')} AS printed FROM renumbered_rule";

/// Puts the comparison by names into a query: `{renumbered}`, and `{columns A of R in N}` for the array of
/// column numbers `A` of the relation with the OID `R` and the name `N`; `{columns sorted A …}` if PostgreSQL
/// stores them in the order of the numbers.
pub(super) fn by_name(sql: &str) -> String {
    let mut made = String::with_capacity(sql.len() + 4096);
    let mut parts = sql.split("{columns ");
    made.push_str(parts.next().unwrap_or_default());
    for part in parts {
        let (argument, rest) = part.split_once('}').unwrap_or((part, ""));
        let words: Vec<&str> = argument.split(' ').collect();
        let (order, words) = match words[..] {
            ["sorted", ref words @ ..] => ("a.attname", words),
            ref words => ("key.place", words),
        };
        let [array, _, relation, _, name] = words else { continue };
        made.push_str(&columns(array, relation, name, order));
        made.push_str(rest);
    }
    made.replace("{renumbered}", RENUMBERED)
}

fn columns(array: &str, relation: &str, name: &str, order: &str) -> String {
    format!(
        "CASE WHEN {name} IN (SELECT relname FROM renumbered) THEN (
      SELECT string_agg(coalesce(a.attname::text, '0'), ',' ORDER BY {order})
      FROM unnest({array}) WITH ORDINALITY key(number, place) LEFT JOIN pg_attribute a ON a.attrelid = {relation} AND a.attnum = key.number
    ) ELSE {array}::text END"
    )
}
