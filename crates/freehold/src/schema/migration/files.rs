//! Which files of a folder are migrations, their order, and their text.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use super::{Migration, flyway};
use crate::error::{Error, ErrorKind, Result};

/// The most skipped names that an error lists.
const SEEN_MAX: usize = 5;
/// The depth to which nested folders are read.
const DEPTH_MAX: usize = 5;
/// Extensions of migrations that are programs.
const PROGRAMS: [&str; 12] =
    ["go", "js", "cjs", "mjs", "ts", "rs", "py", "rb", "exs", "java", "kt", "php"];

/// The contents of a folder, by name, without hidden files.
pub(super) struct Listing {
    pub(super) folder: PathBuf,
    pub(super) entries: Vec<Entry>,
}

/// A file or a folder.
pub(super) struct Entry {
    pub(super) path: PathBuf,
    pub(super) name: String,
    /// The names in it, if it is a folder.
    inside: Option<Vec<String>>,
}

/// A file that is a migration.
pub(super) struct SqlFile {
    pub(super) path: PathBuf,
    /// The name that users of the tool know: that of the file without its extension, or of its folder.
    pub(super) label: String,
    /// The number in its name, if there is one.
    pub(super) number: Option<i64>,
    /// The part of the name after the number.
    pub(super) word: String,
    /// A settings file beside it, which may ask for no transaction: Flyway and diesel have these.
    pub(super) settings: Option<PathBuf>,
}

impl Listing {
    pub(super) fn of(folder: &Path) -> Result<Listing> {
        let entries = fs::read_dir(folder).map_err(|source| {
            refuse(format!("the folder of migrations {} cannot be read", folder.display()))
                .because(source)
        })?;
        let mut listing = Listing { folder: folder.to_owned(), entries: Vec::new() };
        for entry in entries {
            let path =
                entry.map_err(|e| refuse("a migration cannot be read".into()).because(e))?.path();
            let name = file_name(&path);
            if !name.starts_with('.') {
                let inside = path.is_dir().then(|| names_in(&path));
                listing.entries.push(Entry { path, name, inside });
            }
        }
        listing.entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(listing)
    }

    /// The files that end in `.sql`, except down migrations.
    pub(super) fn sql(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| entry.is_sql())
    }

    pub(super) fn folders(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| entry.inside.is_some())
    }

    /// The files in this folder and below.
    pub(super) fn below(&self) -> Vec<Entry> {
        let mut found = Vec::new();
        collect(&self.folder, DEPTH_MAX, &mut found);
        found.sort_by(|a, b| a.path.cmp(&b.path));
        found
    }

    /// A hint at a nested folder of migrations that was probably meant.
    fn meant(&self) -> String {
        let is_migration = |name: &String| {
            is_sql(name) && (leading_number(stem(name)).is_some() || flyway::name(name).is_some())
        };
        let is_meant = |entry: &&Entry| {
            let inside = entry.inside.as_deref().unwrap_or_default();
            entry.name == "migrations" || inside.iter().any(is_migration)
        };
        let meant: Vec<String> = self
            .folders()
            .filter(is_meant)
            .take(SEEN_MAX)
            .map(|entry| entry.path.display().to_string())
            .collect();
        match meant.is_empty() {
            true => String::new(),
            false => format!("; is it {}?", meant.join(" or ")),
        }
    }

    /// The error for a folder that contains no migration.
    pub(super) fn nothing(&self, what: &str) -> Error {
        let name = |entry: &Entry| match entry.inside {
            Some(_) => format!("{}/", entry.name),
            None => entry.name.clone(),
        };
        let mut seen: Vec<String> = self.entries.iter().take(SEEN_MAX).map(name).collect();
        if self.entries.len() > SEEN_MAX {
            seen.push(format!("{} more", self.entries.len() - SEEN_MAX));
        }
        let seen = match seen.is_empty() {
            true => "it is empty".to_owned(),
            false => format!("there is {}{}", seen.join(", "), self.meant()),
        };
        refuse(format!("the folder {} holds no migrations, {what}: {seen}", self.folder.display()))
    }

    /// The error for a file that would be ignored by mistake.
    pub(super) fn misnamed(&self, entry: &Entry, rule: &str) -> Error {
        refuse(format!(
            "{} must be named {rule}; if it is no migration, take it out of the folder{}",
            entry.path.display(),
            self.meant()
        ))
    }

    /// Refuses migrations that are programs, which would otherwise be ignored.
    pub(super) fn refuse_programs(&self) -> Result<()> {
        let is_program = |entry: &&Entry| {
            let path = Path::new(&entry.name);
            let ending = path.extension().and_then(OsStr::to_str).unwrap_or_default();
            let stem = stem(&entry.name);
            let is_numbered = leading_number(stem.trim_start_matches(['V', 'U', 'R', 'B']))
                .is_some_and(|(_, word)| !word.is_empty())
                || stem.starts_with("R__");
            let is_test = stem.ends_with("_test") || stem.ends_with(".test");
            entry.inside.is_none() && PROGRAMS.contains(&ending) && is_numbered && !is_test
        };
        match self.entries.iter().find(is_program) {
            Some(entry) => Err(refuse(format!(
                "{} is a program, and a baseline is SQL, which every tenant can be given: write as SQL what it does, or take it out of the folder",
                entry.path.display()
            ))),
            None => Ok(()),
        }
    }
}

