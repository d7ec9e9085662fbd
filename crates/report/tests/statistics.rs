//! The statistics agree with scipy and statsmodels (`golden/statistics.py` made the cases).

use report::statistics::calibration::{calibration_error, reliability};
use report::statistics::importance::{best, chance_level, main_effect, ped_anova};
use report::statistics::{
    Estimate, holm, mcnemar, noncentral_t_cdf, paired_t, paired_t_power, pairs_needed, student_t_quantile, welch_t,
    wilcoxon_signed_rank,
};
use serde_json::Value;

fn golden() -> Value {
    serde_json::from_str(include_str!("golden/statistics.json")).expect("the golden file is JSON")
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().expect("an array").iter().map(number).collect()
}

fn rows(value: &Value) -> &[Value] {
    let rows = value.as_array().expect("an array");
    assert!(!rows.is_empty());
    rows
}

#[track_caller]
fn close(found: f64, expected: f64, tolerance: f64, what: &str) {
    let error = (found - expected).abs() / expected.abs().max(1e-3);
    assert!(error <= tolerance, "{what}: {found} instead of {expected}, relative error {error:e}");
}

#[test]
fn estimates_and_paired_tests_agree() {
    for case in rows(&golden()["paired"]) {
        let (a, b) = (numbers(&case["a"]), numbers(&case["b"]));
        let n = a.len();
        let estimate = Estimate::of(&a).unwrap();
        close(estimate.mean, number(&case["mean_a"]), 1e-12, "mean");
        close(estimate.std.unwrap(), number(&case["std_a"]), 1e-10, "standard deviation");
        let (low, high) = estimate.interval().unwrap();
        close(low, number(&case["interval_a"][0]), 1e-9, "lower end");
        close(high, number(&case["interval_a"][1]), 1e-9, "upper end");

        let t = paired_t(&a, &b).unwrap();
        assert_eq!(t.n, n);
        close(t.t, number(&case["t"]), 1e-9, "t");
        close(t.p, number(&case["p"]), 1e-9, "p of t");
        close(t.interval.0, number(&case["interval"][0]), 1e-9, "interval of the difference");
        close(t.interval.1, number(&case["interval"][1]), 1e-9, "interval of the difference");
        close(t.cohens_d, number(&case["cohens_d"]), 1e-9, "Cohen's d");

        let welch = welch_t(&a, &b).unwrap();
        close(welch.t, number(&case["welch_t"]), 1e-9, "Welch's t");
        close(welch.p, number(&case["welch_p"]), 1e-9, "p of Welch's t");
        close(welch.freedom, number(&case["welch_freedom"]), 1e-9, "degrees of freedom");

        let scale = number(&case["wilcoxon_scale"]);
        let rounded = |values: &[f64]| -> Vec<f64> {
            values.iter().map(|value| if scale > 0.0 { (value * scale).round() } else { *value }).collect()
        };
        let wilcoxon = wilcoxon_signed_rank(&rounded(&a), &rounded(&b)).unwrap();
        close(wilcoxon.statistic, number(&case["wilcoxon_statistic"]), 1e-12, "rank sum");
        close(wilcoxon.p, number(&case["wilcoxon_p"]), 1e-9, "p of Wilcoxon");
    }
}

#[test]
fn many_pairs_use_the_normal_approximation() {
    let golden = golden();
    let case = &golden["wilcoxon_many"];
    let wilcoxon = wilcoxon_signed_rank(&numbers(&case["a"]), &numbers(&case["b"])).unwrap();
    close(wilcoxon.statistic, number(&case["statistic"]), 1e-12, "rank sum");
    close(wilcoxon.p, number(&case["p"]), 1e-9, "p");
}

#[test]
fn mcnemar_agrees() {
    for case in rows(&golden()["mcnemar"]) {
        let result = mcnemar(case["only_first"].as_u64().unwrap(), case["only_second"].as_u64().unwrap());
        assert_eq!(result.exact, case["exact"].as_bool().unwrap());
        close(result.p, number(&case["p"]), 1e-9, &format!("McNemar of {case}"));
    }
}

#[test]
fn holm_agrees() {
    for case in rows(&golden()["holm"]) {
        let adjusted = holm(&numbers(&case["p"]));
        for (found, expected) in adjusted.iter().zip(numbers(&case["adjusted"])) {
            close(*found, expected, 1e-12, "Holm");
        }
    }
    assert!(holm(&[]).is_empty());
}

#[test]
fn distributions_and_power_agree() {
    let golden = golden();
    for case in rows(&golden["quantiles"]) {
        let t = student_t_quantile(number(&case["freedom"]), number(&case["probability"]));
        close(t, number(&case["t"]), 1e-9, &format!("quantile {case}"));
    }
    for case in rows(&golden["noncentral"]) {
        let p = noncentral_t_cdf(number(&case["t"]), number(&case["freedom"]), number(&case["delta"]));
        let expected = number(&case["p"]);
        assert!((p - expected).abs() < 1e-9, "noncentral t of {case}: {p}");
    }
    for case in rows(&golden["powers"]) {
        let pairs = usize::try_from(case["pairs"].as_u64().unwrap()).unwrap();
        let power = paired_t_power(number(&case["cohens_d"]), pairs, 0.05);
        assert!((power - number(&case["power"])).abs() < 1e-8, "power of {case}: {power}");
    }
    for case in rows(&golden["needed"]) {
        let pairs = usize::try_from(case["pairs"].as_u64().unwrap()).unwrap();
        assert_eq!(pairs_needed(number(&case["cohens_d"]), 0.05, 0.8), Some(pairs), "pairs for {case}");
    }
    assert_eq!(pairs_needed(0.001, 0.05, 0.8), None);
    assert_eq!(pairs_needed(0.0, 0.05, 0.8), None);
    assert_eq!(pairs_needed(f64::NAN, 0.05, 0.8), None);
}

