//! What becomes of each kind of statement: the first rule that applies decides, and what no rule names is
//! kept. Pure.

use super::Import;
use super::reading::Words;
use super::rows::inserted;
use crate::sql::script::Token;

pub(super) struct Rule {
    applies: fn(&Words<'_>) -> bool,
    then: Then,
}

enum Then {
    /// What is left out, and the reason.
    LeaveOut(&'static str, &'static str),
    /// Likewise, named by so many words of the statement.
    LeaveOutNamed(usize, &'static str),
    /// The reason, after so many words of the statement.
    Refuse(usize, &'static str),
    Call(fn(&mut Import<'_>, &Words<'_>)),
}

const RULES: &[Rule] = &[
    Rule {
        applies: |s| is_setting(s) && s.has(&["standard_conforming_strings"]) && s.has(&["off"]),
        then: Then::Refuse(0, "strings with backslashes: dump with standard_conforming_strings on"),
    },
    Rule {
        applies: |s| is_setting(s) && s.has(&["check_function_bodies"]),
        then: Then::Call(|import, _| import.leave_bodies_unchecked()),
    },
    Rule {
        applies: is_setting,
        then: Then::LeaveOut("SET", "which is for the session that restores"),
    },
    Rule {
        applies: |s| s.is_one_of(0, &["begin", "commit", "start", "end", "rollback"]),
        then: Then::LeaveOut(
            "bounds of transactions (BEGIN, COMMIT)",
            "since each file is one transaction",
        ),
    },
    Rule {
        applies: |s| s.is(0, "select") && s.tokens.iter().any(is_restore_of_statistics),
        then: Then::LeaveOut(
            "statistics (pg_restore_…_stats)",
            "which ANALYZE makes of each tenant's own rows",
        ),
    },
    Rule {
        applies: |s| s.begins(&["alter", "default", "privileges"]),
        then: Then::LeaveOut("ALTER DEFAULT PRIVILEGES", "which is about roles of the database"),
    },
    Rule {
        applies: |s| s.is(0, "alter") && s.has(&["owner", "to"]) && !s.has(&["rename"]),
        then: Then::LeaveOut("OWNER TO", "since all of a tenant's schema is freehold_owner's"),
    },
    Rule { applies: |s| s.is_one_of(0, &["grant", "revoke"]), then: Then::Call(grant) },
    Rule { applies: |s| s.defines(&["schema"]), then: Then::Call(schema) },
    Rule { applies: |s| s.begins(&["create", "extension"]), then: Then::Call(extension) },
    Rule {
        applies: |s| s.begins(&["comment", "on", "extension"]),
        then: Then::LeaveOut("COMMENT ON EXTENSION", "which is one for all tenants"),
    },
    Rule {
        applies: |s| {
            s.defines(&["publication", "subscription"]) || s.begins(&["security", "label"])
        },
        then: Then::LeaveOutNamed(2, "which is of the database"),
    },
    Rule {
        applies: |s| s.defines(&["role", "user", "group", "database", "tablespace", "system"]),
        then: Then::Refuse(
            2,
            "it is about the whole server: dump one database with pg_dump, without --create",
        ),
    },
    Rule {
        applies: is_of_database,
        then: Then::Refuse(
            3,
            "it is the database's, not a schema's: make it by hand, once, if the application needs it",
        ),
    },
    Rule {
        applies: |s| s.is(0, "copy"),
        then: Then::Refuse(
            1,
            "COPY that reads or writes a file: write the rows as INSERT, or as COPY … FROM stdin with the rows after it",
        ),
    },
    Rule { applies: |s| s.begins(&["create", "policy"]), then: Then::Call(policy) },
    Rule { applies: |s| s.begins(&["insert", "into"]), then: Then::Call(insert) },
    Rule {
        applies: |s| s.has(&["enable", "row", "level", "security"]),
        then: Then::Call(row_level_security),
    },
];

/// Applies the first rule that matches.
pub(super) fn apply(import: &mut Import<'_>, statement: &Words<'_>) {
    let line = statement.line;
    let Some(rule) = RULES.iter().find(|rule| (rule.applies)(statement)) else {
        return import.keep(statement);
    };
    match rule.then {
        Then::LeaveOut(what, why) => import.left_out(what, why, line),
        Then::LeaveOutNamed(words, why) => import.left_out(&statement.head(words), why, line),
        Then::Refuse(0, why) => import.refuse(why, line),
        Then::Refuse(words, why) => {
            import.refuse(format!("{}: {why}", statement.head(words)), line);
        }
        Then::Call(call) => call(import, statement),
    }
}

fn is_setting(statement: &Words<'_>) -> bool {
    statement.is(0, "set") || statement.is(0, "select") && statement.has(&["set_config"])
}

/// `pg_restore_relation_stats`, and what newer versions add.
fn is_restore_of_statistics(token: &Token<'_>) -> bool {
    let name = token.text.to_ascii_lowercase();
    name.starts_with("pg_restore_") && name.ends_with("_stats")
}

fn is_of_database(statement: &Words<'_>) -> bool {
    let kind = statement.kind();
    statement.is_definition()
        && (statement.is(kind, "event") && statement.is(kind + 1, "trigger")
            || statement.has(&["foreign", "data", "wrapper"])
            || statement.is_one_of(kind, &["server", "language", "transform"]))
}

/// Privileges of Freehold's roles stay; other roles belong to the dumped database.
fn grant(import: &mut Import<'_>, statement: &Words<'_>) {
    let word = if statement.is(0, "grant") { "to" } else { "from" };
    let to = statement.tokens.iter().rposition(|token| token.is_word(word));
    let role = to.and_then(|at| statement.tokens.get(at + 1)).map_or("", |token| token.text);
    let is_ours = role.trim_matches('"').starts_with("freehold_");
    if is_ours && !statement.has(&["on", "schema"]) {
        return import.keep(statement);
    }
    let of_routine =
        ["function", "procedure", "routine"].iter().any(|kind| statement.has(&["on", kind]));
    if word == "from" && role.eq_ignore_ascii_case("public") && of_routine {
        import.remark("look at: functions that were revoked from PUBLIC stay so; grant EXECUTE to freehold_viewer or freehold_member where they may call them", 1, statement.line);
        return import.keep(statement);
    }
    let what = format!("rights of {role}");
    import.left_out(
        &what,
        "a role of the database that was dumped; docs/tables.md says what members of a tenant may",
        statement.line,
    );
}

fn schema(import: &mut Import<'_>, statement: &Words<'_>) {
    let tokens = &statement.tokens;
    if tokens.iter().any(|token| token.names("public")) {
        let why = "since each tenant has one of its own";
        return import.left_out("statements about the schema public", why, statement.line);
    }
    let name = tokens.last().map_or("", |token| token.text);
    import.refuse(
        format!("the schema {name}: a tenant has one schema. Bring its objects to public first (ALTER … SET SCHEMA public), or dump with --schema=public --extension='*'"),
        statement.line,
    );
}

fn extension(import: &mut Import<'_>, statement: &Words<'_>) {
    let at = if statement.has(&["if", "not", "exists"]) { 5 } else { 2 };
    let name = statement.tokens.get(at).map_or("", |token| token.text);
    if name.trim_matches('"').eq_ignore_ascii_case("plpgsql") {
        let why = "which every database has";
        return import.left_out("the extension plpgsql", why, statement.line);
    }
    if statement.has(&["schema"]) {
        import.remark("changed: CREATE EXTENSION names no schema any more: a database has each once, in public", 1, statement.line);
    }
    import.write(&format!("CREATE EXTENSION IF NOT EXISTS {name}"));
}

/// Refuses one for roles of the database that was dumped.
fn policy(import: &mut Import<'_>, statement: &Words<'_>) {
    let tokens = &statement.tokens;
    let to = tokens.iter().position(|token| token.is_word("to"));
    let end = tokens.iter().position(|token| token.is_word("using") || token.is_word("with"));
    let roles = to.map_or(&[][..], |to| &tokens[to + 1..end.unwrap_or(tokens.len()).max(to + 1)]);
    let is_foreign = |token: &&Token<'_>| {
        let name = token.text.trim_matches('"');
        !token.is_symbol(",")
            && !name.eq_ignore_ascii_case("public")
            && !name.starts_with("freehold_")
    };
    match roles.iter().find(is_foreign) {
        Some(role) => import.refuse(
            format!("a policy for {}, a role of the database that was dumped: write TO freehold_viewer, freehold_member or freehold_admin, or leave TO out", role.text),
            statement.line,
        ),
        None => import.keep(statement),
    }
}

fn insert(import: &mut Import<'_>, statement: &Words<'_>) {
    import.count_rows(inserted(statement), statement.line);
    import.keep(statement);
}

fn row_level_security(import: &mut Import<'_>, statement: &Words<'_>) {
    import.remark(
        "look at: row-level security of the application. Without a policy it denied everything; here members of the tenant read and write the table unless a migration grants or restricts otherwise",
        1,
        statement.line,
    );
    import.keep(statement);
}
