/// Greatest number of items in a page, a claim or a pop: at least 1. The API allows 20 by default
/// and never more than 1,000, a redrive 10,000.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit(u32);

impl Limit {
    /// Creates a limit; returns `None` for 0. The caller enforces the upper bound.
    pub const fn new(limit: u32) -> Option<Self> {
        if limit == 0 { None } else { Some(Self(limit)) }
    }

    /// Returns the limit as a number of items.
    pub const fn get(self) -> usize {
        self.0 as usize
    }

    /// Returns the number of rows to fetch for [`Page::cut`]: one more than the page holds.
    pub const fn with_spare(self) -> u32 {
        self.0.saturating_add(1)
    }
}

/// Consecutive part of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// Items, in the order of the list.
    pub items: Vec<T>,
    /// Whether more items followed when the page was read.
    pub more: bool,
}

impl<T> Page<T> {
    /// Returns a page without items, which no other follows.
    pub const fn empty() -> Self {
        Self { items: Vec::new(), more: false }
    }

    /// Creates a page from `rows`, which were fetched with [`Limit::with_spare`]. Drops the spare
    /// row and sets [`Page::more`] if there is one.
    pub fn cut(mut rows: Vec<T>, limit: Limit) -> Self {
        let more = rows.len() > limit.get();
        rows.truncate(limit.get());
        Self { items: rows, more }
    }

    /// Returns the page with `f` applied to every item.
    pub fn map<U>(self, f: impl FnMut(T) -> U) -> Page<U> {
        Page { items: self.items.into_iter().map(f).collect(), more: self.more }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_cut_from_a_spare_row_has_more() {
        let limit = Limit::new(2).unwrap();
        assert_eq!(Page::cut(vec![1, 2, 3], limit), Page { items: vec![1, 2], more: true });
        assert_eq!(Page::cut(vec![1, 2], limit), Page { items: vec![1, 2], more: false });
    }
}
