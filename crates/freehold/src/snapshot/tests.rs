use super::*;

fn node(name: &str, stage: i32, number: i64) -> Node {
    let object = Object {
        kind: "table".into(),
        name: name.into(),
        stage,
        statement: format!("CREATE {name}"),
        part_of: None,
    };
    Node { object, number: (number != 0).then_some((1, number)) }
}

fn ordered(nodes: Vec<Node>, parts: &[(i64, i64)], dependences: &[(i64, i64)]) -> Vec<String> {
    let pair = |&(from, to): &(i64, i64)| ((1, from), (1, to));
    let parts = parts.iter().map(pair).collect();
    let dependences: Vec<_> = dependences.iter().map(pair).collect();
    let objects = order::in_order(nodes, &parts, &dependences).unwrap();
    objects.into_iter().map(|object| object.name).collect()
}

#[test]
fn each_object_comes_after_what_it_depends_on_and_else_by_its_stage() {
    let nodes =
        || vec![node("a", 1, 10), node("b", 1, 20), node("said", 2, 0), node("late", 5, 30)];
    assert_eq!(ordered(nodes(), &[], &[]), ["a", "b", "said", "late"]);
    assert_eq!(ordered(nodes(), &[], &[(10, 20)]), ["b", "a", "said", "late"]);
    // By a part of each: the default of one needs the row type of the other.
    assert_eq!(ordered(nodes(), &[(11, 10), (21, 20)], &[(11, 21)]), ["b", "a", "said", "late"]);
    // By a part of a part. Dependencies on objects of other schemas, or on itself, are ignored.
    let parts = [(12, 11), (11, 10)];
    assert_eq!(
        ordered(nodes(), &parts, &[(12, 20), (12, 99), (12, 11)]),
        ["b", "a", "said", "late"]
    );
    // It cannot be created at its stage, and neither can what depends on it.
    assert_eq!(ordered(nodes(), &[], &[(10, 30), (20, 10)]), ["said", "late", "a", "b"]);
}

#[test]
fn a_circle_is_named() {
    let dependences = [((1, 10), (1, 20)), ((1, 20), (1, 10))];
    let nodes = vec![node("freehold_template.a", 1, 10), node("b", 1, 20), node("c", 1, 30)];
    let error = order::in_order(nodes, &HashMap::new(), &dependences).err().unwrap();
    assert!(error.contains("table a, table b;"), "{error}");
}

#[test]
fn texts_of_a_tenant_are_those_of_the_template_and_back() {
    let tenant = TenantId::generate();
    let text = format!(
        "CREATE POLICY p ON {}.t USING (freehold.require_tenant('{}'))",
        TEMPLATE_SCHEMA,
        TenantId::TEMPLATE
    );
    let there = in_schema_of(tenant, &text);
    assert!(there.contains(&tenant.schema()) && there.contains(&tenant.to_string()), "{there}");
    assert_eq!(in_template(tenant, &there), text);
}

#[test]
fn the_catalog_knows_the_templates_id() {
    let text = include_str!("../../migrations/0090_sequences.sql");
    assert!(text.contains(&format!("'{}'", TenantId::TEMPLATE)));
}
