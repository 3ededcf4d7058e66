/// How many items a page, a claim or a pop may hold: at least 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit(u32);

impl Limit {
    /// `None` for 0. The upper bound is the caller's rule.
    pub const fn new(limit: u32) -> Option<Self> {
        if limit == 0 { None } else { Some(Self(limit)) }
    }

    /// The bound as a number of items.
    pub const fn get(self) -> usize {
        self.0 as usize
    }

    /// How many rows to fetch for [`Page::cut`]: one more than the page holds.
    pub const fn with_spare(self) -> u32 {
        self.0.saturating_add(1)
    }
}

/// A part of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// The items, in the order of the list.
    pub items: Vec<T>,
    /// Whether more items followed when the page was read.
    pub more: bool,
}

impl<T> Page<T> {
    /// A page without items.
    pub const fn empty() -> Self {
        Self { items: Vec::new(), more: false }
    }

    /// Makes a page of `rows`, fetched with [`Limit::with_spare`]: drops the spare row.
    pub fn cut(mut rows: Vec<T>, limit: Limit) -> Self {
        let more = rows.len() > limit.get();
        rows.truncate(limit.get());
        Self { items: rows, more }
    }

    /// The same page with every item changed by `f`.
    pub fn map<U>(self, f: impl FnMut(T) -> U) -> Page<U> {
        Page { items: self.items.into_iter().map(f).collect(), more: self.more }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_page_with_a_spare_row_says_that_more_follow() {
        let limit = Limit::new(2).unwrap();
        assert_eq!(Page::cut(vec![1, 2, 3], limit), Page { items: vec![1, 2], more: true });
        assert_eq!(Page::cut(vec![1, 2], limit), Page { items: vec![1, 2], more: false });
    }
}
