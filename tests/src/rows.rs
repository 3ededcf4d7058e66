//! Tables of calls and their answers.

use crate::{Call, Client};

/// What is tried, the call, the status and, for an error, its title (empty for a success).
pub type Row<'a> = (&'a str, Call, u16, &'a str);

/// Sends every call of a table in turn and compares the answers.
pub async fn check<'a>(client: &Client, rows: impl IntoIterator<Item = Row<'a>>) {
    for (what, call, status, title) in rows {
        let answer = client.send(call).await;
        if title.is_empty() {
            answer.expect(status, what);
        } else {
            answer.expect_error(status, title, what);
        }
    }
}
