//! The command line is consistent, and the documentation contains no unknown command or flag.

use clap::error::ErrorKind;
use clap::{CommandFactory as _, Parser as _};

use super::Cli;

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

/// All pages of the documentation: name and text.
fn pages() -> Vec<(String, String)> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let docs = std::fs::read_dir(root.join("docs")).unwrap().map(|page| page.unwrap().path());
    let others = ["README.md", "CONTRIBUTING.md", "examples/notes/README.md"];
    let others = others.iter().map(|page| root.join(page));
    let pages = docs.chain(others).filter(|path| path.extension().is_some_and(|e| e == "md"));
    pages
        .map(|path| (path.display().to_string(), std::fs::read_to_string(&path).unwrap()))
        .collect()
}

/// The words of each `freehold …` in a text: at the beginning of a line or a command, or in backticks.
fn invocations(text: &str) -> Vec<Vec<String>> {
    const BEGINS: &[&str] = &[
        "\nfreehold ",
        "\n   freehold ",
        "`freehold ",
        "$ freehold ",
        "& freehold ",
        "| freehold ",
        "(freehold ",
        "debug/freehold ",
        "app freehold ",
        "managed freehold ",
        "OWNER freehold ",
    ];
    const ENDS: &[char] = &['\n', '`', '#', '|', '&', ';', '<', '>', ')'];
    let text = text.replace("\\\n", " ").replace("'…'", "left-out");
    let rests = BEGINS.iter().flat_map(|begin| text.split(begin).skip(1));
    let lines = rests.map(|rest| rest.split(ENDS).next().unwrap_or_default());
    lines.map(words).filter(|words| words.first().is_some_and(|word| is_word(word))).collect()
}

/// Neither a path nor a line of a configuration file.
fn is_word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_lowercase() || c == '-')
}

/// Splits a line as a shell does, without substituting variables.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quote = None;
    for c in line.chars() {
        match (quote, c) {
            (None, '\'' | '"') => quote = Some(c),
            (Some(open), c) if open == c => quote = None,
            (None, ' ') => words.push(String::new()),
            _ => words.last_mut().unwrap().push(c),
        }
    }
    // A placeholder for the reader.
    words.retain(|word| !word.is_empty() && word != "…");
    words
}

/// Whether an error is expected because a page shows only a part of a command: settings come from the
/// environment, `SLUG` or `N` is a placeholder, and prose names a flag without its value.
fn is_a_part(words: &[String], error: ErrorKind) -> bool {
    let last = words.last().map_or("", String::as_str);
    let stands_for_one = !last.is_empty() && last.chars().all(|c| c.is_ascii_uppercase());
    match error {
        ErrorKind::MissingRequiredArgument
        | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
        | ErrorKind::MissingSubcommand
        | ErrorKind::DisplayVersion
        | ErrorKind::DisplayHelp => true,
        ErrorKind::InvalidValue => stands_for_one || last.starts_with("--"),
        ErrorKind::ValueValidation => stands_for_one,
        _ => false,
    }
}

#[test]
fn every_invocation_in_the_documentation_is_one_that_the_program_knows() {
    let (mut seen, mut wrong) = (0, Vec::new());
    for (page, text) in pages() {
        for words in invocations(&text) {
            seen += 1;
            let line = std::iter::once("freehold").chain(words.iter().map(String::as_str));
            let Err(error) = Cli::try_parse_from(line) else { continue };
            if !is_a_part(&words, error.kind()) {
                wrong.push(format!("{page}: freehold {}: {:?}", words.join(" "), error.kind()));
            }
        }
    }
    assert!(seen > 100, "{seen}");
    assert!(wrong.is_empty(), "{wrong:#?}");
}
