//! Pages of a fixed synthetic study.

mod common;

use std::path::Path;
use std::time::Instant;

use common::{Size, study};
use report::study::{Status, Study};
use report::{ReportError, Written, write_study};

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
fn a_full_study_answers_first() {
    let (_folder, written) = written(&study(&Size::default()));
    let html = read(&written.html);
    println!("{}", written.summary);
    assert!(html.contains("AlexNet is better than LeNet-5"), "{}", written.summary);
    assert!(written.plots.len() >= 10, "{:?}", written.plots);
    assert_eq!(written.frames.len(), 8);
}
