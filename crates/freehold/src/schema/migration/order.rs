//! The migrations of a folder in each layout: which files they are, in the order of their tool. Files that
//! would be ignored by mistake are refused or reported.

use std::collections::HashSet;

use super::files::{Entry, Listing, SqlFile, leading_number, refuse};
use super::flyway::{self, Kind};
use super::layout::Layout;
use crate::error::{Error, ErrorKind, Result};

/// Files in order, and notes about skipped files.
#[derive(Default)]
pub(super) struct Ordered {
    pub(super) files: Vec<SqlFile>,
    pub(super) remarks: Vec<String>,
}

pub(super) fn in_order(listing: &Listing, layout: Layout) -> Result<Ordered> {
    let ordered = match layout {
        Layout::Prisma => folders_of_prisma(listing, "Prisma")?,
        Layout::Drizzle => drizzle(listing)?,
        Layout::Diesel => diesel(listing)?,
        Layout::Flyway => versioned(listing, true)?,
        Layout::Refinery => versioned(listing, false)?,
        Layout::SqlMigrate => sql_migrate(listing),
        _ => numbered(listing, layout)?,
    };
    if ordered.files.is_empty() {
        return Err(listing.nothing(example(layout)));
    }
    listing.refuse_programs()?;
    Ok(ordered)
}

/// An example of a migration in this layout.
pub(super) const fn example(layout: Layout) -> &'static str {
    match layout {
        Layout::Prisma => "such as 20230101120000_init/migration.sql",
        Layout::Diesel => "such as 2023-01-01-120000_init/up.sql",
        Layout::Flyway | Layout::Refinery => "such as V1__init.sql",
        Layout::Drizzle => "such as 0000_init.sql",
        Layout::GolangMigrate => "such as 000001_init.up.sql",
        Layout::Freehold | Layout::Goose => "such as 0001_shop.sql",
        _ => "such as 20230101120000_init.sql",
    }
}

/// Numbered files, in the order of their numbers.
fn numbered(listing: &Listing, layout: Layout) -> Result<Ordered> {
    let mut files = Vec::new();
    for entry in listing.sql() {
        let stem = entry.stem();
        let stem = stem.strip_suffix(".up").unwrap_or(stem);
        let Some((digits, word)) = leading_number(stem) else {
            return Err(listing.misnamed(entry, "by a number and a word, such as 0001_shop.sql"));
        };
        let Ok(number) = digits.parse::<i64>() else {
            let why = format!("{}: its number is above {}", entry.path.display(), i64::MAX);
            return Err(refuse(why));
        };
        files.push((digits, file(entry, stem, Some(number), word)));
    }
    files.sort_by(|(_, a), (_, b)| a.number.cmp(&b.number).then_with(|| a.path.cmp(&b.path)));
    if let Some(pair) = files.windows(2).find(|pair| pair[0].1.number == pair[1].1.number) {
        return Err(same_number(listing, &pair[0].1, &pair[1].1));
    }
    if layout == Layout::Freehold {
        require_one_width(&files)?;
    }
    Ok(Ordered { files: files.into_iter().map(|(_, file)| file).collect(), ..Ordered::default() })
}

/// By number, then files without a number by name.
fn sql_migrate(listing: &Listing) -> Ordered {
    let mut files: Vec<SqlFile> = listing
        .sql()
        .map(|entry| {
            let digits = entry.digits();
            let word = entry.stem().strip_prefix(digits).unwrap_or_default();
            file(entry, entry.stem(), digits.parse().ok(), word.trim_start_matches(['_', '-']))
        })
        .collect();
    files.sort_by(|a, b| {
        let key = |file: &SqlFile| (file.number.is_none(), file.number, file.path.clone());
        key(a).cmp(&key(b))
    });
    Ordered { files, ..Ordered::default() }
}

