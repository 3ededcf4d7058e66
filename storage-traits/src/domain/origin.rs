use std::time::Duration;

use super::{GroupName, Incarnation};

/// Where a dead letter comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The queue, in the life in which the message was claimed too often.
    pub queue: Incarnation,
    /// The group whose claims those were; `None` if they were of the queue itself.
    pub group: Option<GroupName>,
    /// The ttl that the message had there. Whole seconds.
    pub ttl: Duration,
}

impl Origin {
    /// The form that stores keep.
    pub fn to_text(&self) -> String {
        let (queue, ttl) = (self.queue.get(), self.ttl.as_secs());
        match &self.group {
            Some(group) => format!("{queue} {ttl} {}", group.as_str()),
            None => format!("{queue} {ttl}"),
        }
    }

    /// Reads what [`Origin::to_text`] gave; `None` if it did not.
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