fn collect(folder: &Path, depth: usize, found: &mut Vec<Entry>) {
    let Ok(listing) = Listing::of(folder) else { return };
    for entry in listing.entries {
        match entry.inside {
            Some(_) if depth > 0 => collect(&entry.path, depth - 1, found),
            Some(_) => {}
            None => found.push(entry),
        }
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| file_name(&entry.path())).collect()
}

fn stem(name: &str) -> &str {
    name.rsplit_once('.').map_or(name, |(stem, _)| stem)
}

/// Whether the file of this name contains SQL to be run.
fn is_sql(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let is_way_back = [".down.sql", ".undo.sql", ".rollback.sql"].iter().any(|e| name.ends_with(e));
    name.ends_with(".sql") && !is_way_back
}

impl Entry {
    pub(super) fn is_sql(&self) -> bool {
        self.inside.is_none() && is_sql(&self.name)
    }

    /// Whether it is a folder that contains this file.
    pub(super) fn holds(&self, name: &str) -> bool {
        self.inside.as_ref().is_some_and(|inside| inside.iter().any(|inside| inside == name))
    }

    /// Whether it is a folder that contains SQL.
    pub(super) fn holds_sql(&self) -> bool {
        self.inside.as_ref().is_some_and(|inside| {
            inside.iter().any(|name| name.to_ascii_lowercase().ends_with(".sql"))
        })
    }

    /// The name without its extension.
    pub(super) fn stem(&self) -> &str {
        stem(&self.name)
    }

    /// The digits at the beginning of its name.
    pub(super) fn digits(&self) -> &str {
        &self.name[..digits_in(&self.name)]
    }

