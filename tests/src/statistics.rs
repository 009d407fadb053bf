//! What a row of samples says: median, how sure it is, and how far they lie apart.
//!
//! Nothing here assumes a distribution. The interval of a median is that of order statistics: of n
//! independent samples, each lies below the true median with probability 1/2, so the number that do
//! is binomial, and so is the chance that the true median lies outside of the k-th smallest and the
//! k-th largest.

/// Least confidence of [`Summary::interval`].
pub const CONFIDENCE: f64 = 0.95;

/// Some samples, summed up.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    /// The middle one; of an even number, the mean of the middle two.
    pub median: f64,
    /// The true median lies in between, with [`CONFIDENCE`] or more. `None` for less than six
    /// samples, which cannot tell.
    pub interval: Option<(f64, f64)>,
    /// Between them lies the middle half of the samples.
    pub quartiles: (f64, f64),
}

impl Summary {
    /// Of these samples, in any order; `None` for none.
    pub fn of(samples: &[f64]) -> Option<Self> {
        let mut sorted = samples.to_vec();
        sorted.sort_unstable_by(f64::total_cmp);
        let interval = rank(sorted.len()).and_then(|rank| {
            let low = sorted.get(rank - 1)?;
            let high = sorted.get(sorted.len() - rank)?;
            Some((*low, *high))
        });
        let median = quantile(&sorted, 0.5)?;
        let quartiles = (quantile(&sorted, 0.25)?, quantile(&sorted, 0.75)?);
        Some(Self { median, interval, quartiles })
    }
}

/// The value that this part of the samples lies below: linear between the two nearest, as R's
/// default has it. The samples are sorted; `None` for none.
pub fn quantile(sorted: &[f64], part: f64) -> Option<f64> {
    let place = part * sorted.len().checked_sub(1)? as f64;
    let (below, above) = (place.floor(), place.ceil());
    let low = sorted.get(below as usize)?;
    let high = sorted.get(above as usize)?;
    Some(low + (high - low) * (place - below))
}

/// The k of the interval: the greatest whose chance to miss is small enough, from one.
fn rank(samples: usize) -> Option<usize> {
    let too_far = (1.0 - CONFIDENCE) / 2.0;
    // The chance that exactly `below` samples lie below the median, then the sum of these chances.
    let mut chance = 0.5_f64.powi(i32::try_from(samples).ok()?);
    let mut sum = 0.0;
    let mut rank = None;
    for below in 0..samples {
        sum += chance;
        if sum > too_far {
            break;
        }
        rank = Some(below + 1);
        chance *= (samples - below) as f64 / (below + 1) as f64;
    }
    rank
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_those_of_the_tables_of_the_sign_test() {
        // Conover, Practical Nonparametric Statistics: two-sided, 5 %.
        for (samples, expected) in [
            (0, None),
            (5, None),
            (6, Some(1)),
            (8, Some(1)),
            (9, Some(2)),
            (10, Some(2)),
            (12, Some(3)),
            (20, Some(6)),
            (25, Some(8)),
            (30, Some(10)),
            (50, Some(18)),
            (100, Some(40)),
        ] {
            assert_eq!(rank(samples), expected, "{samples}");
        }
    }

    #[test]
    fn twenty_samples_in_any_order_are_summed_up() {
        let samples: Vec<f64> = (1..=20).map(|number| f64::from(number * 7 % 20)).collect();
        let summary = Summary::of(&samples).unwrap();
        assert_eq!(summary.median, 9.5);
        assert_eq!(summary.interval, Some((5.0, 14.0)));
        assert_eq!(summary.quartiles, (4.75, 14.25));
    }

    #[test]
    fn few_samples_have_a_median_and_no_interval() {
        assert_eq!(Summary::of(&[]), None);
        let one = Summary { median: 3.0, interval: None, quartiles: (3.0, 3.0) };
        assert_eq!(Summary::of(&[3.0]), Some(one));
        assert_eq!(Summary::of(&[4.0, 1.0, 2.0]).unwrap().median, 2.0);
    }

    #[test]
    fn a_quantile_lies_between_its_neighbours() {
        let sorted: Vec<f64> = (0..=100).map(f64::from).collect();
        assert_eq!(quantile(&sorted, 0.99), Some(99.0));
        assert_eq!(quantile(&[1.0, 2.0], 0.25), Some(1.25));
        assert_eq!(quantile(&[], 0.5), None);
    }
}
