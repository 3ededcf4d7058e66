//! The results of all rounds, and their comparison with the targets.

use std::collections::BTreeMap;

use crate::checks::{Check, Target, median};
use crate::report::{Row, table};
use crate::stats::Op;

/// Messages claimed and deleted per second that meet the target at any rate of the driver.
const SUFFICIENT_RATE: f64 = 3_000.0;
/// The part of the driver's rate that meets the target.
const SUFFICIENT_PART: f64 = 0.4;

/// The results of one round.
pub(crate) struct Round {
    pub(crate) rows: Vec<Row>,
    /// Empty claims of the service while messages were free.
    pub(crate) empty: f64,
}

impl Round {
    /// Returns the messages per second of a program and operation.
    fn rate(&self, program: &str, op: Op) -> f64 {
        let mut rows = self.rows.iter();
        let found = rows.find(|row| row.label.program == program && row.op == op);
        found.map_or(f64::NAN, |row| row.messages_per_s)
    }
}

/// Formats the messages per second of each program and operation: median, minimum, maximum, rounds.
pub(crate) fn rates_table(rounds: &[Round]) -> String {
    let mut rates: BTreeMap<_, Vec<f64>> = BTreeMap::new();
    for row in rounds.iter().flat_map(|round| &round.rows) {
        // Empty claims have no messages.
        if row.op != Op::EmptyClaim {
            let what = (row.op.name(), row.label.program.as_str(), row.label.connections);
            rates.entry(what).or_default().push(row.messages_per_s);
        }
    }
    let line = |(what, rates): (&(&str, &str, usize), &Vec<f64>)| {
        let least = rates.iter().copied().fold(f64::NAN, f64::min);
        let most = rates.iter().copied().fold(f64::NAN, f64::max);
        let each: Vec<_> = rates.iter().map(|rate| format!("{rate:.0}")).collect();
        let (op, program, connections) = what;
        let mut cells = vec![(*op).to_owned(), (*program).to_owned(), connections.to_string()];
        cells.extend([median(rates), least, most].map(|rate| format!("{rate:.0}")));
        cells.push(each.join(" "));
        cells
    };
    let head = ["operation", "program", "conns", "msg/s", "least", "most", "each round"];
    table(&head, 2, &rates.iter().map(line).collect::<Vec<_>>())
}

pub(crate) fn checks(rounds: &[Round], with_zaqar: bool) -> Vec<Check> {
    let rate = |program: &str, op: Op| {
        rounds.iter().map(|round| round.rate(program, op)).collect::<Vec<_>>()
    };
    let (posts, claims) = (rate("chapar", Op::Post), rate("chapar", Op::Delete));
    let bare: Vec<_> = rate("find-and-update", Op::Claim)
        .iter()
        .map(|claims| (claims * 10.0).min(SUFFICIENT_RATE / SUFFICIENT_PART))
        .collect();
    let empty: Vec<_> = rounds.iter().map(|round| round.empty).collect();
    let mut checks = vec![
        Check::ratio(
            "posts: service / insert_many of one writer",
            &posts,
            &rate("insert-many", Op::Post),
            Target::AtLeast(0.6),
        ),
        Check::ratio(
            "posts: service / insert_one of each poster",
            &posts,
            &rate("insert-one", Op::Post),
            Target::AtLeast(8.0),
        ),
        Check::ratio(
            "posts to one queue: on two nodes / on one",
            &rate("chapar, 2 nodes", Op::Post),
            &posts,
            Target::AtLeast(0.8),
        ),
        Check::ratio(
            "claim and delete of 10: service / 10 x find_one_and_update (or 7,500 messages/s)",
            &claims,
            &bare,
            Target::AtLeast(SUFFICIENT_PART),
        ),
        Check::largest("empty claims while messages were free", &empty, Target::AtMost(0.0)),
    ];
    if with_zaqar {
        let other = rate("zaqar", Op::Post);
        let target = Target::AtLeast(20.0);
        checks.push(Check::ratio("posts: service / Zaqar", &posts, &other, target));
        let other = rate("zaqar", Op::Delete);
        let what = "claim and delete of 10: service / Zaqar";
        checks.push(Check::orientation(what, &claims, &other));
    }
    checks
}
