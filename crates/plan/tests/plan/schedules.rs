//! Learning rates, against values worked out by hand and closed formulas.

use std::f64::consts::PI;

use plan::{Schedule, ScheduleState, Train, preview};

fn train(schedule: &str, epochs: u32, learning_rate: f64) -> Train {
    let text = format!("[train]\nschedule = {schedule}\nepochs = {epochs}\nlearning_rate = {learning_rate:?}");
    crate::sound(&text, &[]).settings.train
}

/// The rate at the start of each epoch, 4 steps an epoch.
#[track_caller]
fn check(schedule: &str, epochs: u32, learning_rate: f64, expected: &[f64]) {
    let rates = preview(&train(schedule, epochs, learning_rate), 4);
    assert_eq!(rates.len(), expected.len(), "{schedule}");
    for (epoch, (rate, expected)) in rates.iter().zip(expected).enumerate() {
        assert!(
            (rate - expected).abs() <= 1e-15 + 1e-12 * expected,
            "{schedule}, epoch {epoch}: {rate} is not {expected}"
        );
    }
}

#[test]
fn constant() {
    check("\"constant\"", 3, 0.3, &[0.3; 3]);
}

#[test]
fn book_is_lenet5s_table_and_ignores_the_base_rate() {
    let mut expected = vec![5e-4; 2];
    expected.extend([2e-4; 3]);
    expected.extend([5e-5; 4]);
    expected.extend([1e-5; 11]);
    check("\"book\"", 20, 0.3, &expected);
}

#[test]
fn table_keeps_its_last_rate() {
    let table =
        "{ kind = \"table\", steps = [{ epochs = 1, learning_rate = 0.5 }, { epochs = 2, learning_rate = 0.25 }] }";
    check(table, 5, 0.3, &[0.5, 0.25, 0.25, 0.25, 0.25]);
}

#[test]
fn step_divides_at_equal_distances() {
    check("{ kind = \"step\", every_epochs = 2 }", 6, 1.0, &[1.0, 1.0, 0.1, 0.1, 0.01, 0.01]);
    check("{ kind = \"step\", every_epochs = 1, factor = 0.5 }", 4, 0.8, &[0.8, 0.4, 0.2, 0.1]);
}

#[test]
fn cosine_goes_from_the_rate_to_the_minimum_step_by_step() {
    check("\"cosine\"", 4, 1.0, &[1.0, 0.5 + 0.5 * (PI / 4.0).cos(), 0.5, 0.5 + 0.5 * (3.0 * PI / 4.0).cos()]);
    check("{ kind = \"cosine\", minimum = 0.2 }", 2, 1.0, &[1.0, 0.6]);
    let state = ScheduleState::new(&train("{ kind = \"cosine\", minimum = 0.1 }", 3, 0.5), 7);
    for step in 0..21 {
        let expected = 0.1 + 0.4 * (1.0 + (PI * f64::from(step) / 21.0).cos()) / 2.0;
        assert!((state.learning_rate(step / 7, step % 7) - expected).abs() < 1e-15);
    }
}

#[test]
fn warmup_climbs_in_equal_parts_and_delays_the_curve() {
    let state = ScheduleState::new(&train("{ kind = \"constant\", warmup_epochs = 2 }", 3, 0.8), 4);
    for step in 0..8_u32 {
        let expected = 0.8 * f64::from(step + 1) / 8.0;
        assert!((state.learning_rate(step / 4, step % 4) - expected).abs() < 1e-15, "step {step}");
    }
    assert_eq!(state.learning_rate(2, 0), 0.8);
    check("{ kind = \"step\", every_epochs = 1, warmup_epochs = 1 }", 4, 1.0, &[0.25, 1.0, 0.1, 0.01]);
    check("{ kind = \"cosine\", warmup_epochs = 1 }", 3, 1.0, &[0.25, 1.0, 0.5]);
    check("{ kind = \"book\", warmup_epochs = 1 }", 5, 0.3, &[1.25e-4, 5e-4, 5e-4, 2e-4, 2e-4]);
}

