//! Messages for development: they are not sent, but written to the log and, if there is a folder, to one file
//! each.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use freehold::Message;
use jiff::Timestamp;

use super::{SendError, one_line};
use crate::config::MailSettings;

/// The most characters of an address in a file's name, which has at most 255 bytes.
const ADDRESS_CHARS_MAX: usize = 120;

/// A log, and optionally a folder.
pub struct Log {
    folder: Option<PathBuf>,
}

impl Log {
    pub(super) fn new(settings: &MailSettings) -> Result<Log, String> {
        let folder = settings.folder();
        if let Some(folder) = &folder {
            DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(|error| {
                format!(
                    "MAIL_FOLDER must be a folder or one that can be made: {}: {error}",
                    folder.display()
                )
            })?;
        }
        tracing::warn!(
            "MAIL=log is for development: letters go to nobody, and whoever reads this log can use \
             the links in them"
        );
        Ok(Log { folder })
    }

    pub(super) async fn send(&self, message: &Message) -> Result<(), SendError> {
        if let Some(folder) = &self.folder {
            let (folder, message) = (folder.clone(), message.clone());
            let written = tokio::task::spawn_blocking(move || write(&folder, &message));
            let failed = |error: &dyn std::fmt::Display| {
                SendError::passing(format!("no file could be written in MAIL_FOLDER: {error}"))
            };
            written.await.map_err(|error| failed(&error))?.map_err(|error| failed(&error))?;
        }
        let link = message.link.as_deref().unwrap_or("none");
        tracing::info!(kind = message.kind.as_str(), to = one_line(&message.to), link, "a letter");
        Ok(())
    }
}

fn write(folder: &Path, message: &Message) -> io::Result<()> {
    let text = format!(
        "To: {}\nSubject: {}\n\n{}",
        one_line(&message.to),
        one_line(&message.subject),
        message.text
    );
    // A reader of the folder sees complete messages only.
    let temporary = folder.join(format!(".{}.tmp", message.id));
    match std::fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    file.write_all(text.as_bytes())?;
    drop(file);
    std::fs::rename(&temporary, folder.join(file_name(Timestamp::now(), message)))
}

/// A safe file name, whatever the address contains.
fn file_name(now: Timestamp, message: &Message) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "@._+-".contains(c);
    let address = message.to.chars().take(ADDRESS_CHARS_MAX);
    let address: String = address.map(|c| if plain(c) { c } else { '_' }).collect();
    format!("{}-{}-{address}.txt", now.strftime("%Y%m%dT%H%M%S.%6fZ"), message.kind.as_str())
}

#[cfg(test)]
mod tests {
    use super::super::tests::message;
    use super::*;

    #[test]
    fn a_files_name_is_one_within_the_folder() {
        let now: Timestamp = "2026-03-04T05:06:07.089Z".parse().unwrap();
        let named = |to: &str| file_name(now, &message(to, ""));
        assert_eq!(
            named("ann+x@acme.example"),
            "20260304T050607.089000Z-reset-ann+x@acme.example.txt"
        );
        assert_eq!(named("../../x@y.z"), "20260304T050607.089000Z-reset-.._.._x@y.z.txt");
        for to in ["/etc/x@y.z", "a\0b@y.z", "a\nb@y.z", "a\\b@y.z", "ä@y.z", ""] {
            let name = named(to);
            assert!(name.is_ascii() && !name.contains(['/', '\\', '\0', '\n']), "{name}");
        }
        assert!(named(&"x".repeat(5000)).len() < 255);
    }
}