/// One folder per migration, in the order of their names.
fn folders_of_prisma(listing: &Listing, tool: &str) -> Result<Ordered> {
    if let Some(lock) = listing.entries.iter().find(|entry| entry.name == "migration_lock.toml") {
        let text = lock.text()?;
        let provider = text.lines().find_map(|line| line.trim().strip_prefix("provider"));
        let provider = provider.map(|rest| rest.trim_matches(['=', ' ', '"', '\'']));
        if let Some(other) =
            provider.filter(|p| !["postgresql", "postgres", "cockroachdb"].contains(p))
        {
            return Err(refuse(format!(
                "{} says that these are migrations for {other}, and not for PostgreSQL",
                lock.path.display()
            )));
        }
    }
    let mut files = Vec::new();
    for entry in listing.folders() {
        if entry.holds("migration.sql") {
            files.push(file_in(entry, "migration.sql", None));
        } else if leading_number(&entry.name).is_some() || entry.holds_sql() {
            return Err(listing.misnamed_inside(entry, "migration.sql"));
        }
    }
    beside_folders(listing, files, tool)
}

fn drizzle(listing: &Listing) -> Result<Ordered> {
    let path = listing.folder.join("meta/_journal.json");
    if !path.is_file() {
        return match listing.entries.iter().any(|entry| entry.holds("migration.sql")) {
            true => folders_of_prisma(listing, "Drizzle"),
            false => numbered(listing, Layout::Drizzle),
        };
    }
    let unreadable =
        |why: &str| refuse(format!("{}, the journal of Drizzle, {why}", path.display()));
    let text = std::fs::read(&path).map_err(|e| unreadable("cannot be read").because(e))?;
    let journal: Journal = serde_json::from_slice(&text)
        .map_err(|source| unreadable(&format!("is not as Drizzle writes it: {source}")))?;
    let mut files = Vec::new();
    let mut named = HashSet::new();
    for JournalEntry { tag } in journal.entries {
        let name = format!("{tag}.sql");
        let Some(entry) = listing.entries.iter().find(|entry| entry.name == name) else {
            return Err(unreadable(&format!("names {name}, which is not in the folder")));
        };
        if !named.insert(name) {
            return Err(unreadable(&format!("names {tag} twice")));
        }
        let (digits, word) = leading_number(&tag).unwrap_or((String::new(), &tag));
        files.push(file(entry, &tag, digits.parse().ok(), word));
    }
    let rest = listing.sql().filter(|entry| !named.contains(&entry.name));
    let remarks =
        rest.map(|entry| format!("{} is not in Drizzle's journal and was passed over", entry.name));
    Ok(Ordered { files, remarks: remarks.collect() })
}

#[derive(serde::Deserialize)]
struct Journal {
    entries: Vec<JournalEntry>,
}

#[derive(serde::Deserialize)]
struct JournalEntry {
    tag: String,
}

/// One folder per migration, in the order of their versions, which are compared as texts.
fn diesel(listing: &Listing) -> Result<Ordered> {
    let mut files = Vec::new();
    for entry in listing.folders() {
        if entry.holds("up.sql") {
            let settings = entry.holds("metadata.toml").then(|| entry.path.join("metadata.toml"));
            let version = entry.name.split('_').next().unwrap_or_default().replace('-', "");
            files.push((version, SqlFile { settings, ..file_in(entry, "up.sql", None) }));
        } else if leading_number(&entry.name).is_some() || entry.holds_sql() {
            return Err(listing.misnamed_inside(entry, "up.sql"));
        }
    }
    files.sort_by(|(a, _), (b, _)| a.cmp(b));
    if let Some(pair) = files.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        return Err(same_number(listing, &pair[0].1, &pair[1].1));
    }
    let files = files.into_iter().map(|(_, file)| file).collect();
    beside_folders(listing, files, "diesel")
}

/// `V1_2__name.sql`, in the order of versions.
fn versioned(listing: &Listing, is_flyway: bool) -> Result<Ordered> {
    let below = listing.below();
    let entries: Vec<&Entry> = match is_flyway {
        true => below.iter().collect(),
        false => listing.entries.iter().collect(),
    };
    let mut files = Vec::new();
    for entry in entries.iter().filter(|entry| entry.name.to_ascii_lowercase().ends_with(".sql")) {
        let Some(name) = flyway::name(&entry.name) else {
            return Err(refuse_other(listing, entry, is_flyway));
        };
        match name.kind {
            Kind::Versioned => {}
            Kind::Undo if is_flyway => continue,
            Kind::Undo => {}
            Kind::Repeatable => {
                return Err(refuse(format!(
                    "{} is run by Flyway whenever its text has changed, and a baseline's file is run once and never changed: give it a version (V2__…), and what changes later a file of its own",
                    entry.path.display()
                )));
            }
            Kind::Baseline => {
                return Err(refuse(format!(
                    "{} stands for the versions before it, which would be run as well: take it out of the folder; or them, and name it V…",
                    entry.path.display()
                )));
            }
        }
        let conf = entry.path.with_file_name(format!("{}.conf", entry.name));
        let settings = conf.is_file().then_some(conf);
        let own = file(entry, entry.stem(), name.number(), name.word);
        files.push((name.parts, SqlFile { settings, ..own }));
    }
    files.sort_by(|(a, _), (b, _)| a.cmp(b));
    if let Some(pair) = files.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        return Err(same_number(listing, &pair[0].1, &pair[1].1));
    }
    Ok(Ordered { files: files.into_iter().map(|(_, file)| file).collect(), ..Ordered::default() })
}

