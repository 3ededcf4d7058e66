//! Tables of calls and the responses expected to them.

use crate::call::Call;
use crate::client::Client;

/// What is tested, the call, the expected status and, for an error, its title (empty for a
/// success).
pub type Row<'a> = (&'a str, Call, u16, &'a str);

/// Sends each call of a table in turn and checks its response.
pub async fn check<'a>(client: &Client, rows: impl IntoIterator<Item = Row<'a>>) {
    for (what, call, status, title) in rows {
        let response = client.send(call).await;
        if title.is_empty() {
            response.expect(status, what);
        } else {
            response.expect_error(status, title, what);
        }
    }
}