    /// The text, for inspection.
    pub(super) fn text(&self) -> Result<String> {
        let bytes = fs::read(&self.path).map_err(|source| {
            refuse(format!("{} cannot be read", self.path.display())).because(source)
        })?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// The number of digits at the beginning of a text.
fn digits_in(text: &str) -> usize {
    text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len())
}

/// The leading digits of a name, with the dashes of a date and time removed, and the rest: `0001_name`,
/// `20230101120000-name`, `2023-01-01-120000_name`.
pub(super) fn leading_number(stem: &str) -> Option<(String, &str)> {
    let (digits, mut rest) = stem.split_at(digits_in(stem));
    let mut digits = digits.to_owned();
    let next = |rest: &str, is_long: fn(usize) -> bool| {
        let group = rest.strip_prefix('-')?;
        let end = digits_in(group);
        let ends = group[end..].chars().next().is_none_or(|c| c == '-' || c == '_');
        (end > 0 && is_long(end) && ends).then_some(end)
    };
    let month = next(rest, |digits| digits == 2).filter(|_| digits.len() == 4);
    if let Some(day) = month.and_then(|month| next(&rest[1 + month..], |digits| digits == 2)) {
        digits += &rest[1..3];
        digits += &rest[4..4 + day];
        rest = &rest[4 + day..];
        while let Some(end) = next(rest, |_| true) {
            digits += &rest[1..=end];
            rest = &rest[1 + end..];
        }
    }
    let is_end = rest.is_empty() || rest.starts_with(['_', '-', '.', ' ']);
    let word = rest.get(1..).unwrap_or_default();
    (!digits.is_empty() && is_end).then_some((digits, word))
}

/// The version of each file: its number if that is above the previous version, otherwise the next number. So
/// a version never depends on later files, and increases with the order.
pub(super) fn versions(files: &[SqlFile]) -> Result<Vec<i64>> {
    let mut last = 0_i64;
    let next = |file: &SqlFile| {
        let own = file.number.filter(|number| *number > last);
        last = own.or_else(|| last.checked_add(1)).ok_or_else(|| {
            refuse(format!("{} has no number that is left above those before it", file.label))
        })?;
        Ok(last)
    };
    files.iter().map(next).collect()
}

impl SqlFile {
    pub(super) fn read(&self, version: i64) -> Result<Migration> {
        let unreadable = |why: &str| refuse(format!("{} {why}", self.path.display()));
        let bytes =
            fs::read(&self.path).map_err(|source| unreadable("cannot be read").because(source))?;
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
        Ok(Migration { label: self.label.clone(), ..Migration::new(version, &self.word, text) })
    }

    /// Whether the settings file beside it asks for no transaction: `executeInTransaction=false`,
    /// `run_in_transaction = false`.
    pub(super) fn wants_no_transaction(&self) -> bool {
        let text = self.settings.as_ref().and_then(|path| fs::read_to_string(path).ok());
        text.unwrap_or_default().lines().any(|line| {
            let line: String = line.split_whitespace().collect();
            ["executeInTransaction=false", "run_in_transaction=false"].contains(&line.as_str())
        })
    }
}

/// The text without byte order mark and with plain line ends: editors and checkouts add these.
pub(super) fn plain(text: String) -> String {
    let bare = text.strip_prefix('\u{feff}').unwrap_or(&text);
    if bare.len() == text.len() && !text.contains("\r\n") {
        return text;
    }
    bare.replace("\r\n", "\n")
}

pub(super) fn refuse(why: String) -> Error {
    Error::new(ErrorKind::Setup, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_what_its_tool_takes_for_one() {
        for (stem, digits, word) in [
            ("0001_shop", "0001", "shop"),
            ("20240101120000", "20240101120000", ""),
            ("20240101120000-add-x", "20240101120000", "add-x"),
            ("2019-05-15-235959_name", "20190515235959", "name"),
            ("2019-05-15-235959-0000_a_b", "201905152359590000", "a_b"),
            ("2015-01-01-2fa", "20150101", "2fa"),
            ("001-2-x", "001", "2-x"),
            ("0001.init", "0001", "init"),
        ] {
            assert_eq!(leading_number(stem), Some((digits.to_owned(), word)), "{stem}");
        }
        for none in ["shop", "+1_x", "1x", "", "_1"] {
            assert_eq!(leading_number(none), None, "{none}");
        }
    }

    #[test]
    fn a_version_is_the_number_or_the_place_and_stays_what_it_is() {
        let file = |number| SqlFile {
            path: PathBuf::new(),
            label: String::new(),
            number,
            word: String::new(),
            settings: None,
        };
        let of = |numbers: &[Option<i64>]| {
            versions(&numbers.iter().map(|n| file(*n)).collect::<Vec<_>>()).ok()
        };
        assert_eq!(of(&[Some(0), Some(1), Some(2)]), Some(vec![1, 2, 3]));
        assert_eq!(of(&[Some(0), Some(20240101)]), Some(vec![1, 20240101]));
        assert_eq!(of(&[Some(1), None, Some(2), None]), Some(vec![1, 2, 3, 4]));
        assert_eq!(of(&[Some(10), Some(9), Some(12)]), Some(vec![10, 11, 12]));
        assert_eq!(of(&[Some(i64::MAX), None]), None);
    }
}