#[test]
fn one_cycle_agrees_with_pytorch() {
    // torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1.0, total_steps=20), by its formula: the rate rises along a cosine from
    // 1/25 at step 0 to 1 at step 0.3 · 20 − 1 = 5, then falls to 1/25/10⁴ at step 19.
    let state = ScheduleState::new(&train("\"one-cycle\"", 5, 1.0), 4);
    let cosine = |start: f64, end: f64, share: f64| end + (start - end) / 2.0 * ((PI * share).cos() + 1.0);
    for step in 0..20_u32 {
        let at = f64::from(step);
        let expected = if step <= 5 { cosine(0.04, 1.0, at / 5.0) } else { cosine(1.0, 4e-6, (at - 5.0) / 14.0) };
        let rate = state.learning_rate(step / 4, step % 4);
        assert!((rate - expected).abs() < 1e-14, "step {step}: {rate} is not {expected}");
    }
    assert_eq!(state.learning_rate(0, 0), 0.04);
    assert_eq!(state.learning_rate(1, 1), 1.0);
    assert!((state.learning_rate(4, 3) - 4e-6).abs() < 1e-18);
}

#[test]
fn one_cycle_of_a_single_step_is_finite() {
    let state = ScheduleState::new(&train("\"one-cycle\"", 1, 1.0), 1);
    assert!(state.learning_rate(0, 0) > 0.0 && state.learning_rate(0, 0) <= 1.0);
}

/// Rates in force during each epoch, given the validation loss at each epoch's end.
fn run_plateau(state: &mut ScheduleState, first_epoch: u32, losses: &[f64]) -> Vec<f64> {
    let mut rates = Vec::new();
    for (epoch, loss) in (first_epoch..).zip(losses) {
        rates.push(state.learning_rate(epoch, 3));
        state.observe(*loss);
    }
    rates
}

const LOSSES: [f64; 9] = [1.0, 0.9, 0.9, 0.95, 0.8, 0.81, 0.82, f64::NAN, 0.9];

#[test]
fn plateau_divides_by_ten_when_the_loss_stops_falling() {
    let mut state = ScheduleState::new(&train("{ kind = \"plateau\", patience_epochs = 2 }", 9, 1.0), 4);
    let rates = run_plateau(&mut state, 0, &LOSSES);
    // 0.9 is equalled and missed: cut after the fourth epoch; 0.8 is missed by 0.81 and 0.82, then by no number at all and 0.9.
    assert_eq!(rates, [1.0, 1.0, 1.0, 1.0, 0.1, 0.1, 0.1, 0.1 * 0.1, 0.1 * 0.1]);
    assert_eq!(state.learning_rate(9, 0), 0.1 * 0.1 * 0.1);
}

#[test]
fn plateau_does_not_count_the_warmup() {
    let schedule = "{ kind = \"plateau\", patience_epochs = 1, warmup_epochs = 2 }";
    let mut state = ScheduleState::new(&train(schedule, 5, 1.0), 4);
    let rates = run_plateau(&mut state, 0, &[1.0, 2.0, 2.0, 2.0, 2.0]);
    assert_eq!(rates, [0.5, 1.0, 1.0, 0.1, 0.1 * 0.1]);
}

#[test]
fn plateau_goes_on_from_a_checkpoint_as_if_never_stopped() {
    let train = train("{ kind = \"plateau\", patience_epochs = 2, factor = 0.3 }", 9, 0.7);
    let mut whole = ScheduleState::new(&train, 4);
    let expected = run_plateau(&mut whole, 0, &LOSSES);
    for stop in 0..LOSSES.len() {
        let mut first = ScheduleState::new(&train, 4);
        let mut rates = run_plateau(&mut first, 0, &LOSSES[..stop]);
        let saved = serde_json::to_string(&first.state()).unwrap();
        let mut second = ScheduleState::new(&train, 4);
        second.restore(serde_json::from_str(&saved).unwrap());
        rates.extend(run_plateau(&mut second, stop as u32, &LOSSES[stop..]));
        assert_eq!(rates, expected, "stopped after {stop} epochs");
        assert_eq!(second, whole);
    }
}

