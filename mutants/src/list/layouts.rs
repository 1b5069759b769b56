//! Detection of other tools' folders.

use super::Mutant;
use super::Tests::Library;

const ORDER: &str = "crates/freehold/src/schema/migration/order.rs";
const FILES: &str = "crates/freehold/src/schema/migration/files.rs";
const ADOPT: &str = "crates/freehold/src/fleet/migrator/adopt.rs";

const FOUND_OUT: &str = "layouts::each_layout_is_found_out_and_gives_its_tools_versions";
const REFUSED: &str = "layouts::what_would_be_forgotten_or_run_otherwise_is_refused_with_its_name";

pub(super) const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "undo-is-run",
        breaks: "what undoes a version in Flyway's layout is run as a migration",
        file: ORDER,
        from: "            Kind::Undo if is_flyway => continue,\n",
        to: "",
        tests: Library(&[FOUND_OUT]),
        survives_because: None,
    },
    Mutant {
        name: "a-number-again",
        breaks: "a number that is not above the one before it is a version all the same",
        file: FILES,
        from: "file.number.filter(|number| *number > last)",
        to: "file.number.filter(|number| *number > 0)",
        tests: Library(&[FOUND_OUT]),
        survives_because: None,
    },
    Mutant {
        name: "programs-are-forgotten",
        breaks: "a migration that is a program is passed over in silence",
        file: ORDER,
        from: "    listing.refuse_programs()?;\n",
        to: "",
        tests: Library(&[REFUSED]),
        survives_because: None,
    },
    Mutant {
        name: "loose-files-are-forgotten",
        breaks: "a numbered file beside the folders of Prisma or diesel is passed over in silence",
        file: ORDER,
        from: "if leading_number(entry.stem()).is_some() || flyway",
        to: "if flyway",
        tests: Library(&[REFUSED]),
        survives_because: None,
    },
    Mutant {
        name: "places-for-names",
        breaks: "a file that came in between is taken for the one whose place it has",
        file: ADOPT,
        from: "let same = folder.iter().find(|m| m.label == old.label);",
        to: "let same = folder.iter().find(|m| m.version == old.version);",
        tests: Library(&["layouts::what_is_numbered_by_its_place_is_compared_by_its_name"]),
        survives_because: None,
    },
    Mutant {
        name: "half-a-transaction",
        breaks: "a COMMIT with no BEGIN is left out",
        file: "crates/freehold/src/schema/migration/check.rs",
        from: "(Some(Boundary::Commit), Some(begin)) => {",
        to: "(Some(Boundary::Commit), begin) => {\n                let begin = begin.unwrap_or(at);",
        tests: Library(&["layouts::a_transaction_around_statements_is_the_files_own"]),
        survives_because: None,
    },
];
