//! What was measured, as tables in Markdown and as JSON.
//!
//! Two variants are compared round by round: what the machine did in the meantime met both. So the
//! median of the ratios is surer than the ratio of the medians.

use std::fmt::Write as _;

use serde_json::json;

use super::{enforcer::Variant, workload::Measure};
use crate::statistics::Summary;

/// The samples of one variant and measure, one for each round.
pub struct Series {
    /// Who enforced.
    pub variant: Variant,
    /// What was measured.
    pub measure: Measure,
    /// In the order of rounds.
    pub samples: Vec<f64>,
}

/// All that was measured.
pub struct Report {
    /// Each variant and measure once.
    pub series: Vec<Series>,
}

/// Who is to be held against whom: the first is Bulkhead.
const PAIRS: [(Variant, Variant); 8] = [
    (Variant::BulkheadRules(1), Variant::None),
    (Variant::BulkheadRules(1), Variant::Nftables(1)),
    (Variant::BulkheadRules(1), Variant::Iptables(1)),
    (Variant::BulkheadRules(100), Variant::BulkheadRules(1)),
    (Variant::BulkheadRules(10_000), Variant::BulkheadRules(1)),
    (Variant::BulkheadPolicies(1_000), Variant::BulkheadRules(1)),
    (Variant::BulkheadPolicies(1_000), Variant::Nftables(1_000)),
    (Variant::BulkheadPolicies(1_000), Variant::Iptables(1_000)),
];

impl Report {
    fn find(&self, variant: Variant, measure: Measure) -> Option<&Series> {
        self.series.iter().find(|row| row.variant == variant && row.measure == measure)
    }

    /// By how much the first is better than the second, in percent, round by round: faster, or
    /// earlier. Negative where it is worse.
    fn advantage(&self, of: Variant, over: Variant, measure: Measure) -> Option<Summary> {
        let (of, over) = (self.find(of, measure)?, self.find(over, measure)?);
        let rounds = of.samples.iter().zip(&over.samples);
        let percent = rounds.map(|(of, over)| {
            let ratio = if measure.more_is_better() { of / over } else { over / of };
            (ratio - 1.0) * 100.0
        });
        Summary::of(&percent.collect::<Vec<_>>())
    }

    /// The tables, ready for docs/benchmarks.md.
    pub fn markdown(&self) -> String {
        let mut text = String::new();
        for measure in Measure::ALL {
            self.table(measure, &mut text);
        }
        self.comparison(&mut text);
        text
    }

    fn table(&self, measure: Measure, text: &mut String) {
        let better = if measure.more_is_better() { "more" } else { "less" };
        let _infallible = write!(
            text,
            "**{}**, {} ({better} is better)\n\n\
             | | median | 95 % interval | middle half |\n| --- | ---: | ---: | ---: |\n",
            capitalised(measure.title()),
            measure.unit(),
        );
        for row in self.series.iter().filter(|row| row.measure == measure) {
            let Some(summary) = Summary::of(&row.samples) else { continue };
            let _infallible = writeln!(
                text,
                "| {} | {} | {} | {} |",
                row.variant.title(),
                figure(summary.median),
                summary.interval.map_or("too few rounds".to_owned(), range),
                range(summary.quartiles),
            );
        }
        text.push('\n');
    }

    fn comparison(&self, text: &mut String) {
        let rows: Vec<_> = PAIRS
            .iter()
            .filter_map(|(of, over)| {
                let cells: Vec<_> = Measure::ALL
                    .iter()
                    .map(|measure| self.advantage(*of, *over, *measure).map(percent))
                    .collect::<Option<_>>()?;
                let (of, over) = (of.title(), over.title());
                Some(format!("| {of} | {over} | {} |\n", cells.join(" | ")))
            })
            .collect();
        if rows.is_empty() {
            return;
        }
        let titles: Vec<_> = Measure::ALL.iter().map(|measure| measure.title()).collect();
        let _infallible = write!(
            text,
            "**By how many percent the first is better than the second**, in the same round: median \
             and 95 % interval; negative where it is worse\n\n\
             | | against | {} |\n| --- | --- |{}\n{}",
            titles.join(" | "),
            " ---: |".repeat(titles.len()),
            rows.concat(),
        );
    }

