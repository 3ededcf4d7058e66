//! What a function answered, read from the front.

use redis::Value;
use storage_traits::Result;

use crate::error::unexpected;

/// The status with which most answers begin: it was done.
pub(super) const OK: i64 = 0;
/// Nothing was done yet, because much else was due: ask again.
pub(super) const AGAIN: i64 = 1;
/// What it is about is unknown.
pub(super) const UNKNOWN: i64 = 2;

pub(crate) struct Reply {
    nil: bool,
    single: Option<Value>,
    values: std::vec::IntoIter<Value>,
}

impl Reply {
    pub(crate) fn new(value: Value) -> Self {
        let (nil, single, values) = match value {
            Value::Nil => (true, None, Vec::new()),
            Value::Array(values) => (false, None, values),
            single => (false, Some(single), Vec::new()),
        };
        Self { nil, single, values: values.into_iter() }
    }

    /// Whether the answer is that there is nothing to answer.
    pub(crate) const fn is_nil(&self) -> bool {
        self.nil
    }

    /// Whether nothing is left.
    pub(crate) fn is_empty(&self) -> bool {
        self.values.as_slice().is_empty()
    }

    fn next(&mut self) -> Result<Value> {
        let next = self.single.take().or_else(|| self.values.next());
        next.ok_or_else(|| unexpected("redis answered too little"))
    }

    pub(crate) fn number(&mut self) -> Result<i64> {
        match self.next()? {
            Value::Int(number) => Ok(number),
            _ => Err(unexpected("redis answered no number")),
        }
    }

    /// A number that cannot be negative.
    pub(crate) fn count(&mut self) -> Result<u64> {
        u64::try_from(self.number()?).map_err(unexpected)
    }

    pub(crate) fn bytes(&mut self) -> Result<Vec<u8>> {
        match self.next()? {
            Value::BulkString(bytes) => Ok(bytes),
            _ => Err(unexpected("redis answered no text")),
        }
    }

    pub(crate) fn text(&mut self) -> Result<String> {
        String::from_utf8(self.bytes()?).map_err(unexpected)
    }
}
