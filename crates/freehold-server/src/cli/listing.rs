//! Lists that the library returns in pages: read in full, or up to a limit with a cursor for the rest.

use freehold::control::PAGE_MAX;
use serde::Serialize;

use super::output::Output;
use super::words;

/// The items of a list, and the cursor of the rest if it is not complete.
#[derive(Serialize)]
pub(super) struct Listing<T> {
    pub(super) items: Vec<T>,
    pub(super) next: Option<String>,
}

/// How much of a list is requested.
#[derive(Clone, Copy)]
pub(super) struct Wanted {
    /// The number of items; `None` for all.
    pub(super) limit: Option<u32>,
    /// The most items per page.
    pub(super) page_max: i64,
}

impl Wanted {
    pub(super) fn of(limit: Option<u32>) -> Wanted {
        Wanted { limit, page_max: PAGE_MAX }
    }
}

/// Reads page by page. `load` returns up to a number of items after a cursor. `cursor` returns the cursor
/// after an item, from the previous cursor and the number of items since.
async fn read<T, C>(
    wanted: Wanted,
    mut after: C,
    cursor: impl Fn(&C, &[T]) -> C,
    text: impl Fn(C) -> Option<String>,
    load: impl AsyncFn(&C, i64) -> freehold::Result<Vec<T>>,
) -> freehold::Result<Listing<T>> {
    let limit = wanted.limit.map_or(usize::MAX, |limit| limit as usize);
    let mut items = Vec::new();
    loop {
        // One more than requested shows whether there are more.
        let left = i64::try_from(limit - items.len()).unwrap_or(i64::MAX).saturating_add(1);
        let size = left.min(wanted.page_max);
        let mut page = load(&after, size).await?;
        let was_full = i64::try_from(page.len()).is_ok_and(|length| length >= size);
        let room = limit - items.len();
        let is_cut = page.len() > room;
        page.truncate(room);
        if !page.is_empty() {
            after = cursor(&after, &page);
        }
        items.append(&mut page);
        if is_cut {
            return Ok(Listing { items, next: text(after) });
        }
        if !was_full {
            return Ok(Listing { items, next: None });
        }
    }
}

/// A list whose cursor is the key of an item.
pub(super) async fn by_key<T>(
    wanted: Wanted,
    after: Option<String>,
    key: impl Fn(&T) -> String,
    load: impl AsyncFn(Option<&str>, i64) -> freehold::Result<Vec<T>>,
) -> freehold::Result<Listing<T>> {
    let cursor =
        |before: &Option<String>, page: &[T]| page.last().map(&key).or_else(|| before.clone());
    let load = async |after: &Option<String>, size| load(after.as_deref(), size).await;
    read(wanted, after, cursor, |after| after, load).await
}

/// A list whose cursor is an offset.
pub(super) async fn by_offset<T>(
    wanted: Wanted,
    offset: i64,
    load: impl AsyncFn(i64, i64) -> freehold::Result<Vec<T>>,
) -> freehold::Result<Listing<T>> {
    let cursor = |before: &i64, page: &[T]| before + page.len() as i64;
    let load = async |offset: &i64, size| load(*offset, size).await;
    read(wanted, offset, cursor, |offset| Some(offset.to_string()), load).await
}

impl<T: Serialize> Listing<T> {
    /// Prints the list as JSON, or as a table made from its items, and notes if there are more.
    pub(super) fn print(
        &self,
        json: bool,
        flag: &str,
        none: &str,
        rows: impl FnOnce(&[T]) -> Vec<Vec<String>>,
    ) {
        if json {
            return Output::json(self);
        }
        Output::table_or(&rows(&self.items), none);
        self.note_more(flag);
    }

    /// Notes that there are more, and the flag that shows the next ones.
    pub(super) fn note_more(&self, flag: &str) {
        if let Some(next) = &self.next {
            let shown = words::count(self.items.len(), "line");
            Output::note(&format!(
                "{shown} shown, and there are more: {flag} {next} begins with the next, --limit N shows more"
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers from 0 to 449, in pages of 200.
    async fn numbers(after: Option<&str>, size: i64) -> freehold::Result<Vec<i64>> {
        let begin = after.map_or(0, |after| after.parse::<i64>().unwrap() + 1);
        Ok((begin..450).take(size.clamp(1, 200) as usize).collect())
    }

    async fn list(limit: Option<u32>, after: Option<&str>) -> (usize, Option<String>) {
        let after = after.map(str::to_owned);
        let list = by_key(Wanted::of(limit), after, i64::to_string, numbers).await.unwrap();
        (list.items.len(), list.next)
    }

    #[tokio::test]
    async fn a_list_is_whole_or_says_where_the_rest_begins() {
        assert_eq!(list(None, None).await, (450, None));
        assert_eq!(list(Some(450), None).await, (450, None));
        assert_eq!(list(Some(449), None).await, (449, Some("448".to_owned())));
        assert_eq!(list(Some(200), None).await, (200, Some("199".to_owned())));
        assert_eq!(list(Some(50), Some("399")).await, (50, None));
        assert_eq!(list(Some(50), Some("398")).await, (50, Some("448".to_owned())));
        assert_eq!(list(None, Some("449")).await, (0, None));
        let load = async |offset: i64, size: i64| {
            Ok((offset..450).take(size.clamp(1, 200) as usize).collect())
        };
        let listed = by_offset(Wanted::of(Some(300)), 100, load).await.unwrap();
        assert_eq!((listed.items[0], listed.next.as_deref()), (100, Some("400")));
    }
}
