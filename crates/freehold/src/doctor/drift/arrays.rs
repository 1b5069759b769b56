//! `status IN ('a', 'b')` about a varchar column has another tree after it was printed and read, as in
//! restored tables (`snapshot/arrays.rs`). Both are compared as one. Pure.

/// Replaces `{tree T}` by the tree `T`, and `{printed P}` by the text `P`, with such lists alike.
pub(super) fn alike(sql: &str) -> String {
    let tree = |tree: &str| {
        format!(
            r"regexp_replace(regexp_replace({tree}, '\{{ARRAYCOERCEEXPR :arg (\{{ARRAYEXPR :array_typeid )1015( :array_collid \d+ :element_typeid )1043( :elements \((?:\{{CONST :consttype 1043 [^{{}}]*\}} ?)+\)[^{{}}]*\}}) :elemexpr \{{RELABELTYPE :arg \{{CASETESTEXPR [^{{}}]*\}} :resulttype 25 [^{{}}]*\}} :resulttype 1009 [^{{}}]*\}}', '\11009\225\3', 'g'), '\{{RELABELTYPE :arg (\{{CONST :consttype 1043 [^{{}}]*\}}) :resulttype 25 [^{{}}]*\}}', '\1', 'g')"
        )
    };
    let printed = |text: &str| {
        format!(
            r"regexp_replace(regexp_replace({text}, '\((''(?:[^'']|'''')*''::character varying)\)::text', '\1', 'g'), '\((ARRAY\[(?:''(?:[^'']|'''')*''::character varying(?:, )?)+\])\)::text\[\]', '\1', 'g')"
        )
    };
    replaced(&replaced(sql, "{tree ", tree), "{printed ", printed)
}

fn replaced(sql: &str, mark: &str, by: impl Fn(&str) -> String) -> String {
    let mut parts = sql.split(mark);
    let mut made = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (argument, rest) = part.split_once('}').unwrap_or((part, ""));
        made.push_str(&by(argument));
        made.push_str(rest);
    }
    made
}
