//! Lists of varchar constants in expressions. PostgreSQL prints `status IN ('a', 'b')` as
//! `(ARRAY['a'::character varying, …])::text[]`, and reads that as `ARRAY[('a'::character varying)::text, …]`,
//! as which it prints it then: a new tenant, and every restored table, would differ from the template. Without
//! the cast it is read as what was written first. Pure.

use crate::sql::script::{Kind, Token, tokens};

/// The kinds of objects whose statements contain no expressions, or source code.
const WITHOUT: [&str; 4] = ["function", "procedure", "aggregate", "comment"];

/// The statement without casts of such lists, whichever form it has.
pub(super) fn without_casts(kind: &str, statement: &str) -> String {
    if !statement.contains("ARRAY[") || WITHOUT.iter().any(|without| kind.starts_with(without)) {
        return statement.to_owned();
    }
    let all: Vec<Token<'_>> = tokens(statement).filter(|token| !token.is_blank()).collect();
    let (mut made, mut done, mut at) = (String::with_capacity(statement.len()), 0, 0);
    while at < all.len() {
        // Elsewhere the cast is the author's, and means something.
        let is_operand =
            at >= 2 && all[at - 1].text == "(" && ["ANY", "ALL"].contains(&all[at - 2].text);
        match list(&all[at..]).filter(|_| is_operand) {
            Some((constants, length)) => {
                let last = &all[at + length - 1];
                let constants: Vec<String> =
                    constants.iter().map(|text| format!("{text}::character varying")).collect();
                made.push_str(&statement[done..all[at].start]);
                made.push_str(&format!("ARRAY[{}]", constants.join(", ")));
                done = last.start + last.text.len();
                at += length;
            }
            None => at += 1,
        }
    }
    made + &statement[done..]
}

/// The constants of the list that begins here, and its number of tokens. None if it is no list that is cast.
fn list<'s>(tokens: &[Token<'s>]) -> Option<(Vec<&'s str>, usize)> {
    let takes = |at: &mut usize, words: &[&str]| {
        let is_there = words
            .iter()
            .enumerate()
            .all(|(place, word)| tokens.get(*at + place).is_some_and(|token| token.text == *word));
        *at += if is_there { words.len() } else { 0 };
        is_there
    };
    let mut at = 0;
    let is_cast_whole = takes(&mut at, &["(", "ARRAY", "["]);
    if !is_cast_whole && !takes(&mut at, &["ARRAY", "["]) {
        return None;
    }
    let mut constants = Vec::new();
    loop {
        if !is_cast_whole && !takes(&mut at, &["("]) {
            return None;
        }
        constants.push(tokens.get(at).filter(|token| token.kind == Kind::Text)?.text);
        at += 1;
        if !takes(&mut at, &[":", ":", "character", "varying"]) {
            return None;
        }
        if !is_cast_whole && !takes(&mut at, &[")", ":", ":", "text"]) {
            return None;
        }
        if !takes(&mut at, &[","]) {
            break;
        }
    }
    let ends = match is_cast_whole {
        true => takes(&mut at, &["]", ")", ":", ":", "text", "[", "]"]),
        false => takes(&mut at, &["]"]),
    };
    ends.then_some((constants, at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_one() {
        let plain =
            "CHECK (((x)::text = ANY (ARRAY['a'::character varying, 'b''('::character varying])))";
        for form in [
            "CHECK (((x)::text = ANY ((ARRAY['a'::character varying, 'b''('::character varying])::text[])))",
            "CHECK (((x)::text = ANY (ARRAY[('a'::character varying)::text, ('b''('::character varying)::text])))",
            plain,
        ] {
            assert_eq!(without_casts("table", form), plain);
        }
        for other in [
            "CHECK ((x = ANY (ARRAY['a'::text, 'b'::text])))",
            "CHECK (x <> '(ARRAY[''a''::character varying])::text[]')",
            "CHECK ((ARRAY[a, 'b'::character varying])::text[] = y)",
            "ARRAY[('a'::character varying)::text, x]",
            "SELECT (ARRAY['a'::character varying])::text[] AS kinds",
            "CHECK ((roles <@ (ARRAY['a'::character varying])::text[]))",
            "ARRAY[",
        ] {
            assert_eq!(without_casts("table", other), other);
        }
        let body = "AS $$ SELECT (ARRAY['a'::character varying])::text[] $$";
        assert_eq!(without_casts("function", body), body);
    }
}
