//! Advice from constructed surveys and requests.

use super::*;

fn column(name: &str, reaches: bool) -> Column {
    Column {
        name: name.to_owned(),
        type_name: "text".to_owned(),
        bytes: 8,
        equal_reaches: Some(reaches),
        range_reaches: Some(reaches),
    }
}

fn index(name: &str, columns: &[&str]) -> Index {
    let columns: Vec<String> = columns.iter().map(|c| (*c).to_owned()).collect();
    Index {
        name: name.to_owned(),
        method: "btree".to_owned(),
        valid: true,
        keys: columns.clone(),
        columns,
        ..Index::default()
    }
}

fn table(indexes: Vec<Index>) -> Table {
    Table {
        name: "t".to_owned(),
        rows: 20_000,
        columns: vec![column("a", true), column("b", true), column("kept", false)],
        indexes,
        ..Table::default()
    }
}

fn asked(conditions: &[(&str, &str)], order: &[&str]) -> SampledShape {
    let owned = |(name, operator): &(&str, &str)| ((*name).to_owned(), (*operator).to_owned());
    let shape = QueryShape {
        table: "t".to_owned(),
        conditions: conditions.iter().map(owned).collect(),
        order: order.iter().map(|by| IndexColumn::parse(by).unwrap()).collect(),
    };
    SampledShape {
        tenant: TenantId::TEMPLATE,
        shape,
        requests: 5_000,
        first_at: Timestamp::UNIX_EPOCH,
    }
}

fn advice(table: &Table, asked: &[SampledShape]) -> Vec<(AdviceKind, String)> {
    let mut advice = Vec::new();
    for asked in asked {
        of_shape(table, asked, &AdviceOptions::default(), &mut advice);
    }
    let text = |a: &IndexAdvice| {
        let columns: Vec<String> = a.columns.iter().map(ToString::to_string).collect();
        (a.kind, columns.join(", "))
    };
    advice.iter().map(text).collect()
}

fn missing(columns: &str) -> Vec<(AdviceKind, String)> {
    vec![(AdviceKind::Missing, columns.to_owned())]
}

#[test]
fn columns_compared_by_equality_lead_and_the_order_follows() {
    let bare = table(Vec::new());
    let both = asked(&[("a", "=")], &["b desc"]);
    assert_eq!(advice(&bare, std::slice::from_ref(&both)), missing("a, b desc"));
    assert_eq!(advice(&bare, &[asked(&[("b", ">="), ("a", "=")], &[])]), missing("a, b"));
    // One index serves both requests, whichever comes first.
    let one = asked(&[("a", "=")], &[]);
    assert_eq!(advice(&bare, &[one.clone(), both.clone()]), missing("a, b desc"));
    assert_eq!(advice(&bare, &[both, one]), missing("a, b desc"));
    assert_eq!(advice(&bare, &[asked(&[("a", "= ANY")], &["b"])]), missing("b"));
    assert_eq!(advice(&bare, &[asked(&[], &[]), asked(&[("a", "<>")], &[])]), []);
}

#[test]
fn nothing_is_missing_where_an_index_leads_or_too_little_was_asked() {
    let request = asked(&[("a", "=")], &["b desc"]);
    for (indexes, served) in [
        (vec![index("i", &["a", "b"])], true),
        (vec![index("i", &["b", "a"])], false),
        (vec![index("i", &["a"])], false),
        (vec![Index { unique: true, ..index("i", &["a"]) }], true),
        (vec![Index { valid: false, ..index("i", &["a", "b"]) }], false),
        (vec![Index { condition: Some("b > 1".into()), ..index("i", &["a", "b"]) }], false),
    ] {
        let found = advice(&table(indexes.clone()), std::slice::from_ref(&request));
        assert_eq!(found.is_empty(), served, "{indexes:?}");
    }
    let seldom = SampledShape { requests: 999, ..request.clone() };
    assert_eq!(advice(&table(Vec::new()), &[seldom]), []);
    let small = Table { rows: 9_999, ..table(Vec::new()) };
    assert_eq!(advice(&small, &[request]), []);
}

#[test]
fn what_row_level_security_keeps_from_an_index_is_told_where_nothing_else_finds_the_rows() {
    let bare = table(vec![index("i", &["a"])]);
    let kept = vec![(AdviceKind::KeptByRls, "kept".to_owned())];
    for operator in ["=", "<", "LIKE"] {
        assert_eq!(advice(&bare, &[asked(&[("kept", operator)], &[])]), kept);
    }
    assert_eq!(advice(&bare, &[asked(&[("a", "LIKE")], &[])])[0].0, AdviceKind::KeptByRls);
    assert_eq!(advice(&bare, &[asked(&[("kept", "="), ("a", "=")], &[])]), []);
}

