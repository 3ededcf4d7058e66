/// Messages that one write operation applies, moves or deletes at most, so that none keeps the
/// writer for long.
pub(super) const MAX_STEP_ROWS: usize = 256;

/// Outcome of a write operation that is done in bounded steps.
pub(super) enum Progress<T> {
    Done(T),
    /// More is to do: the caller runs the operation again.
    Again,
}
