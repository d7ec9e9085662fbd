//! The rules of the house, kept by the repository itself.

use std::path::{Path, PathBuf};

use crate::workplace::Workplace;

pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

/// Name and direct dependencies of every package of the workspace; tests' dependencies only if asked for.
fn packages(with_tests: bool) -> Vec<(String, Vec<String>)> {
    let crates = std::fs::read_dir(root().join("crates")).unwrap().map(|entry| entry.unwrap().path());
    let mut packages: Vec<_> = crates
        .chain([root().join("pipeline")])
        .map(|folder| {
            let text = std::fs::read_to_string(folder.join("Cargo.toml")).unwrap();
            let manifest: toml::Table = text.parse().unwrap();
            let mut dependencies = Vec::new();
            for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
                if let (Some(table), true) = (manifest.get(section), with_tests || section == "dependencies") {
                    dependencies.extend(table.as_table().unwrap().keys().cloned());
                }
            }
            (folder.file_name().unwrap().to_string_lossy().into_owned(), dependencies)
        })
        .collect();
    packages.sort();
    packages
}

fn who_depends_on(dependency: &str) -> Vec<String> {
    let depends = |(_, dependencies): &(String, Vec<String>)| dependencies.iter().any(|name| name == dependency);
    packages(true).into_iter().filter(depends).map(|(name, _)| name).collect()
}

/// Source files below a folder.
fn sources(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

#[test]
fn only_store_knows_sql_and_only_report_knows_frames() {
    assert_eq!(who_depends_on("sqlx"), ["store"]);
    assert_eq!(who_depends_on("tokio"), ["store"]);
    assert_eq!(who_depends_on("polars"), ["report"]);
    assert_eq!(who_depends_on("clap"), ["pipeline"]);
}

#[test]
fn only_download_knows_the_network() {
    for client in ["ureq", "rustls-native-certs"] {
        assert_eq!(who_depends_on(client), ["download"]);
    }
    let mut files = Vec::new();
    for folder in ["crates", "pipeline/src"] {
        sources(&root().join(folder), &mut files);
    }
    let network = |file: &&PathBuf| std::fs::read_to_string(file).unwrap().contains("std::net");
    // The page listens and never asks.
    let serves =
        |file: &Path| file.starts_with(root().join("pipeline/src/serve")) || file.ends_with("commands/serve.rs");
    for file in files.iter().filter(network).filter(|file| !file.starts_with(root().join("crates/download"))) {
        assert!(serves(file), "only crates/download opens connections, not {}", file.display());
        assert!(!std::fs::read_to_string(file).unwrap().contains("::connect("), "{}", file.display());
    }
}

#[test]
fn only_the_program_sees_both_training_and_results() {
    let sees_both = |(_, dependencies): &(String, Vec<String>)| {
        ["train", "store"].iter().all(|wanted| dependencies.iter().any(|name| name == wanted))
    };
    let both: Vec<_> = packages(true).into_iter().filter(sees_both).map(|(name, _)| name).collect();
    assert_eq!(both, ["pipeline"]);
}

#[test]
fn parts_depend_only_on_parts_before_them() {
    const ALLOWED: [(&str, &[&str]); 10] = [
        ("plan", &[]),
        ("dataset", &["plan"]),
        ("download", &[]),
        ("graph", &["plan"]),
        ("lowering", &["graph", "plan"]),
        ("export", &["graph", "plan"]),
        ("train", &["plan", "dataset", "graph", "lowering"]),
        ("sweep", &["plan"]),
        ("store", &[]),
        ("report", &["store"]),
    ];
    for (name, dependencies) in packages(false) {
        if name == "pipeline" {
            continue;
        }
        let (_, allowed) =
            ALLOWED.iter().find(|(part, _)| *part == name).unwrap_or_else(|| panic!("{name} has its place"));
        let parts: Vec<_> = dependencies.iter().filter(|d| ALLOWED.iter().any(|(part, _)| part == d)).collect();
        assert!(parts.iter().all(|part| allowed.contains(&part.as_str())), "{name} depends on {parts:?}");
    }
}

#[test]
fn the_graph_names_no_device() {
    let mut files = Vec::new();
    sources(&root().join("crates/graph/src"), &mut files);
    assert!(files.len() > 10);
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap().to_lowercase();
        for device in ["cuda", "cpu", "gpu", "metal", "rocm", "avx", "lowering::"] {
            let named = text.split(|c: char| !c.is_ascii_alphanumeric() && c != ':').any(|word| word.contains(device));
            assert!(!named, "{} names {device}", file.display());
        }
    }
    let manifest = std::fs::read_to_string(root().join("crates/graph/Cargo.toml")).unwrap();
    assert!(!manifest.contains("cuda") && !manifest.contains("features"), "{manifest}");
}

#[test]
fn source_files_stay_short() {
    let mut files = Vec::new();
    for folder in ["crates", "pipeline", "tests"] {
        sources(&root().join(folder), &mut files);
    }
    assert!(files.len() > 100);
    for file in files {
        let lines = std::fs::read_to_string(&file).unwrap().lines().count();
        assert!(lines <= 800, "{} has {lines} lines", file.display());
    }
}

#[test]
fn every_experiment_of_the_repository_can_be_planned() {
    let place = Workplace::new();
    place.write_idx("data", 28);
    let mut planned = 0;
    for entry in std::fs::read_dir(root().join("experiments")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(
            text.starts_with("# ") && text.lines().next().unwrap().ends_with('?'),
            "{} opens with its question",
            path.display()
        );
        // Data sets that are to be had elsewhere are replaced by a small one.
        let words = ["plan", path.to_str().unwrap(), "--format", "json", "dataset.path=data"];
        let given = if text.lines().any(|line| line.starts_with("path = ")) { &words[..] } else { &words[..4] };
        let plan = place.run_words(given).exits(0);
        assert!(!plan.json().as_array().unwrap().is_empty(), "{}", path.display());
        planned += 1;
    }
    assert!(planned >= 2, "there are experiments");
}

#[test]
fn the_readme_shows_the_two_commands() {
    let readme = std::fs::read_to_string(root().join("README.md")).expect("there is a README.md");
    for command in ["cargo run", "sweep experiments/quickstart.toml", "cargo test --workspace"] {
        assert!(readme.contains(command), "README.md shows `{command}`");
    }
}
