//! The mix: every kind of operation, the way it takes, and its frequency.

use super::dice::Dice;

/// How an operation reaches the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// A request to the data API, over a socket.
    Http,
    /// A transaction of the library, in this process.
    Library,
}

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    HttpRow,
    HttpPage,
    HttpFilter,
    HttpJoin,
    HttpLedger,
    HttpUpsert,
    HttpUpdate,
    HttpDelete,
    HttpDropped,
    HttpForgedToken,
    HttpOtherTenantNamed,
    HttpOtherTenantsIds,
    HttpViewerWrites,
    HttpRoleClaimed,
    HttpRoleChanged,
    HttpPoisoned,
    LibraryRow,
    LibraryPage,
    LibraryTotals,
    LibraryJoin,
    LibraryLedger,
    LibraryTransaction,
    LibraryDropped,
    LibraryTimedOut,
    LibraryViewerWrites,
    LibraryCrossRead,
    LibraryCrossWrite,
    LibraryPoisoned,
    LibraryInjected,
    LibraryHelper,
}

/// Each kind with its weight, its way and its name in the report. Mostly reads, as in practice, and because
/// they are cheap: leaks show by how often a connection changes between tenants. The weights add up to 1000.
const MIX: &[(Kind, usize, Way, &str)] = &[
    (Kind::HttpRow, 158, Way::Http, "read a row"),
    (Kind::HttpPage, 60, Way::Http, "read a page"),
    (Kind::HttpFilter, 50, Way::Http, "filter and count"),
    (Kind::HttpJoin, 30, Way::Http, "read a view that joins"),
    (Kind::HttpLedger, 30, Way::Http, "read all that was written"),
    (Kind::HttpUpsert, 20, Way::Http, "upsert rows in a batch"),
    (Kind::HttpUpdate, 10, Way::Http, "update rows"),
    (Kind::HttpDelete, 6, Way::Http, "delete rows"),
    (Kind::HttpDropped, 30, Way::Http, "go away during a request"),
    (Kind::HttpForgedToken, 14, Way::Http, "send a forged token"),
    (Kind::HttpOtherTenantNamed, 6, Way::Http, "name another tenant in a header"),
    (Kind::HttpOtherTenantsIds, 10, Way::Http, "ask for another tenant's ids"),
    (Kind::HttpViewerWrites, 5, Way::Http, "write as a viewer"),
    (Kind::HttpRoleClaimed, 4, Way::Http, "claim a role in the token"),
    (Kind::HttpRoleChanged, 5, Way::Http, "write after a change of role"),
    (Kind::HttpPoisoned, 12, Way::Http, "poison the session of the next tenant"),
    (Kind::LibraryRow, 224, Way::Library, "read a row"),
    (Kind::LibraryPage, 80, Way::Library, "read a page"),
    (Kind::LibraryTotals, 50, Way::Library, "count and add up"),
    (Kind::LibraryJoin, 30, Way::Library, "read a view that joins"),
    (Kind::LibraryLedger, 25, Way::Library, "read all that was written"),
    (Kind::LibraryTransaction, 25, Way::Library, "write in a transaction of several statements"),
    (Kind::LibraryDropped, 30, Way::Library, "drop a transaction at any await"),
    (Kind::LibraryTimedOut, 14, Way::Library, "time out during a transaction"),
    (Kind::LibraryViewerWrites, 6, Way::Library, "write as a viewer"),
    (Kind::LibraryCrossRead, 10, Way::Library, "read another tenant's tables by name"),
    (Kind::LibraryCrossWrite, 10, Way::Library, "write another tenant's tables by name"),
    (Kind::LibraryPoisoned, 14, Way::Library, "poison the session of the next tenant"),
    (Kind::LibraryInjected, 24, Way::Library, "inject a statement"),
    (Kind::LibraryHelper, 8, Way::Library, "ask a helper with the owner's rights"),
];

pub(crate) const KINDS: usize = MIX.len();

impl Kind {
    pub(crate) fn choose(dice: &mut Dice) -> Kind {
        let mut left = dice.below(1000);
        for (kind, weight, ..) in MIX {
            match left.checked_sub(*weight) {
                Some(rest) => left = rest,
                None => return *kind,
            }
        }
        Kind::LibraryRow
    }

    /// Its index in a table of all kinds.
    pub(crate) fn index(self) -> usize {
        self as usize
    }

    pub(crate) fn way(self) -> Way {
        MIX[self.index()].2
    }

    pub(crate) fn name(self) -> &'static str {
        MIX[self.index()].3
    }

    /// Its name with its way, in findings.
    pub(crate) fn label(self) -> String {
        let way = match self.way() {
            Way::Http => "HTTP",
            Way::Library => "library",
        };
        format!("{way}: {}", self.name())
    }

    pub(crate) fn all() -> impl Iterator<Item = Kind> {
        MIX.iter().map(|(kind, ..)| *kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_chosen_as_often_as_its_weight_says() {
        assert_eq!(MIX.iter().map(|(_, weight, ..)| weight).sum::<usize>(), 1000);
        for (place, (kind, ..)) in MIX.iter().enumerate() {
            assert_eq!(kind.index(), place, "{kind:?} is not where its index says");
        }
        let mut dice = Dice::new(1, 1);
        let mut seen = [0; KINDS];
        for _ in 0..100_000 {
            seen[Kind::choose(&mut dice).index()] += 1;
        }
        for ((kind, weight, ..), seen) in MIX.iter().zip(seen) {
            assert!((weight * 70..weight * 130).contains(&seen), "{kind:?}: {seen}");
        }
    }
}