#[test]
fn a_loss_comes_back_from_a_checkpoint_to_the_bit() {
    let mut state = ScheduleState::new(&train("\"plateau\"", 9, 0.7), 4);
    for loss in [2.0 / 3.0, 1.0 / 3.0, 0.1 + 0.2 - 0.1, 5e-324] {
        state.restore(plan::PlateauState::default());
        state.observe(loss);
        let saved = serde_json::to_string(&state.state()).unwrap();
        assert_eq!(
            serde_json::from_str::<plan::PlateauState>(&saved).unwrap().best_loss.map(f64::to_bits),
            Some(loss.to_bits())
        );
    }
}

#[test]
fn a_schedule_is_written_as_a_whole_table_and_reads_back() {
    for (text, expected) in [
        ("\"constant\"", r#"{"kind":"constant","warmup_epochs":0}"#),
        ("\"book\"", r#"{"kind":"book","warmup_epochs":0}"#),
        (
            "{ kind = \"table\", steps = [{ epochs = 1, learning_rate = 1 }] }",
            r#"{"kind":"table","steps":[{"epochs":1,"learning_rate":1.0}],"warmup_epochs":0}"#,
        ),
        ("{ kind = \"step\", every_epochs = 3 }", r#"{"kind":"step","every_epochs":3,"factor":0.1,"warmup_epochs":0}"#),
        ("\"plateau\"", r#"{"kind":"plateau","factor":0.1,"patience_epochs":3,"warmup_epochs":0}"#),
        ("{ warmup_epochs = 2, kind = \"cosine\" }", r#"{"kind":"cosine","minimum":0.0,"warmup_epochs":2}"#),
        (
            "\"one-cycle\"",
            r#"{"kind":"one-cycle","rise":0.3,"initial_divisor":25.0,"final_divisor":10000.0,"warmup_epochs":0}"#,
        ),
    ] {
        let schedule = train(text, 10, 0.1).schedule;
        let json = serde_json::to_string(&schedule).unwrap();
        assert_eq!(json, expected);
        assert_eq!(serde_json::from_str::<Schedule>(&json).unwrap(), schedule);
    }
    assert_eq!(serde_json::from_str::<Schedule>("\"cosine\"").unwrap().kind(), "cosine");
}

#[test]
fn noise_to_lose_is_the_fall_of_the_rate_that_is_to_come() {
    let noise = |text: &str| plan::noise_to_lose(&crate::sound(&format!("[train]\n{text}"), &[]).settings.train, 10);
    let near = |found: Vec<f64>, expected: &[f64]| {
        assert!(
            found.len() == expected.len() && found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12),
            "{found:?}, expected {expected:?}"
        );
    };
    let base = "epochs = 4\nbatch_size = 10\nlearning_rate = 0.4\nmomentum = 0.5\n";
    near(noise(&format!("{base}schedule = \"constant\"")), &[0.0; 4]);
    // η/(B(1 − μ)) is η/5: rates 0.4, 0.2, 0.1 and 0.05.
    let step = "schedule = { kind = \"step\", every_epochs = 1, factor = 0.5 }";
    near(noise(&format!("{base}{step}")), &[0.07, 0.03, 0.01, 0.0]);
    near(noise(&format!("{base}{step}\noptimizer = \"adam\"")), &[0.035, 0.015, 0.005, 0.0]);
    // What has not begun to fall yet is to fall: a rate that rises first.
    let table = "schedule = { kind = \"table\", steps = [{ epochs = 1, learning_rate = 0.1 }, { epochs = 2, learning_rate = 0.3 }, { epochs = 1, learning_rate = 0.2 }] }";
    near(noise(&format!("{base}{table}")), &[0.02, 0.02, 0.02, 0.0]);
    near(noise(&format!("{base}schedule = {{ kind = \"plateau\", patience_epochs = 1 }}")), &[0.0; 4]);
}
