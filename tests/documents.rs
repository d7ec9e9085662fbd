//! What the documents say is what the program does.

use std::path::{Path, PathBuf};

use plan::Experiment;

use crate::{house::root, workplace::Workplace};

/// The pages that users read.
const PAGES: [&str; 3] = ["README.md", "docs/configuration.md", "docs/performance.md"];

fn page(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).unwrap()
}

/// Code blocks of a language, with the numbers of their first lines.
fn blocks<'a>(text: &'a str, language: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut block: Option<(bool, usize, Vec<&'a str>)> = None;
    for (index, line) in text.lines().enumerate() {
        match (line.strip_prefix("```"), block.as_mut()) {
            (Some(name), None) => block = Some((name == language, index + 2, Vec::new())),
            (Some(_), Some(_)) => {
                if let Some((true, start, lines)) = block.take() {
                    found.push((start, lines.join("\n")));
                }
            }
            (None, Some((_, _, lines))) => lines.push(line),
            (None, None) => {}
        }
    }
    found
}

/// The tables of `docs/configuration.md`, from what `pipeline keys` says.
fn tables(keys: &serde_json::Value) -> String {
    const SECTIONS: [(&str, &str); 7] = [
        ("The experiment", ""),
        ("`[dataset]`", "dataset."),
        ("`[augment]`", "augment."),
        ("`[model]`", "model."),
        ("`[train]`", "train."),
        ("`[sweep]`", "sweep."),
        ("`[variants.NAME]`", "variants."),
    ];
    let mut out = String::new();
    for (title, prefix) in SECTIONS {
        out.push_str(&format!("\n### {title}\n\n| key | takes | default | meaning |\n| --- | --- | --- | --- |\n"));
        for key in keys.as_array().unwrap() {
            let cell = |column: &str| key[column].as_str().unwrap();
            let path = cell("key");
            if path.contains('.') != prefix.is_empty() && path.starts_with(prefix) {
                out.push_str(&format!(
                    "| `{path}` | {} | {} | {} |\n",
                    cell("takes"),
                    cell("default"),
                    cell("meaning")
                ));
            }
        }
    }
    out.push('\n');
    out
}

#[test]
fn the_page_of_the_configuration_lists_every_key() {
    let keys = Workplace::new().run("keys --format json").exits(0).json();
    let text = page("docs/configuration.md");
    let (before, rest) = text.split_once("<!-- BEGIN keys").unwrap();
    let (head, rest) = rest.split_once("-->\n").unwrap();
    let (listed, after) = rest.split_once("<!-- END keys -->").unwrap();
    let expected = tables(&keys);
    assert_eq!(expected.matches("\n| `").count(), keys.as_array().unwrap().len(), "each key has its row");
    if std::env::var_os("PIPELINE_BLESS").is_some() {
        let text = format!("{before}<!-- BEGIN keys{head}-->\n{expected}<!-- END keys -->{after}");
        std::fs::write(root().join("docs/configuration.md"), text).unwrap();
        return;
    }
    assert_eq!(listed, expected, "write it anew with PIPELINE_BLESS=1");
}

