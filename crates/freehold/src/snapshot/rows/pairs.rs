//! Which row of one run of a file is which row of another run. The order of rows in a table says little, since
//! the runs may have left free space at different places. Pure.

use std::collections::HashMap;

use super::Cell;

/// The rows that differ, in pairs. A pair agrees in all values that both runs have equally often in a column;
/// among rows that are the same in this respect, the order decides.
pub(super) fn pairs(here: &[Vec<Cell>], there: &[Vec<Cell>]) -> Vec<(usize, usize)> {
    let mut same: HashMap<&[Cell], usize> = HashMap::new();
    for row in there {
        *same.entry(row).or_default() += 1;
    }
    let mut is_other = |row: &Vec<Cell>| match same.get_mut(row.as_slice()) {
        Some(left) if *left > 0 => {
            *left -= 1;
            false
        }
        _ => true,
    };
    let only_here: Vec<usize> = (0..here.len()).filter(|at| is_other(&here[*at])).collect();
    // What is left are those that are not among the rows here.
    let only_there: Vec<usize> = (0..there.len()).filter(|at| !is_other(&there[*at])).collect();
    let mut counts: HashMap<(usize, &Cell), i64> = HashMap::new();
    for (rows, at, sign) in [(here, &only_here, 1), (there, &only_there, -1)] {
        for cell in at.iter().flat_map(|at| rows[*at].iter().enumerate()) {
            *counts.entry(cell).or_default() += sign;
        }
    }
    let constants = |row: &[Cell]| -> Vec<Option<String>> {
        let is_constant = |cell: &(usize, &Cell)| counts.get(cell) == Some(&0);
        let cells = row.iter().enumerate();
        cells.map(|cell| is_constant(&cell).then(|| format!("{:?}", cell.1))).collect()
    };
    let sorted = |rows: &[Vec<Cell>], mut at: Vec<usize>| {
        at.sort_by_cached_key(|at| constants(&rows[*at]));
        at
    };
    sorted(here, only_here).into_iter().zip(sorted(there, only_there)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(rows: &[[&str; 3]]) -> Vec<Vec<Cell>> {
        rows.iter().map(|row| row.map(|text| Cell::Text(text.to_owned())).to_vec()).collect()
    }

    #[test]
    fn rows_that_differ_are_paired_by_what_is_constant_in_them() {
        let here =
            rows(&[["same", "a", "x1"], ["1", "a", "x1"], ["2", "b", "x1"], ["2", "b", "x2"]]);
        let there =
            rows(&[["2", "b", "y1"], ["same", "a", "x1"], ["2", "b", "y2"], ["1", "a", "y1"]]);
        assert_eq!(pairs(&here, &there), [(1, 3), (2, 0), (3, 2)]);
        assert_eq!(pairs(&here, &here), []);
        // Twice the same here, and once there.
        let (here, there) =
            (rows(&[["1", "a", "x"], ["1", "a", "x"]]), rows(&[["1", "a", "y"], ["1", "a", "x"]]));
        assert_eq!(pairs(&here, &there), [(1, 0)]);
    }
}