    /// Every sample, with what they sum up to.
    pub fn json(&self) -> serde_json::Value {
        let rows = self.series.iter().filter_map(|row| {
            let summary = Summary::of(&row.samples)?;
            let against = self.advantage(row.variant, Variant::None, row.measure);
            Some(json!({
                "enforcer": row.variant.name(),
                "measure": row.measure.name(),
                "unit": row.measure.unit(),
                "more_is_better": row.measure.more_is_better(),
                "median": summary.median,
                "interval": summary.interval,
                "quartiles": summary.quartiles,
                "percent_better_than_none": against.map(|against| against.median),
                "percent_better_than_none_interval": against.and_then(|against| against.interval),
                "samples": row.samples,
            }))
        });
        rows.collect()
    }
}

/// Three digits that count.
fn figure(value: f64) -> String {
    let digits = match value.abs() {
        value if value >= 100.0 => 0,
        value if value >= 10.0 => 1,
        value if value >= 1.0 => 2,
        _ => 3,
    };
    format!("{value:.digits$}")
}

fn range((low, high): (f64, f64)) -> String {
    format!("{} to {}", figure(low), figure(high))
}

fn percent(summary: Summary) -> String {
    let interval = summary.interval.map(|(low, high)| format!(" ({low:+.1} to {high:+.1})"));
    format!("{:+.1}{}", summary.median, interval.unwrap_or_default())
}

fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(measure: Measure, bulkhead: &[f64], none: &[f64]) -> Report {
        let series =
            |variant, samples: &[f64]| Series { variant, measure, samples: samples.to_vec() };
        Report {
            series: vec![series(Variant::None, none), series(Variant::BulkheadRules(1), bulkhead)],
        }
    }

    #[test]
    fn a_higher_rate_is_better_and_a_longer_time_is_worse() {
        for (measure, expected) in [(Measure::Stream, 10.0), (Measure::Latency, -10.0)] {
            let (bulkhead, none) = match measure.more_is_better() {
                true => (11.0, 10.0),
                false => (10.0, 9.0),
            };
            let report = report(measure, &[bulkhead], &[none]);
            let pair = (Variant::BulkheadRules(1), Variant::None);
            let advantage = report.advantage(pair.0, pair.1, measure).unwrap();
            assert!((advantage.median - expected).abs() < 1e-9, "{advantage:?}");
        }
    }

    #[test]
    fn rounds_are_compared_with_themselves() {
        // Whatever slows a whole round down changes nothing.
        let report = report(Measure::Stream, &[2.0, 20.0, 200.0], &[1.0, 10.0, 100.0]);
        let pair = (Variant::BulkheadRules(1), Variant::None);
        let advantage = report.advantage(pair.0, pair.1, Measure::Stream).unwrap();
        assert_eq!((advantage.median, advantage.quartiles), (100.0, (100.0, 100.0)));
    }

    #[test]
    fn the_table_is_markdown() {
        let samples: Vec<f64> = (1..=20).map(f64::from).collect();
        let text = report(Measure::Stream, &samples, &samples).markdown();
        let expected = "**TCP stream**, Gbit/s (more is better)\n\n\
                        | | median | 95 % interval | middle half |\n\
                        | --- | ---: | ---: | ---: |\n\
                        | no enforcement | 10.5 | 6.00 to 15.0 | 5.75 to 15.2 |\n";
        assert!(text.starts_with(expected), "{text}");
    }

    #[test]
    fn a_figure_has_three_digits() {
        for (value, expected) in
            [(0.1234, "0.123"), (1.234, "1.23"), (-12.34, "-12.3"), (1234.5, "1234")]
        {
            assert_eq!(figure(value), expected);
        }
    }
}
