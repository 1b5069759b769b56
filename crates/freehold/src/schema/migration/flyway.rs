//! The file names of Flyway and refinery: `V1_2__name.sql`. Pure.

/// The purpose of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `V`: run once, in the order of versions.
    Versioned,
    /// `U`: undoes a version in Flyway; in refinery, a migration like those of `V`.
    Undo,
    /// `R`: run whenever its text has changed, in Flyway.
    Repeatable,
    /// `B`: replaces all versions up to its own, in Flyway.
    Baseline,
}

/// The parts of a file's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Name<'n> {
    pub(super) kind: Kind,
    /// The parts of its version, without zeros at the end: 1.0 is 1.
    pub(super) parts: Vec<u64>,
    /// The part after the two underscores.
    pub(super) word: &'n str,
}

/// `None` if the file is not named in this form.
pub(super) fn name(file: &str) -> Option<Name<'_>> {
    let stem = file.strip_suffix(".sql").or_else(|| file.strip_suffix(".SQL"))?;
    let (head, word) = stem.split_once("__")?;
    let kind = match head.chars().next()? {
        'V' => Kind::Versioned,
        'U' => Kind::Undo,
        'R' => Kind::Repeatable,
        'B' => Kind::Baseline,
        _ => return None,
    };
    let version = &head[1..];
    if kind == Kind::Repeatable {
        return version.is_empty().then_some(Name { kind, parts: Vec::new(), word });
    }
    let part = |digits: &str| {
        let is_number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        is_number.then_some(digits)?.parse().ok()
    };
    let mut parts: Vec<u64> = version.split(['.', '_']).map(part).collect::<Option<_>>()?;
    while parts.len() > 1 && parts.last() == Some(&0) {
        parts.pop();
    }
    Some(Name { kind, parts, word })
}

impl Name<'_> {
    /// Its version, if that is a single number.
    pub(super) fn number(&self) -> Option<i64> {
        match self.parts[..] {
            [number] => number.try_into().ok(),
            _ => None,
        }
    }
}

/// The first `${placeholder}` outside of comments, and its position.
pub(super) fn placeholder(sql: &str) -> Option<(usize, &str)> {
    let is_in_comment = |at: usize| {
        crate::sql::script::tokens(sql).any(|token| {
            token.kind == crate::sql::script::Kind::Comment
                && (token.start..token.start + token.text.len()).contains(&at)
        })
    };
    sql.match_indices("${").find_map(|(at, _)| {
        let inside = &sql[at + 2..];
        let end = inside.find(|c: char| !c.is_ascii_alphanumeric() && !"_.:-".contains(c))?;
        let is_one = end > 0 && inside[end..].starts_with('}') && !is_in_comment(at);
        is_one.then(|| (at, &sql[at..at + 2 + end + 1]))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_apart_as_the_tools_do() {
        let named = |file| name(file).map(|n| (n.kind, n.parts, n.word));
        assert_eq!(named("V1__a.sql"), Some((Kind::Versioned, vec![1], "a")));
        assert_eq!(named("V1_2__a_b__c.sql"), Some((Kind::Versioned, vec![1, 2], "a_b__c")));
        assert_eq!(named("V2024.01.0__x.sql"), Some((Kind::Versioned, vec![2024, 1], "x")));
        assert_eq!(named("V0__.sql"), Some((Kind::Versioned, vec![0], "")));
        assert_eq!(named("U03__a.sql"), Some((Kind::Undo, vec![3], "a")));
        assert_eq!(named("B7__all.sql"), Some((Kind::Baseline, vec![7], "all")));
        assert_eq!(named("R__views.sql"), Some((Kind::Repeatable, vec![], "views")));
        for other in ["R1__a.sql", "V__a.sql", "V1_a.sql", "Vx__a.sql", "v1__a.sql", "V1__a.java"] {
            assert_eq!(named(other), None, "{other}");
        }
    }

    #[test]
    fn a_placeholder_counts_outside_of_comments() {
        assert_eq!(placeholder("-- ${a}\nSELECT '${b:c}'"), Some((16, "${b:c}")));
        for none in ["SELECT '$1 {}' /* ${a} */", "SELECT '${}'", "SELECT '${a b}'", "SELECT '${a"]
        {
            assert_eq!(placeholder(none), None, "{none}");
        }
    }
}