fn refuse_other(listing: &Listing, entry: &Entry, is_flyway: bool) -> Error {
    let callbacks = ["before", "after", "createSchema"];
    if is_flyway && callbacks.iter().any(|callback| entry.name.starts_with(callback)) {
        return refuse(format!(
            "{} is run by Flyway beside migrations, and Freehold runs migrations alone: put what it does into them, or take it out of the folder",
            entry.path.display()
        ));
    }
    listing.misnamed(entry, "by V, a number, two underscores and a word, such as V1__shop.sql")
}

/// The files of a tool that reads only folders, so that other files may lie beside them.
fn beside_folders(listing: &Listing, files: Vec<SqlFile>, tool: &str) -> Result<Ordered> {
    let mut remarks = Vec::new();
    for entry in listing.sql().filter(|_| !files.is_empty()) {
        if leading_number(entry.stem()).is_some() || flyway::name(&entry.name).is_some() {
            return Err(refuse(format!(
                "{} stands beside the folders that {tool} reads, and would be forgotten: take it out of the folder, or put it into one",
                entry.path.display()
            )));
        }
        let name = &entry.name;
        remarks.push(format!(
            "{name} is in none of the folders that {tool} reads and was passed over"
        ));
    }
    Ok(Ordered { files, remarks })
}

fn file(entry: &Entry, label: &str, number: Option<i64>, word: &str) -> SqlFile {
    SqlFile {
        path: entry.path.clone(),
        label: label.to_owned(),
        number,
        word: word.to_owned(),
        settings: None,
    }
}

/// The file in a folder, labelled by the folder's name.
fn file_in(folder: &Entry, name: &str, settings: Option<std::path::PathBuf>) -> SqlFile {
    let (digits, word) = leading_number(&folder.name).unwrap_or((String::new(), &folder.name));
    let number = digits.parse().ok();
    SqlFile { path: folder.path.join(name), settings, ..file(folder, &folder.name, number, word) }
}

impl Listing {
    fn misnamed_inside(&self, folder: &Entry, name: &str) -> Error {
        refuse(format!(
            "{} holds no {name}; if it is no migration, take it out of {}",
            folder.path.display(),
            self.folder.display()
        ))
    }
}

fn same_number(listing: &Listing, one: &SqlFile, other: &SqlFile) -> Error {
    let name = |file: &SqlFile| {
        let path = file.path.strip_prefix(&listing.folder).unwrap_or(&file.path);
        path.display().to_string()
    };
    let why = format!(
        "{} and {} of {} have the same number: give one of them another",
        name(one),
        name(other),
        listing.folder.display()
    );
    Error::new(ErrorKind::Setup, why)
}

/// `4_bad.sql` beside `0003_x.sql` is as likely a mistake as a migration. Numbers with leading zeros have one
/// width, until they outgrow it.
fn require_one_width(files: &[(String, SqlFile)]) -> Result<()> {
    let Some((padded, first)) = files.iter().find(|(digits, _)| digits.starts_with('0')) else {
        return Ok(());
    };
    let width = padded.len();
    let has_other = |(digits, _): &&(String, SqlFile)| {
        digits.len() < width || digits.len() > width && digits.starts_with('0')
    };
    let Some((digits, other)) = files.iter().find(has_other) else { return Ok(()) };
    let behind = other.label.strip_prefix(digits.as_str()).unwrap_or_default();
    Err(refuse(format!(
        "{} stands beside {}.sql, whose number has {width} digits: rename it to {:0width$}{behind}.sql if it is a migration, or take it out of the folder",
        other.path.display(),
        first.label,
        other.number.unwrap_or_default(),
    )))
}
