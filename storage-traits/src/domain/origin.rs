use std::time::Duration;

use super::{GroupName, Incarnation};

/// Source of a dead letter: the queue or group that a redrive moves it back to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// Incarnation of the queue.
    pub queue: Incarnation,
    /// Group whose claims reached the maximum; `None` for the queue itself.
    pub group: Option<GroupName>,
    /// Ttl that the message had there. Whole seconds.
    pub ttl: Duration,
}

impl Origin {
    /// Returns the form that stores keep.
    pub fn to_text(&self) -> String {
        let (queue, ttl) = (self.queue.get(), self.ttl.as_secs());
        match &self.group {
            Some(group) => format!("{queue} {ttl} {}", group.as_str()),
            None => format!("{queue} {ttl}"),
        }
    }

    /// Reads the form that [`Origin::to_text`] returns; returns `None` for any other text.
    pub fn from_text(text: &str) -> Option<Self> {
        let mut words = text.splitn(3, ' ');
        Some(Self {
            queue: Incarnation::new(words.next()?.parse().ok()?)?,
            ttl: Duration::from_secs(words.next()?.parse().ok()?),
            group: words.next().map(str::parse).transpose().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_read_as_it_was_written() {
        let queue = Incarnation::new(77).unwrap();
        for group in [None, Some("a-b_c.d".parse().unwrap())] {
            let origin = Origin { queue, group, ttl: Duration::from_mins(1) };
            assert_eq!(Origin::from_text(&origin.to_text()), Some(origin));
        }
        for text in ["", "77", "x 60", "77 x", "0 60", "77 60 a b", "77 60 "] {
            assert_eq!(Origin::from_text(text), None, "{text:?}");
        }
    }
}
