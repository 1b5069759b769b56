//! The server's TCP port on 127.0.0.1: chosen once, stored, and replaced if another program took it.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use super::data_folder::DataFolder;
use super::error::StartError;
use super::files::{random, write};

/// Below the ports that systems use for outgoing connections (from 32768, or 49152).
const RANGE: std::ops::Range<u16> = 17_000..32_000;

/// The port of the last start if it is free, otherwise another one.
pub(super) fn usable(
    folder: &DataFolder,
    progress: &mut impl FnMut(&str),
) -> Result<u16, StartError> {
    let kept = fs::read_to_string(file(folder)).ok();
    let Some(kept) = kept.and_then(|text| text.trim().parse().ok()) else {
        return another(folder);
    };
    if is_free(kept) {
        return Ok(kept);
    }
    let port = another(folder)?;
    progress(&format!("port {kept} is taken by another program, so PostgreSQL moves to {port}"));
    Ok(port)
}

/// Chooses a free port and stores it. At random, so that two concurrent starts rarely collide.
pub(super) fn another(folder: &DataFolder) -> Result<u16, StartError> {
    let mut chosen = None;
    for _ in 0..50 {
        let number = u16::from_le_bytes(random::<2>()?);
        let port = RANGE.start + number % (RANGE.end - RANGE.start);
        if is_free(port) {
            chosen = Some(port);
            break;
        }
    }
    let any = || TcpListener::bind(("127.0.0.1", 0))?.local_addr();
    let port = match chosen {
        Some(port) => port,
        None => any().map_err(StartError::io("find a port on", Path::new("127.0.0.1")))?.port(),
    };
    write(&file(folder), port.to_string().as_bytes(), 0o600)?;
    Ok(port)
}

fn file(folder: &DataFolder) -> PathBuf {
    folder.home().join("port")
}

fn is_free(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_ok()
}
