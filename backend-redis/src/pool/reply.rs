//! Replies of functions.

use redis::Value;
use storage_traits::Result;

use crate::error::unexpected;

/// A reply, read field by field.
pub(super) struct Reply {
    nil: bool,
    single: Option<Value>,
    values: std::vec::IntoIter<Value>,
}

impl Reply {
    pub(super) fn new(value: Value) -> Self {
        let (nil, single, values) = match value {
            Value::Nil => (true, None, Vec::new()),
            Value::Array(values) => (false, None, values),
            single => (false, Some(single), Vec::new()),
        };
        Self { nil, single, values: values.into_iter() }
    }

    /// Returns whether the function returned `nil`.
    pub(super) const fn is_nil(&self) -> bool {
        self.nil
    }

    /// Returns whether all fields are read.
    pub(super) fn is_empty(&self) -> bool {
        self.values.as_slice().is_empty()
    }

    fn next(&mut self) -> Result<Value> {
        let next = self.single.take().or_else(|| self.values.next());
        next.ok_or_else(|| unexpected("redis returned too few fields"))
    }

    pub(super) fn number(&mut self) -> Result<i64> {
        match self.next()? {
            Value::Int(number) => Ok(number),
            _ => Err(unexpected("redis returned no number")),
        }
    }

    /// Reads a number that cannot be negative.
    pub(super) fn count(&mut self) -> Result<u64> {
        u64::try_from(self.number()?).map_err(unexpected)
    }

    pub(super) fn bytes(&mut self) -> Result<Vec<u8>> {
        match self.next()? {
            Value::BulkString(bytes) => Ok(bytes),
            _ => Err(unexpected("redis returned no text")),
        }
    }

    pub(super) fn text(&mut self) -> Result<String> {
        String::from_utf8(self.bytes()?).map_err(unexpected)
    }
}
