//! Which files of a folder are migrations, and their text.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::Migration;
use crate::error::{Error, ErrorKind, Result};

/// Names of what was passed over that an error lists.
const SEEN_MAX: usize = 5;

/// A file that is named by a number and a word.
pub(super) struct SqlFile {
    path: PathBuf,
    /// Its name without the ending, and the digits that it begins with.
    stem: String,
    digits: String,
    version: i32,
}

/// The files of a folder, in the order of their numbers.
pub(super) fn list(folder: &Path) -> Result<Vec<SqlFile>> {
    let entries = std::fs::read_dir(folder).map_err(|source| {
        refuse(format!("the folder of migrations {} cannot be read", folder.display()))
            .because(source)
    })?;
    let mut files = Vec::new();
    let mut passed_over = Vec::new();
    for entry in entries {
        let path =
            entry.map_err(|e| refuse("a migration cannot be read".into()).because(e))?.path();
        let name =
            path.file_name().and_then(OsStr::to_str).unwrap_or_default().to_ascii_lowercase();
        if name.ends_with(".sql") && !name.ends_with(".down.sql") {
            files.push(SqlFile::named(path)?);
        } else {
            passed_over.push(path);
        }
    }
    if files.is_empty() {
        return Err(refuse(nothing_in(folder, passed_over)));
    }
    files.sort_by(|a, b| a.version.cmp(&b.version).then_with(|| a.path.cmp(&b.path)));
    if let Some([one, other]) = files
        .windows(2)
        .find(|pair| pair[0].version == pair[1].version)
        .and_then(|pair| <&[SqlFile; 2]>::try_from(pair).ok())
    {
        return Err(refuse(format!(
            "{} and {} of {} have the same number: give one of them another",
            one.name(),
            other.name(),
            folder.display()
        )));
    }
    require_one_width(&files)?;
    Ok(files)
}

/// Whether Drizzle keeps its journal beside the files.
pub(super) fn has_journal_of_drizzle(folder: &Path) -> bool {
    folder.join("meta/_journal.json").is_file()
}

/// A text without its byte order mark and with plain line ends: an editor or a checkout may have
/// put them there, and neither is meant.
pub(super) fn plain(text: String) -> String {
    let bare = text.strip_prefix('\u{feff}').unwrap_or(&text);
    if bare.len() == text.len() && !text.contains("\r\n") {
        return text;
    }
    bare.replace("\r\n", "\n")
}

/// A text up to where a tool's comment says that the way back begins, which is never gone. Lines stay
/// where they are.
pub(super) fn way_up(text: &str) -> &str {
    let begins_way_down = |line: &str| {
        let Some(comment) = line.trim().strip_prefix("--") else { return false };
        let words: Vec<String> = comment.split_whitespace().map(str::to_ascii_lowercase).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        // goose; sql-migrate and rubenv's; dbmate; MyBatis.
        matches!(
            words[..],
            ["+goose" | "+migrate", "down", ..] | ["migrate:down", ..] | ["//@undo", ..]
        )
    };
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        if begins_way_down(line) {
            return &text[..at];
        }
        at += line.len();
    }
    text
}

impl SqlFile {
    fn named(path: PathBuf) -> Result<SqlFile> {
        let stem = path.file_stem().and_then(OsStr::to_str).unwrap_or_default();
        let stem = stem.strip_suffix(".up").unwrap_or(stem).to_owned();
        let digits = stem.split_once('_').map_or(stem.as_str(), |(digits, _)| digits).to_owned();
        let version = Some(&digits).filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()));
        match version.and_then(|digits| digits.parse().ok()).filter(|version| *version > 0) {
            Some(version) => Ok(SqlFile { path, stem, digits, version }),
            None => Err(refuse(format!(
                "{} must be named by a number and a word, such as 0001_shop.sql",
                path.display()
            ))),
        }
    }

    fn name(&self) -> std::borrow::Cow<'_, str> {
        self.path.file_name().unwrap_or_default().to_string_lossy()
    }

    pub(super) fn read(&self) -> Result<Migration> {
        let unreadable = |why: &str| refuse(format!("{} {why}", self.path.display()));
        let bytes = std::fs::read(&self.path)
            .map_err(|source| unreadable("cannot be read").because(source))?;
        let text = String::from_utf8(bytes).map_err(|source| {
            let is_utf_16 = source.as_bytes().starts_with(&[0xff, 0xfe])
                || source.as_bytes().starts_with(&[0xfe, 0xff]);
            let line = 1 + source.as_bytes()[..source.utf8_error().valid_up_to()]
                .iter()
                .filter(|byte| **byte == b'\n')
                .count();
            match is_utf_16 {
                true => unreadable("is UTF-16: save it as UTF-8"),
                false => unreadable(&format!("line {line} is no UTF-8: save the file as UTF-8")),
            }
        })?;
        let word = self.stem.split_once('_').map_or("", |(_, word)| word);
        Ok(Migration::new(self.version, word, text))
    }
}

/// `4_bad.sql` beside `0003_x.sql` is as likely a slip as a migration. Numbers that are written
/// with zeros in front have one width, until they outgrow it.
fn require_one_width(files: &[SqlFile]) -> Result<()> {
    let Some(padded) = files.iter().find(|file| file.digits.starts_with('0')) else {
        return Ok(());
    };
    let width = padded.digits.len();
    let has_other = |file: &&SqlFile| {
        file.digits.len() < width || file.digits.len() > width && file.digits.starts_with('0')
    };
    let Some(other) = files.iter().find(has_other) else { return Ok(()) };
    let word = other.stem.strip_prefix(&other.digits).unwrap_or_default();
    Err(refuse(format!(
        "{} stands beside {}, whose number has {width} digits: rename it to {:0width$}{word}.sql if it is a migration, or take it out of the folder",
        other.path.display(),
        padded.name(),
        other.version,
    )))
}

fn nothing_in(folder: &Path, mut passed_over: Vec<PathBuf>) -> String {
    passed_over.sort();
    let name = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() { format!("{name}/") } else { name }
    };
    let mut seen: Vec<String> = passed_over.iter().take(SEEN_MAX).map(name).collect();
    if passed_over.len() > SEEN_MAX {
        seen.push(format!("{} more", passed_over.len() - SEEN_MAX));
    }
    let what = match seen.is_empty() {
        true => "it is empty".to_owned(),
        false => format!("there is {}, and none of it ends in .sql", seen.join(", ")),
    };
    format!("the folder {} holds no migrations, such as 0001_shop.sql: {what}", folder.display())
}

fn refuse(why: String) -> Error {
    Error::new(ErrorKind::Setup, why)
}