#[test]
fn a_longer_index_covers_a_shorter_one_if_it_is_of_the_same_kind() {
    let (short, long) = (index("s", &["a"]), index("l", &["a", "b"]));
    assert!(covers(&long, &short) && !covers(&short, &long));
    let partial = Index { condition: Some("a > 1".into()), ..long.clone() };
    let gin = Index { method: "gin".into(), ..long.clone() };
    let other_class = Index { keys: vec!["a 7".into(), "b".into()], ..long.clone() };
    for other in [&partial, &gin, &other_class, &Index { valid: false, ..long }] {
        assert!(!covers(other, &short), "{other:?}");
    }
    // Of two equal indexes one stays: a unique one first, otherwise the baseline's.
    let (one, two) = (index("one", &["a"]), index("two", &["a"]));
    assert!(covers(&one, &two) != covers(&two, &one));
    let baseline = Index { in_template: true, ..two };
    assert!(covers(&baseline, &one) && !covers(&one, &baseline));
    assert!(covers(&Index { unique: true, ..one }, &baseline));
}

#[test]
fn an_index_that_a_foreign_key_needs_is_not_to_be_dropped() {
    let key = super::super::survey::ForeignKey {
        name: "k".into(),
        columns: vec!["a".into()],
        refers_to: "u".into(),
    };
    let mut table = table(vec![index("i", &["a"])]);
    table.foreign_keys = vec![key];
    assert!(supports_foreign_key(&table, &table.indexes[0]));
    table.indexes.push(index("j", &["a", "b"]));
    assert!(!supports_foreign_key(&table, &table.indexes[0]));
}

/// A survey of one table, after PostgreSQL has counted for a year.
fn year(table: Table) -> Survey {
    Survey {
        tenant: TenantId::TEMPLATE,
        now: ago(0),
        counted_since: ago(365),
        tables: vec![table],
        hypopg_schema: None,
        has_replicas: false,
    }
}

fn ago(days: i64) -> Timestamp {
    Timestamp::from_second(2_000_000_000 - days * 86_400).unwrap()
}

/// A table that is read often, but never by one of its indexes.
fn busy(indexes: Vec<Index>) -> Table {
    Table { index_scans: 5_000, ..table(indexes) }
}

/// The advice on existing indexes.
fn told(survey: &Survey) -> Vec<(AdviceKind, String)> {
    let report = advise(survey, &[], &AdviceOptions::default());
    report.advice.into_iter().map(|a| (a.kind, a.index.unwrap_or_default())).collect()
}

#[test]
fn what_keeps_rows_unique_or_serves_a_constraint_is_never_to_be_dropped() {
    let unused = |name: &str| vec![(AdviceKind::Unused, name.to_owned())];
    let plain = index("plain", &["b"]);
    for kept in [
        // Of CREATE UNIQUE INDEX, without a constraint.
        Index { unique: true, ..index("kept", &["a"]) },
        // Of an exclusion constraint.
        Index { fixed: true, method: "gist".into(), ..index("kept", &["a"]) },
        // It was never read, and another index serves the same queries.
        Index { unique: true, ..index("kept", &["b"]) },
    ] {
        let survey = year(busy(vec![kept.clone(), plain.clone()]));
        let found = told(&survey);
        assert!(found.iter().all(|(_, name)| name == "plain") && found.len() == 1, "{kept:?}");
    }
    let mut table = busy(vec![index("kept", &["a"]), plain]);
    table.foreign_keys = vec![super::super::survey::ForeignKey {
        name: "k".into(),
        columns: vec!["a".into()],
        refers_to: "u".into(),
    }];
    assert_eq!(told(&year(table)), unused("plain"));
}

#[test]
fn an_index_is_unused_only_if_it_was_there_for_long_enough() {
    let made = |days| Index { made_at: Some(ago(days)), ..index("i", &["a"]) };
    let of = |days| year(busy(vec![made(days)]));
    assert_eq!(told(&of(8)), [(AdviceKind::Unused, "i".to_owned())]);
    assert_eq!(told(&of(6)), []);
    // Or since the table's latest migration, which may have created it.
    let migrated =
        |days| year(Table { migrated_at: Some(ago(days)), ..busy(vec![index("i", &["a"])]) });
    assert_eq!(told(&migrated(8)), [(AdviceKind::Unused, "i".to_owned())]);
    assert_eq!(told(&migrated(6)), []);
    let forgot = Survey { counted_since: ago(6), ..of(8) };
    assert_eq!(told(&forgot), []);
}