#[test]
fn keys_are_found_by_path_or_by_meaning() {
    let place = Workplace::new();
    let names = |line: &str| {
        let keys = place.run(line).exits(0).json();
        keys.as_array().unwrap().iter().map(|key| key["key"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(
        names("keys decay --format json"),
        ["train.weight_decay", "train.decay", "train.average_decay"],
        "by path"
    );
    assert_eq!(names("keys keras --format json"), ["train.weight_decay"], "by meaning");
}

#[test]
fn tables_explain_without_cutting_words_off() {
    let place = Workplace::new();
    let table = place.run("keys train.weight_decay").exits(0);
    let words = table.text().split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains("Keras' l2(k) is 2k here") && !words.contains('…'), "{words}");
    assert!(table.text().lines().all(|line| line.chars().count() < 160), "{}", table.text());
    let refused = place.run("keys xyzzyplugh").exits(2);
    assert_eq!(
        refused.stderr,
        "error: no key of experiment files has to do with \"xyzzyplugh\"; `pipeline keys` lists all\n"
    );
}

/// Examples are whole files, or parts that are laid into one by what stands above them on the page.
#[test]
fn every_experiment_on_a_page_can_be_planned() {
    let mut planned = 0;
    for name in PAGES {
        for (line, text) in blocks(&page(name), "toml") {
            // Two lines that stand for keys of two sections.
            if text.starts_with("\"train.") {
                for (section, example) in ["sweep.space", "sweep.grid"].iter().zip(text.lines()) {
                    let (others, sampler) = match *section {
                        "sweep.space" => (
                            "\"train.optimizer\" = { choice = [\"sgd\", \"adam\"] }",
                            "[sweep.sampler]\nkind = \"random\"\nconfigurations = 4",
                        ),
                        _ => ("\"train.optimizer\" = [\"sgd\", \"adam\"]", ""),
                    };
                    let text = format!("[{section}]\n{example}\n{others}\n{sampler}");
                    let planned = Experiment::parse(&text, "x.toml", &[]);
                    assert!(planned.is_ok(), "{name}:{line}: {}\n{text}", planned.unwrap_err());
                }
                continue;
            }
            let planned_now = Experiment::parse(&text, "x.toml", &[]);
            let trials = planned_now.unwrap_or_else(|error| panic!("{name}:{line}: {error}\n{text}")).trials().len();
            assert!(trials >= 1, "{name}:{line}");
            planned += 1;
        }
    }
    assert!(planned >= 8, "{planned} examples");
}

/// Anchors as GitHub makes them of headings.
fn anchors(text: &str) -> Vec<String> {
    let headings = text.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    headings
        .map(|heading| {
            let kept = heading.to_lowercase();
            let kept = kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
            kept.map(|c| if c == ' ' { '-' } else { c }).collect()
        })
        .collect()
}

#[test]
fn every_link_of_the_documents_leads_somewhere() {
    let mut links = 0;
    let pages = PAGES.iter().chain(&["ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "tests/golden/README.md"]);
    for name in pages {
        let text = page(name);
        let folder: PathBuf = root().join(name).parent().unwrap().to_owned();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link) {
            if link.starts_with("https://") || link.contains(char::is_whitespace) {
                continue;
            }
            links += 1;
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { root().join(name) } else { folder.join(Path::new(file)) };
            assert!(target.exists(), "{name}: {link}");
            if !anchor.is_empty() {
                let text = std::fs::read_to_string(&target).unwrap();
                assert!(anchors(&text).iter().any(|heading| heading == anchor), "{name}: {link}");
            }
        }
    }
    assert!(links >= 10, "{links} links");
}

#[test]
fn every_command_and_option_of_the_documents_exists() {
    let place = Workplace::new();
    let help = place.run("--help").exits(0);
    let commands: Vec<&str> = help
        .text()
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter(|line| !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    let readme = page("README.md");
    let (_, rest) = readme.split_once("| command | what it does |").unwrap();
    let (table, _) = rest.split_once("\n\n").unwrap();
    let mut described: Vec<&str> = Vec::new();
    for row in table.lines().skip(2) {
        let (names, what) = row.trim_start_matches("| ").split_once(" | ").unwrap();
        // Quoted in turns: every second part is code.
        let of_row: Vec<&str> =
            names.split('`').skip(1).step_by(2).filter_map(|code| code.split_whitespace().next()).collect();
        for command in &of_row {
            assert!(commands.contains(command), "README.md: {command} is no command");
        }
        for code in names.split('`').chain(what.split('`')) {
            for option in code.split_whitespace().filter(|word| word.starts_with("--")) {
                let known = of_row.iter().any(|command| {
                    let help = place.run(&format!("{command} --help")).exits(0);
                    help.text().split_whitespace().any(|word| word == option)
                });
                assert!(known, "README.md: {of_row:?} has no {option}");
            }
        }
        described.extend(of_row);
    }
    for command in &commands {
        assert!(*command == "help" || described.contains(command), "README.md says nothing of {command}");
    }
    for name in PAGES {
        for (line, text) in page(name).lines().enumerate() {
            let typed = text
                .split("pipeline ")
                .skip(1)
                .filter(|_| text.contains("`pipeline ") || text.starts_with("pipeline "));
            for word in typed.filter_map(|rest| rest.split(['`', ' ', '"']).next()) {
                let word = word.trim_end_matches([',', '.', ';']);
                assert!(commands.contains(&word) || word.starts_with("--"), "{name}:{}: {text}", line + 1);
            }
        }
    }
}
