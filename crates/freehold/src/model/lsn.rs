//! Positions in PostgreSQL's write-ahead log. Pure.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, ErrorKind};

/// A position in the write-ahead log (an LSN), in PostgreSQL's notation: `16/B374D848`.
///
/// Everything that was committed before it was read is on every replica that has replayed up to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(u64);

impl Lsn {
    /// The number of bytes between an earlier position and this one; 0 if the other one is later.
    pub fn bytes_since(self, earlier: Lsn) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl FromStr for Lsn {
    type Err = Error;

    fn from_str(text: &str) -> Result<Lsn, Error> {
        let half = |digits: &str| {
            let plain = (1..=8).contains(&digits.len())
                && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
            plain.then(|| u64::from_str_radix(digits, 16).ok()).flatten()
        };
        text.split_once('/')
            .and_then(|(high, low)| Some(Lsn(half(high)? << 32 | half(low)?)))
            .ok_or_else(|| {
                Error::new(
                    ErrorKind::InvalidInput,
                    "an LSN is two hexadecimal numbers with a slash between them, such as 16/B374D848",
                )
            })
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xffff_ffff)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_lsn_is_read_as_postgresql_writes_it_and_nothing_else_is_one() {
        for text in ["0/0", "0/16B3748", "16/B374D848", "FFFFFFFF/FFFFFFFF"] {
            assert_eq!(text.parse::<Lsn>().unwrap().to_string(), text);
        }
        assert_eq!("a/0b".parse::<Lsn>().unwrap().to_string(), "A/B");
        for text in [
            "",
            "/",
            "0",
            "0/",
            "/0",
            "0/0/0",
            "0/+1",
            "0/ 1",
            " 0/1",
            "0/1 ",
            "0x1/2",
            "100000000/0",
        ] {
            assert_eq!(
                text.parse::<Lsn>().unwrap_err().kind(),
                ErrorKind::InvalidInput,
                "{text:?}"
            );
        }
        let (earlier, later): (Lsn, Lsn) = ("0/FFFFFFFF".parse().unwrap(), "1/0".parse().unwrap());
        assert!(earlier < later);
        assert_eq!((later.bytes_since(earlier), earlier.bytes_since(later)), (1, 0));
    }
}
