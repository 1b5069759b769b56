//! The copy of the project in which faults are planted. The checkout itself is never written to.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::Result;
use crate::list::Mutant;

/// Not needed to build, or too large to copy.
const LEFT_OUT: &[&str] = &[".git", ".freehold", "target", "node_modules"];

pub(crate) struct Copy {
    project: PathBuf,
    pub(crate) tree: PathBuf,
    /// A build folder of its own, so that nothing built with a fault is taken for the project's.
    pub(crate) build: PathBuf,
}

impl Copy {
    /// Updates the copy in `folder` to the state of the checkout. Unchanged files are left alone, so that
    /// cargo need not build them again.
    pub(crate) fn make(folder: &Path) -> Result<Copy> {
        let project = std::env::current_dir()?;
        if !project.join("crates/freehold").is_dir() {
            return Err("run this in the project's folder".into());
        }
        fs::create_dir_all(folder)?;
        let folder = folder.canonicalize()?;
        let copy = Copy { project, tree: folder.join("tree"), build: folder.join("build") };
        let files = files_under(&copy.project, Path::new(""))?;
        for file in &files {
            write_if_other(&copy.tree.join(file), &fs::read(copy.project.join(file))?)?;
        }
        if copy.tree.is_dir() {
            for gone in files_under(&copy.tree, Path::new(""))?.difference(&files) {
                fs::remove_file(copy.tree.join(gone))?;
            }
        }
        Ok(copy)
    }

    pub(crate) fn plant(&self, mutant: &Mutant) -> Result<()> {
        let text = fs::read_to_string(self.project.join(mutant.file))?;
        Ok(fs::write(self.tree.join(mutant.file), mutant.planted_in(&text)?)?)
    }

    pub(crate) fn mend(&self, mutant: &Mutant) -> Result<()> {
        let text = fs::read(self.project.join(mutant.file))?;
        Ok(fs::write(self.tree.join(mutant.file), text)?)
    }
}

fn write_if_other(file: &Path, text: &[u8]) -> Result<()> {
    if fs::read(file).is_ok_and(|present| present == text) {
        return Ok(());
    }
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder)?;
    }
    Ok(fs::write(file, text)?)
}

/// Every file under `root`, by its path relative to it.
fn files_under(root: &Path, folder: &Path) -> Result<BTreeSet<PathBuf>> {
    let mut files = BTreeSet::new();
    for entry in fs::read_dir(root.join(folder))? {
        let entry = entry?;
        let path = folder.join(entry.file_name());
        if LEFT_OUT.iter().any(|name| entry.file_name() == *name) {
            continue;
        }
        let kind = entry.file_type()?;
        if kind.is_dir() {
            files.append(&mut files_under(root, &path)?);
        } else if kind.is_file() {
            files.insert(path);
        }
    }
    Ok(files)
}
