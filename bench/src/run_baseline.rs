//! `run-baseline`: the child process of [`baseline`](crate::baseline). It runs a baseline and
//! prints the rows as JSON.

use std::path::Path;

use anyhow::Result;

use crate::args::{Baseline, BaselineArgs};
use crate::report::{Label, Row};
use crate::{group_commit, naive_direct};

pub(crate) async fn run(args: &BaselineArgs) -> Result<()> {
    println!("{}", serde_json::to_string(&measure(args).await?)?);
    Ok(())
}

async fn measure(args: &BaselineArgs) -> Result<Vec<Row>> {
    let (dir, bytes): (&Path, _) = (&args.dir, args.body_bytes);
    let (connections, length, round) = (args.connections, args.length, args.round);
    let outcome = match args.baseline {
        Baseline::GroupCommit => group_commit::measure(dir, connections, length, bytes).await?,
        Baseline::NaiveDirect => naive_direct::measure(dir, connections, length, bytes).await?,
    };
    let (program, scenario) = (args.baseline.name(), "post".to_owned());
    Ok(outcome.rows(&Label { program, scenario, connections, round }))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::report::rows_table;

    #[tokio::test]
    async fn printed_rows_can_be_parsed() {
        for baseline in [Baseline::GroupCommit, Baseline::NaiveDirect] {
            let dir = tempfile::tempdir().unwrap();
            let (dir, length) = (dir.path().to_owned(), Duration::from_millis(50));
            let args =
                BaselineArgs { baseline, dir, connections: 4, length, body_bytes: 64, round: 2 };
            let mut rows = measure(&args).await.unwrap();
            assert!(rows.len() == 1 && rows[0].requests > 0 && rows[0].label.round == 2);
            rows[0].errors.insert(503, 1);
            let printed = serde_json::to_string(&rows).unwrap();
            let parsed: Vec<Row> = serde_json::from_str(&printed).unwrap();
            assert_eq!(rows_table(&parsed), rows_table(&rows));
        }
    }
}
