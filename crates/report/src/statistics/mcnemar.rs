//! McNemar's test: do two classifiers err on different images of one test part?

use statrs::distribution::{Binomial, ChiSquared, ContinuousCDF, DiscreteCDF};

/// Below so many discordant images the exact binomial test is used, from there on χ² with continuity correction.
const EXACT_BELOW: u64 = 25;

/// Result of McNemar's test.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct McNemar {
    /// Images that only the first classifier gets right.
    pub only_first: u64,
    /// Images that only the second classifier gets right.
    pub only_second: u64,
    /// Two-sided p-value.
    pub p: f64,
    /// Whether the exact binomial distribution was used.
    pub exact: bool,
}

/// McNemar's test of the discordant counts (McNemar 1947; continuity correction: Edwards 1948).
/// The correction never overshoots: equal counts give p = 1.
pub fn mcnemar(only_first: u64, only_second: u64) -> McNemar {
    let discordant = only_first + only_second;
    let exact = discordant < EXACT_BELOW;
    let p = if discordant == 0 {
        1.0
    } else if exact {
        Binomial::new(0.5, discordant)
            .map_or(1.0, |binomial| (2.0 * binomial.cdf(only_first.min(only_second))).min(1.0))
    } else {
        let difference = (only_first.abs_diff(only_second) as f64 - 1.0).max(0.0);
        let statistic = difference * difference / discordant as f64;
        ChiSquared::new(1.0).map_or(1.0, |distribution| distribution.sf(statistic))
    };
    McNemar { only_first, only_second, p, exact }
}
