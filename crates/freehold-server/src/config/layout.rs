//! How a folder of migrations is read.

use std::path::Path;

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use freehold::{Baseline, Layout};

/// How a folder of migrations is read.
#[derive(Args, Clone)]
pub struct LayoutSettings {
    /// The tool whose layout the folder has; if not given, it is found out by what lies in it
    #[arg(long, value_name = "LAYOUT", value_parser = layouts())]
    pub layout: Option<Layout>,
}

fn layouts() -> impl TypedValueParser<Value = Layout> {
    PossibleValuesParser::new(Layout::ALL.map(Layout::as_str)).try_map(|name| name.parse())
}

impl LayoutSettings {
    /// Reads a folder in this layout, or in the detected one.
    pub fn read(&self, folder: &Path) -> freehold::Result<Baseline> {
        match self.layout {
            Some(layout) => Baseline::read_as(folder, layout),
            None => Baseline::read(folder),
        }
    }
}
