//! Types that are not PostgreSQL's own, because a baseline or an extension created them.

use std::pin::Pin;
use std::sync::Arc;

use postgres_protocol::Oid;
use postgres_types::{Field, Kind, Type};

use super::row::Column;
use super::statement::Statement;
use super::{Connection, Result, Row};

/// Names are qualified, since the search path may be a tenant's.
const TYPE_SQL: &str = "
SELECT t.typname::text, n.nspname::text, t.typtype::text,
       CASE WHEN t.typcategory = 'A' THEN t.typelem ELSE 0 END,
       t.typbasetype, coalesce(r.rngsubtype, 0),
       ARRAY(SELECT e.enumlabel::text FROM pg_catalog.pg_enum e WHERE e.enumtypid = t.oid ORDER BY e.enumsortorder),
       ARRAY(SELECT a.attname::text FROM pg_catalog.pg_attribute a
             WHERE t.typtype = 'c' AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum),
       ARRAY(SELECT a.atttypid FROM pg_catalog.pg_attribute a
             WHERE t.typtype = 'c' AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum)
FROM pg_catalog.pg_type t
JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
LEFT JOIN pg_catalog.pg_range r ON r.rngtypid = t.oid
WHERE t.oid = $1";

impl Connection {
    pub(super) async fn columns(&mut self, fields: Vec<(String, Oid)>) -> Result<Arc<[Column]>> {
        let mut columns = Vec::with_capacity(fields.len());
        for (name, oid) in fields {
            columns.push(Column::new(name, self.type_of(oid).await?));
        }
        Ok(columns.into())
    }

    pub(super) async fn type_of(&mut self, oid: Oid) -> Result<Type> {
        if let Some(known) = Type::from_oid(oid).or_else(|| self.types.get(&oid).cloned()) {
            return Ok(known);
        }
        let found = self.look_up(oid).await?;
        self.types.insert(oid, found.clone());
        Ok(found)
    }

    /// Boxed, because a type may be made of others.
    fn look_up(&mut self, oid: Oid) -> Pin<Box<dyn Future<Output = Result<Type>> + Send + '_>> {
        Box::pin(self.ask_for(oid))
    }

    async fn ask_for(&mut self, oid: Oid) -> Result<Type> {
        let Some(row) = self.describe_type(oid).await? else {
            // The type was dropped meanwhile; its values are treated as bytes.
            return Ok(Type::new("unknown".into(), oid, Kind::Simple, "pg_catalog".into()));
        };
        let (name, schema): (String, String) = (row.get(0), row.get(1));
        let (element, base, subtype): (Oid, Oid, Oid) = (row.get(3), row.get(4), row.get(5));
        let kind = match row.get::<_, &str>(2) {
            "e" => Kind::Enum(row.get(6)),
            "p" => Kind::Pseudo,
            "d" => Kind::Domain(self.type_of(base).await?),
            "r" => Kind::Range(self.type_of(subtype).await?),
            "c" => {
                let (names, types): (Vec<String>, Vec<Oid>) = (row.get(7), row.get(8));
                let mut fields = Vec::with_capacity(names.len());
                for (name, oid) in names.into_iter().zip(types) {
                    fields.push(Field::new(name, self.type_of(oid).await?));
                }
                Kind::Composite(fields)
            }
            _ if element != 0 => Kind::Array(self.type_of(element).await?),
            _ => Kind::Simple,
        };
        Ok(Type::new(name, oid, kind, schema))
    }

    async fn describe_type(&mut self, oid: Oid) -> Result<Option<Row>> {
        let statement = Statement::new(
            String::new(),
            TYPE_SQL,
            vec![Type::OID],
            [
                ("name", Type::TEXT),
                ("schema", Type::TEXT),
                ("kind", Type::TEXT),
                ("element", Type::OID),
                ("base", Type::OID),
                ("subtype", Type::OID),
                ("labels", Type::TEXT_ARRAY),
                ("field_names", Type::TEXT_ARRAY),
                ("field_types", Type::OID_ARRAY),
            ]
            .into_iter()
            .map(|(name, ty)| Column::new(name.into(), ty))
            .collect(),
        );
        let mut batch = self.batch();
        batch.query_as_described(&statement, &[&oid])?;
        let answer = batch.run().await?.pop().unwrap_or_default();
        Ok(answer.rows.into_iter().next())
    }
}
