//! Pages of synthetic studies: what they say, what they escape, how long they take.

mod common;

use std::path::Path;
use std::time::Instant;

use common::{Size, golden, study, with_images};
use report::study::{Status, Study};
use report::{Written, write_study};

fn written(study: &Study) -> (tempfile::TempDir, Written) {
    let folder = tempfile::tempdir().unwrap();
    let written = write_study(study, folder.path()).unwrap();
    // For eyes: REPORT_KEEP names a folder where the pages stay.
    if let Ok(keep) = std::env::var("REPORT_KEEP") {
        let name = std::thread::current().name().unwrap_or("page").replace("::", "-");
        write_study(study, &Path::new(&keep).join(name)).unwrap();
    }
    (folder, written)
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn a_full_study_is_as_before() {
    let (_folder, written) = written(&with_images(study(&Size::default())));
    golden("full.md", &read(&written.markdown));
    golden("full.txt", &written.summary);
    golden("full.html", &read(&written.html));
    assert_eq!(written.plots.len(), 22, "{:?}", written.plots);
    assert_eq!(written.frames.len(), 16);
}

#[test]
fn the_page_needs_nothing_from_outside() {
    let (_folder, written) = written(&with_images(study(&Size::default())));
    let html = read(&written.html);
    for outside in ["<script", "<link", "<img", "src=", "@import", "url("] {
        assert!(!html.contains(outside), "{outside}");
    }
    let addresses = html.matches("http").count() - html.matches("http://www.w3.org/2000/svg").count();
    assert_eq!(addresses, html.matches("http-equiv").count());
    let addresses: Vec<&str> = html.split("href=\"").skip(1).collect();
    assert!(addresses.iter().all(|address| address.starts_with('#') || address.starts_with("data:image/png;base64,")));
    assert!(html.contains("prefers-color-scheme: dark") && html.contains("@media print"));
}

#[test]
fn hostile_names_show_as_text() {
    let hostile = "<script>alert('1')</script>\"&\n| `x` \u{202e}txt\u{0} 🦀 *b* שלום '; DROP TABLE runs; --";
    let mut study = with_images(study(&Size { seeds: 2, ..Size::default() }));
    study.experiments[0].name = hostile.into();
    study.experiments[0].question = hostile.into();
    study.experiments[0].command = format!("pipeline sweep '{hostile}'");
    for run in &mut study.runs {
        if run.architecture == "alexnet" {
            run.architecture = hostile.into();
            run.variant = Some(hostile.into());
        }
        run.label = hostile.into();
        run.provenance.device = hostile.into();
        run.assignments.push((format!("model.{hostile}"), serde_json::json!(hostile)));
    }
    study.runs[0].status = Status::Failed;
    study.runs[0].error = Some(hostile.into());
    for predictions in study.predictions.values_mut() {
        predictions.classes[0] = hostile.into();
    }
    let (_folder, written) = written(&study);
    let html = read(&written.html);
    assert!(!html.contains("<script") && html.contains("&lt;script&gt;"));
    let markdown = read(&written.markdown);
    // Between backticks it is text as it stands.
    assert!(markdown.lines().all(|line| line.starts_with("- `") || !line.contains("<script")));
    for text in [&html, &markdown, &written.summary] {
        assert!(!text.contains('\u{202e}') && !text.contains('\u{0}') && text.contains('🦀'));
    }
    for line in markdown.lines().filter(|line| line.starts_with('|')) {
        assert!(line.ends_with('|'), "a name broke the table: {line}");
    }
    for plot in &written.plots {
        let svg = read(plot);
        assert!(!svg.contains("<script") && !svg.contains(['\u{0}', '\u{202e}']), "{}", plot.display());
    }
}

#[test]
fn one_network_is_compared_with_itself() {
    let mut study = study(&Size::default());
    study.runs.retain(|run| run.architecture == "lenet5");
    let (_folder, written) = written(&study);
    assert!(written.summary.starts_with("LeNet-5 reaches "), "{}", written.summary);
    assert!(written.summary.contains("test accuracy over 5 seeds"), "{}", written.summary);
    assert!(!written.summary.contains("AlexNet"));
}

#[test]
fn one_seed_gives_no_interval() {
    let mut study = study(&Size { seeds: 1, ..Size::default() });
    let (_folder, with_predictions) = written(&study);
    assert!(with_predictions.summary.contains("n = 1"), "{}", with_predictions.summary);
    assert!(!with_predictions.summary.contains('±') || !with_predictions.summary.contains(" ± 0"));
    assert!(!with_predictions.summary.contains("is better than"));
    study.predictions.clear();
    let (_folder, without) = written(&study);
    assert!(without.summary.contains("one seed (n = 1) gives no interval and no test"), "{}", without.summary);
}

#[test]
fn a_difference_that_may_be_chance_is_called_so() {
    // By hand: differences 0.01, 0.03, -0.01 have mean 0.01 and standard deviation 0.02, so t = 0.01/(0.02/√3) = 0.866,
    // d = 0.5; the t-test needs 34 pairs for a power of 0.8, 31 more than there are.
    let mut study = study(&Size { lambdas: vec![0.0], schedules: vec!["constant"], seeds: 3, epochs: 2, images: 0 });
    for run in &mut study.runs {
        let first = run.architecture == "alexnet";
        let top1 = match (first, run.seed) {
            (true, 1) => 0.91,
            (true, 2) => 0.93,
            (true, _) => 0.89,
            (false, _) => 0.90,
        };
        run.test.as_mut().unwrap().top1 = top1;
    }
    let (_folder, written) = written(&study);
    let summary = written.summary;
    assert!(
        summary.starts_with("Inconclusive: AlexNet is ahead of LeNet-5 with 91.00 % against 90.00 % test accuracy"),
        "{summary}"
    );
    assert!(summary.contains("+1.00 percentage points (95 % interval −3.97 to +5.97; 3 paired seeds)"), "{summary}");
    assert!(summary.contains("p = 0.48") && summary.contains("about 31 more seeds would decide it"), "{summary}");
}

#[test]
fn seeds_that_are_not_shared_are_not_paired() {
    let mut study = study(&Size { lambdas: vec![0.0], schedules: vec!["constant"], ..Size::default() });
    for run in &mut study.runs {
        if run.architecture == "alexnet" {
            run.seed += 100;
        }
    }
    let (_folder, unpaired) = written(&study);
    assert!(unpaired.summary.contains("5 and 5 unpaired seeds"), "{}", unpaired.summary);
    // 21,530,112 of 416,520 operations; 9,200 of 610 images/s.
    let cost = "AlexNet takes 52 times the operations per image and 15 times the training time of LeNet-5";
    assert!(unpaired.summary.contains(cost), "{}", unpaired.summary);
    assert!(unpaired.summary.contains("Welch's t-test"), "{}", unpaired.summary);

    for run in &mut study.runs {
        if run.architecture == "alexnet" {
            run.provenance.data_fingerprint = "0123".into();
            run.provenance.cpu = "Another CPU".into();
        }
    }
    let (_folder, elsewhere) = written(&study);
    assert!(elsewhere.summary.contains("were not tested on the same data"), "{}", elsewhere.summary);
    // Nor are their seeds pairs, whatever their numbers: the difference is that of the means.
    for run in study.runs.iter_mut().filter(|run| run.architecture == "alexnet") {
        run.seed = run.seed - 100 + 3;
    }
    let (_folder, unlike) = written(&study);
    assert!(unlike.summary.contains("5 and 5 unpaired seeds"), "{}", unlike.summary);
    let number = |from: &str| -> f64 {
        let rest = &unlike.summary[unlike.summary.find(from).unwrap() + from.len()..];
        rest.split(' ').next().unwrap().parse().unwrap()
    };
    let difference = number("AlexNet has ") - number(" % against ") - number("test accuracy, +");
    assert!(difference.abs() < 0.011, "{}", unlike.summary);
    assert!(!elsewhere.summary.contains("is better than"), "{}", elsewhere.summary);
    assert!(elsewhere.summary.contains("52 times the operations per image of LeNet-5"), "{}", elsewhere.summary);
}

#[test]
fn variants_of_one_architecture_compete_by_name() {
    let mut study = study(&Size { lambdas: vec![0.0], schedules: vec!["constant"], ..Size::default() });
    for run in &mut study.runs {
        run.variant = Some(if run.architecture == "alexnet" { "with-lrn" } else { "with-batch" }.into());
        run.architecture = "alexnet".into();
    }
    let (_folder, written) = written(&study);
    assert!(written.summary.contains("with-lrn is better than with-batch"), "{}", written.summary);
}

#[test]
fn unfinished_runs_are_told() {
    let mut study = study(&Size { seeds: 2, ..Size::default() });
    study.waiting = 3;
    study.runs[0].status = Status::Failed;
    study.runs[0].error = Some("not-finite: loss is NaN".into());
    study.runs[1].status = Status::Running;
    study.runs[2].status = Status::Interrupted;
    let (_folder, with_some) = written(&study);
    assert!(with_some.summary.contains("45 done, 1 running, 1 interrupted, 1 failed, 3 not started"));
    assert!(read(&with_some.markdown).contains("not-finite: loss is NaN"));
}

#[test]
fn where_nothing_has_finished_the_page_says_why() {
    let mut study = study(&Size { seeds: 2, ..Size::default() });
    for run in &mut study.runs {
        run.status = Status::Failed;
        run.error = Some("not-finite: loss is NaN".into());
    }
    let (_folder, failed) = written(&study);
    assert!(
        failed.summary.starts_with("There is no answer yet: no run has finished (48 failed)."),
        "{}",
        failed.summary
    );
    assert!(failed.summary.contains("--retry-failed"), "{}", failed.summary);
    assert!(read(&failed.html).contains("not-finite: loss is NaN"));

    study.runs.clear();
    study.waiting = 12;
    let (_folder, waiting) = written(&study);
    assert!(waiting.summary.contains("12 not started") && waiting.summary.contains("goes on where it stopped"));
    (study.waiting, study.experiments[0].trials) = (0, 0);
    let (_folder, empty) = written(&study);
    assert!(empty.summary.contains("no trial was planned"), "{}", empty.summary);
    let html = read(&empty.html);
    assert!(!html.contains("id=\"comparison\"") && !html.contains("<tbody>\n</tbody>"), "no empty tables");
}

#[test]
fn other_states_are_told_by_their_names() {
    let mut study = study(&Size::default());
    for (index, run) in study.runs.iter_mut().enumerate() {
        run.status = match index % 6 {
            0 => Status::named("pruned"),
            1 => Status::named("on-holiday"),
            _ => Status::Done,
        };
    }
    let (_folder, written) = written(&study);
    assert!(written.summary.contains("80 done, 20 pruned, 20 on-holiday."), "{}", written.summary);
    let html = read(&written.html);
    assert!(html.contains("<bdi>pruned</bdi>") && html.contains("<bdi>on-holiday</bdi>"));
}

#[test]
fn a_search_over_many_values_says_what_matters() {
    // Accuracy depends on the learning rate alone; dropout is drawn as well and does nothing.
    let size = Size { lambdas: vec![0.0], schedules: vec!["constant"], seeds: 60, epochs: 1, images: 0 };
    let mut study = study(&size);
    study.runs.retain(|run| run.architecture == "lenet5");
    for (index, run) in study.runs.iter_mut().enumerate() {
        let (rate, dropout) =
            (10_f64.powf(-4.0 + 4.0 * common::noise(1, index as u64, 0)), common::noise(2, index as u64, 0));
        run.configuration = format!("c{index}");
        run.assignments = vec![("train.learning_rate".into(), rate.into()), ("model.dropout".into(), dropout.into())];
        run.epochs[0].validation_top1 = Some(0.95 - 0.1 * (rate.log10() + 2.0).powi(2));
    }
    let (_folder, written) = written(&study);
    let text = read(&written.markdown);
    let row = |key: &str| -> Vec<f64> {
        let line = text.lines().find(|line| line.contains(key) && line.contains("| 60 |")).unwrap();
        line.split('|').filter_map(|cell| cell.trim().strip_suffix(" %")?.parse().ok()).collect()
    };
    let (rate, dropout) = (row("learning\\_rate"), row("model.dropout"));
    // A forest that is shown noise shares it out among the keys, so chance is far from nothing with two of them.
    assert!(rate[0] > 95.0 && rate[0] > rate[1] + 20.0, "the rate explains nearly everything: {rate:?}");
    assert!(dropout[0] <= dropout[1] + 5.0, "dropout is within chance: {dropout:?}");
    assert!(rate[2] > rate[3] && dropout[2] < rate[2], "PED-ANOVA agrees: {rate:?} {dropout:?}");
    assert!(written.plots.iter().any(|plot| plot.ends_with("parallel-lenet-5.svg")));
    assert!(text.contains("the points are not joined"), "drawn values are not on one line");
    // Twelve of them would fit into a heat map, and fill a twelfth of it.
    let mut dozen = study.clone();
    dozen.runs.truncate(12);
    let (_folder, dozen) = self::written(&dozen);
    assert!(dozen.plots.iter().any(|plot| plot.ends_with("parallel-lenet-5.svg")));
    assert!(!dozen.plots.iter().any(|plot| plot.ends_with("heat-lenet-5.svg")), "a heat map of gaps");
    // Nor are those of a key that few configurations have.
    for (index, run) in study.runs.iter_mut().enumerate() {
        if index < 8 {
            run.assignments.push(("train.momentum".into(), (0.5 + 0.05 * index as f64).into()));
        }
    }
    let (_folder, few) = self::written(&study);
    let text = read(&few.markdown);
    let caption = text.lines().find(|line| line.contains("against momentum")).unwrap();
    assert!(caption.contains("the points are not joined"), "{caption}");
}

#[test]
fn numbers_that_are_missing_break_nothing() {
    let mut study = study(&Size { seeds: 2, epochs: 3, ..Size::default() });
    for (index, run) in study.runs.iter_mut().enumerate() {
        match index % 4 {
            0 => run.test = None,
            1 => run.epochs.clear(),
            2 => {
                for epoch in &mut run.epochs {
                    (epoch.validation_top1, epoch.validation_loss) = (None, None);
                    epoch.train_loss = f64::NAN;
                }
            }
            _ => (run.parameters, run.macs_per_image, run.provenance.threads) = (None, None, None),
        }
    }
    let (_folder, written) = written(&study);
    let html = read(&written.html);
    assert!(!html.contains("NaN") && !html.contains("inf "), "{}", written.summary);
}

#[test]
fn a_thousand_trials_make_a_page() {
    let lambdas = (0..10).map(|index| 1e-5 * 2_f64.powi(index)).collect();
    let schedules = vec!["constant", "step", "cosine", "book", "linear", "plateau", "cyclic", "warm", "poly", "exp"];
    let study = study(&Size { lambdas, schedules, seeds: 5, epochs: 100, images: 0 });
    assert_eq!(study.runs.len(), 1000);
    let folder = tempfile::tempdir().unwrap();
    let start = Instant::now();
    let written = write_study(&study, folder.path()).unwrap();
    println!("1,000 trials × 100 epochs: page written in {:.2} s", start.elapsed().as_secs_f64());
    let size = std::fs::metadata(&written.html).unwrap().len();
    assert!(size < 2_000_000, "the page has {size} bytes");
}
