//! The statistics agree with scipy, statsmodels and Optuna (`golden/statistics.py` and `golden/importance.py` made the cases).

use std::collections::BTreeMap;

use report::statistics::calibration::{calibration_error, reliability};
use report::statistics::importance::{Key, Shares, best, shares};
use report::statistics::{
    Estimate, holm, mcnemar, noncentral_t_cdf, paired_t, paired_t_power, pairs_needed, student_t_quantile,
    variance_explained, welch_t, wilcoxon_signed_rank,
};
use serde_json::Value;
use store::Distribution;

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

/// A study of Optuna: its keys, and for each objective the scores and what Optuna says.
fn study(of: &Value) -> (Vec<(String, Key)>, Vec<&Value>) {
    let params = rows(&of["params"]);
    let keys = of["distributions"].as_object().unwrap().iter().map(|(name, described)| {
        let (log, real) = (described["log"] == true, |end: &str| described[end].as_f64().unwrap());
        let distribution = match described["kind"].as_str() {
            Some("float") => Distribution::Float { low: real("low"), high: real("high"), log },
            Some(_) => Distribution::Integer { low: real("low") as i64, high: real("high") as i64, log },
            None => Distribution::Choice(described["choices"].as_array().unwrap().clone()),
        };
        let values: Vec<Option<&Value>> = params.iter().map(|params| params.get(name)).collect();
        (name.clone(), Key::new(&distribution, &values).unwrap())
    });
    (keys.collect(), of["objectives"].as_array().unwrap().iter().collect())
}

#[test]
fn importances_are_those_of_optuna() {
    let golden: Value = serde_json::from_str(include_str!("golden/importance.json")).unwrap();
    for name in ["grid", "tpe", "two_objectives"] {
        let (named, objectives) = study(&golden[name]);
        let keys: Vec<Key> = named.iter().map(|(_, key)| key.clone()).collect();
        for objective in objectives {
            let scores: Vec<Vec<f64>> =
                objective["scores"].as_array().unwrap().iter().map(|score| vec![number(score)]).collect();
            let found = shares(&keys, &scores);
            for ((key, _), found) in named.iter().zip(&found) {
                let what = format!("{name}, {key}");
                close(found.best.unwrap(), number(&objective["ped_anova"][key]), 1e-9, &what);
                let forest = &objective["fanova"][key];
                assert_eq!(found.variance.is_some(), forest.is_object(), "{what}: keys that do not exist everywhere");
                if let Some(share) = found.variance {
                    // As far from the mean of Optuna's 30 seeds as those are from each other.
                    let (mean, std) = (number(&forest["mean"]), number(&forest["std"]));
                    assert!((share - mean).abs() <= 3.0 * std, "{what}: {share} where Optuna has {mean} ± {std}");
                }
            }
            assert_eq!(shares(&keys, &scores), found, "always the same");
        }
    }
}

#[test]
fn the_variance_between_seeds_is_that_of_statsmodels() {
    let golden: Value = serde_json::from_str(include_str!("golden/importance.json")).unwrap();
    let mut groups: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    let scores = golden["grid"]["objectives"][0]["scores"].as_array().unwrap();
    for (params, score) in golden["grid"]["params"].as_array().unwrap().iter().zip(scores) {
        groups.entry(params.to_string()).or_default().push(number(score));
    }
    let between = variance_explained(&groups.into_values().collect::<Vec<_>>()).unwrap();
    close(1.0 - between, number(&golden["anova"]["seeds"]), 1e-9, "seeds");
}

#[test]
fn what_has_no_effect_is_not_above_chance_and_what_has_is() {
    // A grid of 6 × 6 × 6 with two seeds: the first key matters, the others do not.
    let choices: Vec<Value> = (0..6).map(Value::from).collect();
    let points: Vec<[usize; 3]> = (0..216).map(|at| [at / 36, at / 6 % 6, at % 6]).collect();
    let keys: Vec<Key> = (0..3)
        .map(|key| {
            let values: Vec<Option<&Value>> = points.iter().map(|point| Some(&choices[point[key]])).collect();
            Key::new(&Distribution::Choice(choices.clone()), &values).unwrap()
        })
        .collect();
    // Quantiles of the normal distribution in an order that has nothing to do with the keys.
    let noise = |at: usize| student_t_quantile(200.0, ((at * 263 % 433) as f64 + 0.5) / 433.0);
    let scores: Vec<Vec<f64>> = points
        .iter()
        .enumerate()
        .map(|(at, point)| (0..2).map(|seed| 0.5 * point[0] as f64 + noise(2 * at + seed)).collect())
        .collect();
    let found = shares(&keys, &scores);
    let is_above = |shares: &Shares| (shares.variance > shares.variance_by_chance, shares.best > shares.best_by_chance);
    assert_eq!(is_above(&found[0]), (true, true), "{found:?}");
    assert_eq!(is_above(&found[1]), (false, false), "{found:?}");
    assert_eq!(is_above(&found[2]), (false, false), "{found:?}");
    let merged: Vec<Vec<f64>> = scores.iter().map(|_| vec![0.5, 0.5]).collect();
    assert_eq!(shares(&keys, &merged), vec![Shares::default(); 3], "nothing differs");
}

#[test]
fn the_best_are_a_tenth_with_ties_as_optuna_has_them() {
    let scores = |n: usize| -> Vec<f64> { (0..n).map(|index| index as f64).collect() };
    let count = |scores: &[f64]| best(scores).map(|best| best.iter().filter(|best| **best).count());
    assert_eq!(count(&scores(100)), Some(10));
    assert_eq!(count(&scores(11)), Some(2));
    assert_eq!(count(&scores(10)), None, "one run is no distribution");
    let mut ties = scores(40);
    ties[36..].fill(39.0);
    ties[34..36].fill(36.0);
    assert_eq!(count(&ties), Some(4));
    ties[30..].fill(39.0);
    assert_eq!(count(&ties), Some(10), "those that tie with the last");
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