#[test]
fn what_the_data_cannot_give_is_none() {
    assert_eq!(Estimate::of(&[]), None);
    assert_eq!(Estimate::of(&[f64::NAN]), None);
    let one = Estimate::of(&[0.5]).unwrap();
    assert_eq!((one.n, one.mean, one.std, one.interval()), (1, 0.5, None, None));
    assert_eq!(paired_t(&[0.9], &[0.8]), None);
    assert_eq!(paired_t(&[0.9, 0.8, 0.7], &[0.8, 0.7, 0.6]), None, "equal differences have no spread");
    assert_eq!(paired_t(&[0.9, 0.8], &[0.8]), None);
    assert_eq!(wilcoxon_signed_rank(&[0.5, 0.6], &[0.5, 0.6]), None);
    assert_eq!(welch_t(&[0.5], &[0.6, 0.7]), None);
}

#[test]
fn shares_of_variance_agree_with_statsmodels_and_ped_anova_with_its_definition() {
    let golden: Value = serde_json::from_str(include_str!("golden/importance.json")).unwrap();
    let rows = rows(&golden["rows"]);
    let levels = |key: &str| -> Vec<usize> { rows.iter().map(|row| row[key].as_u64().unwrap() as usize).collect() };
    let scores: Vec<f64> = rows.iter().map(|row| number(&row["score"])).collect();
    let best = best(&scores).unwrap();
    assert_eq!(best.iter().filter(|best| **best).count(), 6, "a tenth of 60");
    let mut explained = 0.0;
    for key in ["rate", "decay"] {
        let share = main_effect(&levels(key), &scores).unwrap();
        close(share, number(&golden["shares"][key]), 1e-9, key);
        explained += share;
        let found = ped_anova(&levels(key), &best).unwrap();
        close(found, number(&golden["ped_anova"][key]), 1e-9, key);
        // By brute force: the variance of "is among the best" that the levels explain.
        let indicator: Vec<f64> = best.iter().map(|best| f64::from(u8::from(*best))).collect();
        close(found, main_effect(&levels(key), &indicator).unwrap(), 1e-9, "as a share of variance");
    }
    let cells: Vec<usize> = levels("rate").iter().zip(levels("decay")).map(|(rate, decay)| 3 * rate + decay).collect();
    let between = main_effect(&cells, &scores).unwrap();
    close(between - explained, number(&golden["shares"]["together"]), 1e-9, "interactions");
    close(1.0 - between, number(&golden["shares"]["seeds"]), 1e-9, "seeds");
}

#[test]
fn shuffled_levels_explain_what_chance_gives() {
    // For k levels over n normal scores, the share has the mean (k − 1)/(n − 1) and a Beta distribution, whose 95 % quantile for
    // k = 2 and n = 40 is that of t² with 38 degrees of freedom: 4.098/(4.098 + 38) = 0.097.
    let scores: Vec<f64> = (0..40).map(|index| student_t_quantile(200.0, (f64::from(index) + 0.5) / 40.0)).collect();
    let levels: Vec<usize> = (0..40).map(|index| index % 2).collect();
    let chance = chance_level(&levels, |levels| main_effect(levels, &scores)).unwrap();
    assert!((0.06..0.14).contains(&chance), "{chance}");
    assert_eq!(chance_level(&levels, |levels| main_effect(levels, &scores)), Some(chance), "always the same");
}

#[test]
fn the_best_are_a_tenth_and_at_least_five_and_never_half() {
    let scores = |n: usize| -> Vec<f64> { (0..n).map(|index| index as f64).collect() };
    let count = |scores: &[f64]| best(scores).map(|best| best.iter().filter(|best| **best).count());
    assert_eq!(count(&scores(100)), Some(10));
    assert_eq!(count(&scores(20)), Some(5));
    assert_eq!(count(&scores(10)), None, "five of ten are half");
    assert_eq!(count(&scores(3)), None);
    assert_eq!(count(&[1.0; 100]), None, "all tie");
}

#[test]
fn calibration_by_hand() {
    // Bins of 0.9 (3 images, 2 right), 0.5 (3 images, 1 right), 0.7 (1 image, right), as pipeline evaluate has it.
    let confidences = [0.9, 0.9, 0.9, 0.5, 0.5, 0.7, 0.5];
    let right = [true, true, false, false, true, true, false];
    let bins = reliability(&confidences, &right);
    assert_eq!(bins.iter().map(|bin| bin.images).collect::<Vec<_>>()[7..14], [3, 0, 0, 1, 0, 0, 3]);
    let expected = ((2.7_f64 - 2.0).abs() + (1.5_f64 - 1.0).abs() + (0.7_f64 - 1.0).abs()) / 7.0;
    close(calibration_error(&bins).unwrap(), expected, 1e-12, "ECE");
    let edges = reliability(&[0.0, 1.0], &[false, true]);
    assert_eq!((edges[0].images, edges[14].images), (1, 1));
    assert_eq!(calibration_error(&reliability(&[], &[])), None);
}
