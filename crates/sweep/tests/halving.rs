//! Successive halving on recorded learning curves: `golden/lenet5_halving.csv` has the 25 configurations of
//! `experiments/lenet5-halving.toml`, each trained in full with seeds 101 to 130, which had no part in choosing the rule or its defaults.
//! Three seeds are a group: what one sweep would have seen. Losses are means over the seeds of a group after 3 and 9 epochs, accuracies
//! are each seed's after the 15th, all of the validation part.

use sweep::halving::{Noise, Progress, Verdict, rungs, verdicts};

const EPOCHS: u32 = 15;
const FIRST: u32 = 3;
const REDUCTION: u32 = 3;

struct Row {
    weight_decay: f64,
    learning_rate: f64,
    /// After the epochs of the rungs.
    losses: [f64; 2],
    top1: [f64; 3],
}

impl Row {
    fn mean(&self) -> f64 {
        self.top1.iter().sum::<f64>() / 3.0
    }

    /// Standard error of the mean.
    fn error(&self) -> f64 {
        let squares: f64 = self.top1.iter().map(|top1| (top1 - self.mean()).powi(2)).sum();
        (squares / 2.0 / 3.0).sqrt()
    }
}

fn groups() -> Vec<Vec<Row>> {
    let mut groups: Vec<(f64, Vec<Row>)> = Vec::new();
    for line in include_str!("golden/lenet5_halving.csv").lines().skip(1) {
        let number: Vec<f64> = line.split(',').map(|field| field.parse().unwrap()).collect();
        let [group, weight_decay, learning_rate, loss_3, loss_9, a, b, c] = number[..] else { panic!("{line}") };
        if groups.last().is_none_or(|(last, _)| *last != group) {
            groups.push((group, Vec::new()));
        }
        let row = Row { weight_decay, learning_rate, losses: [loss_3, loss_9], top1: [a, b, c] };
        groups.last_mut().unwrap().1.push(row);
    }
    groups.into_iter().map(|(_, rows)| rows).collect()
}

/// What was left standing of a group, and the epochs that were trained.
fn halve(rows: &[Row], knows_noise: bool) -> (Vec<usize>, u32) {
    let rungs = rungs(FIRST, REDUCTION, EPOCHS);
    assert_eq!(rungs, [3, 9, 15]);
    let rate = |row: &Row, epoch: u32| {
        0.5 * row.learning_rate * (1.0 + (std::f64::consts::PI * f64::from(epoch) / f64::from(EPOCHS)).cos())
    };
    let mut field: Vec<Progress> = rows
        .iter()
        .map(|row| {
            let to_lose = (0..EPOCHS).map(|epoch| rate(row, epoch) - rate(row, EPOCHS - 1)).collect();
            let noise = if knows_noise {
                Noise { group: 0, to_lose, weight_decay: row.weight_decay }
            } else {
                Noise::default()
            };
            Progress { noise, ..Progress::default() }
        })
        .collect();
    // Between the rungs nothing is asked; the values there are of no account.
    for (place, &rung) in rungs.iter().enumerate() {
        let verdict = verdicts(&field, &rungs, REDUCTION);
        for ((progress, row), verdict) in field.iter_mut().zip(rows).zip(verdict) {
            if verdict == Verdict::Until(rung) {
                progress.values.resize(rung as usize, row.losses.get(place).copied().unwrap_or(0.0));
                progress.ahead = rung as usize;
            }
        }
    }
    let left = (0..rows.len()).filter(|index| field[*index].ahead == EPOCHS as usize).collect();
    (left, field.iter().map(|progress| progress.ahead as u32).sum())
}

/// In how many groups the best configuration was kept, in how many one within a standard error of it, and what was lost of the accuracy
/// on average.
fn judge(knows_noise: bool) -> (usize, usize, f64) {
    let (mut exactly, mut nearly, mut lost) = (0, 0, 0.0);
    let groups = groups();
    for rows in &groups {
        let (left, epochs) = halve(rows, knows_noise);
        let all = EPOCHS * rows.len() as u32;
        assert!(epochs * 10 <= all * 4, "{epochs} of {all} epochs were trained");
        let best = (0..rows.len()).max_by(|a, b| rows[*a].mean().total_cmp(&rows[*b].mean())).unwrap();
        let kept = left.iter().map(|index| rows[*index].mean()).fold(0.0, f64::max);
        exactly += usize::from(left.contains(&best));
        nearly += usize::from(kept >= rows[best].mean() - rows[best].error());
        lost += (rows[best].mean() - kept) / groups.len() as f64;
    }
    (exactly, nearly, lost)
}

#[test]
fn configurations_that_a_schedule_will_yet_improve_are_kept() {
    let (plain, knowing) = (judge(false), judge(true));
    println!("by values alone {plain:?}, knowing the schedule {knowing:?}");
    assert!(knowing.0 > plain.0 && knowing.1 > plain.1 && knowing.2 < plain.2, "{plain:?}, {knowing:?}");
    // Of ten groups, as they came out when the rule was judged.
    assert_eq!((plain.0, plain.1), (3, 7));
    assert_eq!((knowing.0, knowing.1), (9, 10));
}
