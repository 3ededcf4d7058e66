//! Comparisons of figures with their targets.

use std::fmt;

use serde::{Serialize, Serializer};

use crate::report::table;

#[derive(Debug, Clone, Copy)]
pub(crate) enum Target {
    AtLeast(f64),
    AtMost(f64),
    Below(f64),
}

impl Target {
    fn met_by(self, value: f64) -> bool {
        match self {
            Self::AtLeast(bound) => value >= bound,
            Self::AtMost(bound) => value <= bound,
            Self::Below(bound) => value < bound,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(bound) => write!(f, ">= {bound}"),
            Self::AtMost(bound) => write!(f, "<= {bound}"),
            Self::Below(bound) => write!(f, "< {bound}"),
        }
    }
}

impl Serialize for Target {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A figure and whether it meets its target.
#[derive(Debug, Serialize)]
pub(crate) struct Check {
    what: String,
    found: f64,
    /// `None`, like `met`, for a figure without a target.
    target: Option<Target>,
    met: Option<bool>,
    /// The figure of each round.
    rounds: Vec<f64>,
}

impl Check {
    /// Compares the median of `values` with the target.
    pub(crate) fn value(what: impl Into<String>, values: &[f64], target: Target) -> Self {
        let found = median(values);
        let (what, rounds) = (what.into(), values.to_vec());
        Self { what, found, target: Some(target), met: Some(target.met_by(found)), rounds }
    }

    /// Compares the largest of `values` with the target, so that each round must meet it.
    pub(crate) fn largest(what: impl Into<String>, values: &[f64], target: Target) -> Self {
        let found = values.iter().copied().fold(f64::NAN, f64::max);
        Self { found, met: Some(target.met_by(found)), ..Self::value(what, values, target) }
    }

    /// Compares the ratio of the medians with the target. One outlier has little effect on it.
    pub(crate) fn ratio(
        what: impl Into<String>,
        over: &[f64],
        under: &[f64],
        target: Target,
    ) -> Self {
        let ratio = Self::orientation(what, over, under);
        Self { target: Some(target), met: Some(target.met_by(ratio.found)), ..ratio }
    }

    /// Returns the ratio of the medians, without a target.
    pub(crate) fn orientation(what: impl Into<String>, over: &[f64], under: &[f64]) -> Self {
        let found = median(over) / median(under);
        let rounds = over.iter().zip(under).map(|(over, under)| over / under).collect();
        Self { what: what.into(), found, target: None, met: None, rounds }
    }
}

pub(crate) fn checks_table(checks: &[Check]) -> String {
    let cells = |check: &Check| {
        let rounds: Vec<_> = check.rounds.iter().map(|value| format!("{value:.2}")).collect();
        vec![
            check.what.clone(),
            match check.met {
                Some(true) => "met",
                Some(false) => "missed",
                None => "for orientation",
            }
            .to_owned(),
            format!("{:.2}", check.found),
            check.target.map_or_else(|| "-".to_owned(), |target| target.to_string()),
            rounds.join(" "),
        ]
    };
    let rows: Vec<_> = checks.iter().map(cells).collect();
    table(&["check", "", "found", "target", "each round"], 2, &rows)
}

/// Returns the middle value, the mean of the middle two for an even number of values, or NaN for
/// none.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(found: f64, wanted: f64) -> bool {
        (found - wanted).abs() < 1e-9
    }

    #[test]
    fn the_median_is_the_middle() {
        assert!(near(median(&[3.0, 1.0, 2.0]), 2.0));
        assert!(near(median(&[4.0, 1.0, 2.0, 3.0]), 2.5));
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn a_ratio_is_of_medians_and_of_each_round() {
        let target = Target::AtLeast(2.0);
        let check = Check::ratio("x", &[10.0, 90.0, 40.0], &[5.0, 10.0, 20.0], target);
        assert!(near(check.found, 4.0) && check.met == Some(true));
        assert!(check.rounds.iter().zip([2.0, 9.0, 2.0]).all(|(a, b)| near(*a, b)));
    }

    #[test]
    fn a_target_is_met_on_one_side_of_its_bound() {
        assert!(Target::AtLeast(2.0).met_by(2.0) && !Target::AtLeast(2.0).met_by(1.9));
        assert!(Target::AtMost(2.0).met_by(2.0) && !Target::AtMost(2.0).met_by(2.1));
        assert!(Target::Below(2.0).met_by(1.9) && !Target::Below(2.0).met_by(2.0));
        assert!(!Target::AtLeast(2.0).met_by(f64::NAN), "nothing measured meets nothing");
    }

    #[test]
    fn one_round_beyond_the_target_misses_it() {
        let check = |values: &[f64]| Check::largest("x", values, Target::AtMost(0.0));
        assert_eq!(check(&[0.0, 0.0, 0.0]).met, Some(true));
        assert!(check(&[0.0, 1.0, 0.0]).met == Some(false) && near(check(&[0.0, 1.0]).found, 1.0));
        assert_eq!(check(&[]).met, Some(false));
    }

    #[test]
    fn the_table_shows_missed_targets() {
        let check = Check::value("size", &[1.0, 2.0, 3.0], Target::Below(2.0));
        let table = checks_table(&[check]);
        assert!(table.contains("size   missed"), "{table}");
        assert!(table.ends_with("2.00     < 2  1.00 2.00 3.00\n"), "{table}");
    }

    #[test]
    fn a_ratio_without_a_target_is_neither_met_nor_missed() {
        let check = Check::orientation("ratio", &[4.0], &[2.0]);
        let table = checks_table(&[check]);
        assert!(table.ends_with("ratio  for orientation   2.00       -        2.00\n"), "{table}");
    }
}
