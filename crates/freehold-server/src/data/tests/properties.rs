//! What must hold for any text at all.

use proptest::prelude::*;

use super::translation::translate;
use super::*;

/// Text of the grammar's own pieces gets further into it than noise does.
fn queries() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("orders"),
        Just("total"),
        Just("details"),
        Just("tags"),
        Just("status"),
        Just("select="),
        Just("order="),
        Just("or="),
        Just("and="),
        Just("not."),
        Just("eq."),
        Just("in."),
        Just("is.null"),
        Just("cs."),
        Just("like(any)."),
        Just("("),
        Just(")"),
        Just("{"),
        Just("}"),
        Just(","),
        Just("."),
        Just(":"),
        Just("::"),
        Just("->"),
        Just("->>"),
        Just("\""),
        Just("\\"),
        Just("*"),
        Just("&"),
        Just("="),
        Just("%22"),
        Just("%"),
        Just("é"),
        Just("0"),
        Just("text"),
    ];
    let pieces = prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat());
    prop_oneof![pieces, any::<String>()]
}

proptest! {
    #[test]
    fn no_query_string_makes_the_planner_panic(query in queries()) {
        let _ = get("orders", &query).plan();
    }

    #[test]
    fn no_body_makes_the_planner_panic(body in any::<String>()) {
        let _ = post("orders", "", &body).plan();
    }

    #[test]
    fn every_parameter_is_used_and_every_placeholder_bound(query in queries()) {
        if let Ok(plan) = get("orders", &query).plan() {
            let has = |number: usize| plan.sql.contains(&format!("${number}"));
            prop_assert!((1..=plan.params.len()).all(has));
            prop_assert!(!has(plan.params.len() + 1));
        }
    }

    #[test]
    fn no_message_makes_the_translation_panic(message in any::<String>(), context in any::<String>()) {
        let error = DatabaseError {
            sqlstate: "22P02",
            message: &message,
            context: Some(&context),
            ..DatabaseError::default()
        };
        translate(&post("products", "", r#"{"sku":"a","released":[1,"é"]}"#), &error);
    }
}
