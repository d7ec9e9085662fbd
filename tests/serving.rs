//! The page in the browser: `serve`.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use store::{EpochRow, NewExperiment, NewTrial, Outcome, Provenance, Store};

use crate::workplace::{DB, SMALL, Workplace};

/// A server that is stopped at the end.
pub struct Server {
    process: Child,
    address: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What came back: status, head, body.
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Server {
    pub fn start(place: &Workplace) -> Self {
        // Reports are made in a temporary folder, which a server that is killed leaves behind.
        std::fs::create_dir_all(place.path("tmp")).unwrap();
        let mut process = place
            .command(["serve", "--port", "0"])
            .env("TMPDIR", place.path("tmp"))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.strip_prefix("http://").and_then(|rest| rest.split('/').next()).unwrap_or_default();
        assert!(address.starts_with("127.0.0.1:"), "{line}");
        Self { process, address: address.to_owned() }
    }

    fn send(&self, request: &str) -> Answer {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        Answer { status, head: head.to_owned(), body: body.to_owned() }
    }

    fn get(&self, path: &str) -> Answer {
        self.send(&format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", self.address))
    }

    /// A report, once it has been made: until then a page says that it is being made, and when to ask again.
    pub fn report(&self, path: &str) -> Answer {
        let start = Instant::now();
        loop {
            let answer = self.get(path);
            if answer.status != 202 {
                return answer;
            }
            assert!(answer.head.contains("Refresh: 1\r\n") && answer.body.contains("being made"), "{}", answer.body);
            assert!(start.elapsed() < Duration::from_secs(120), "the report is never made");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

#[test]
fn experiments_runs_and_reports_are_pages() {
    let place = Workplace::with(SMALL);
    place.run("sweep experiment.toml --no-report --quiet").exits(0);
    let before = place.metrics(DB);
    let server = Server::start(&place);
    let home = server.get("/");
    assert_eq!(home.status, 200);
    assert!(
        home.body.contains("<a href=\"/experiment/1\">small</a>") && home.body.contains("Does it run?"),
        "{}",
        home.body
    );
    for header in ["default-src 'none'", "nosniff", "no-store", "no-referrer"] {
        assert!(home.head.contains(header), "{header} in {}", home.head);
    }
    let experiment = server.get("/experiment/1");
    assert!(experiment.body.contains("<svg") && experiment.body.contains("href=\"/run/4\""), "{}", experiment.body);
    assert_eq!(experiment.body.matches("<polyline").count(), 8, "two curves of each run");
    let run = server.get("/run/1");
    for part in ["<a href=\"/experiment/1\">small</a>", "train.weight_decay", "commit_hash", "validation_top1", "61706"]
    {
        assert!(run.body.contains(part), "{part}");
    }
    let report = server.report("/experiment/1/report");
    assert!(report.status == 200 && report.body.contains("<!doctype html") | report.body.contains("<!DOCTYPE html"));
    for path in ["/style.css", "/live.js", "/experiment/1?part"] {
        assert_eq!(server.get(path).status, 200, "{path}");
    }
    assert!(!server.get("/experiment/1?part").body.contains("<html"));
    for path in [
        "/experiment/9",
        "/run/9",
        "/run/-1",
        "/run/1%00",
        "/experiment/1/other",
        "/../etc/passwd",
        "//",
        "/run/99999999999999999999",
    ] {
        assert_eq!(server.get(path).status, 404, "{path}");
    }
    for page in ["/", "/experiment/1", "/run/1"] {
        let body = server.get(page).body;
        assert!(!body.contains("http://") && !body.contains("https://"), "{page} loads nothing from elsewhere");
    }
    assert_eq!(place.metrics(DB), before);
}

#[test]
fn only_this_machines_readers_are_answered() {
    let place = Workplace::with(SMALL);
    place.run("train experiment.toml --trial 0 --quiet").exits(0);
    let server = Server::start(&place);
    let own = server.address.clone();
    for (request, status) in [
        (format!("GET / HTTP/1.1\r\nHost: {own}\r\n\r\n"), 200),
        ("GET / HTTP/1.1\r\nhost: localhost:1\r\n\r\n".to_owned(), 200),
        (format!("HEAD / HTTP/1.1\r\nHost: {own}\r\n\r\n"), 200),
        ("GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n".to_owned(), 403),
        ("GET / HTTP/1.1\r\nHost: 127.0.0.1.evil.example\r\n\r\n".to_owned(), 403),
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), 400),
        (format!("GET / HTTP/1.1\r\nHost: {own}\r\nHost: evil.example\r\n\r\n"), 400),
        (format!("POST / HTTP/1.1\r\nHost: {own}\r\nContent-Length: 1\r\n\r\nx"), 405),
        (format!("DELETE /run/1 HTTP/1.1\r\nHost: {own}\r\n\r\n"), 405),
        (format!("GET /{} HTTP/1.1\r\nHost: {own}\r\n\r\n", "x".repeat(20_000)), 400),
    ] {
        let answer = server.send(&request);
        assert_eq!(answer.status, status, "{}", &request[..request.len().min(80)]);
        assert!(!request.starts_with("HEAD") || answer.body.is_empty());
    }
    let refused = place.run("serve --db nothing.db").exits(2);
    assert!(refused.stderr.contains("no such database"), "{}", refused.stderr);
    let port = server.address.split(':').nth(1).unwrap();
    let refused = place.run(&format!("serve --port {port}")).exits(2);
    assert!(refused.stderr.contains("cannot listen"), "{}", refused.stderr);
}

#[test]
fn curves_grow_while_a_sweep_runs() {
    let place = Workplace::with(&SMALL.replace("epochs = 2", "epochs = 2000"));
    let mut sweep = place.start("train experiment.toml --trial 0 --quiet");
    place.wait_for(DB, "SELECT count(*) FROM epochs", 1, &mut sweep);
    let server = Server::start(&place);
    let points =
        |body: &str| body.split("<polyline points=\"").nth(1).unwrap().split('"').next().unwrap().split(' ').count();
    let first = server.get("/experiment/1?part");
    let epochs = place.count(DB, "SELECT count(*) FROM epochs");
    place.wait_for(DB, "SELECT count(*) FROM epochs", epochs + 2, &mut sweep);
    let second = server.get("/experiment/1?part");
    assert!(points(&second.body) > points(&first.body), "the curve has grown");
    assert!(second.body.contains("class=\"running\""), "{}", second.body);
    let report = server.report("/experiment/1/report");
    assert!(report.status == 200 && report.body.contains("no run has finished"), "{}", report.body);
    sweep.kill().unwrap();
    sweep.wait().unwrap();
}

#[test]
fn long_lists_are_parted_into_pages() {
    let place = Workplace::new();
    let store = Store::open(place.path(DB)).unwrap();
    let planned: Vec<NewTrial> = (0..450)
        .map(|number| NewTrial {
            identity: format!("{number:032}"),
            canonical: "{}".into(),
            label: format!("trial {number}"),
            architecture: "lenet5".into(),
            ..Default::default()
        })
        .collect();
    let id = store.record_experiment(&NewExperiment { name: "many".into(), ..Default::default() }, &planned).unwrap();
    for _ in &planned {
        let run = store.claim_next(id, "w", Duration::from_secs(60), &Provenance::default()).unwrap().unwrap().run;
        if run.0 == 1 {
            for epoch in 1..=250 {
                let row = EpochRow { epoch, validation_top1: Some(0.5), ..Default::default() };
                store.record_epoch(run, "w", &row).unwrap();
            }
        }
        let outcome = Outcome::Done { tested_epoch: 1, checkpoint: None, train_seconds: 1.0, peak_memory_bytes: 1 };
        store.finish(run, "w", &outcome).unwrap();
    }
    let server = Server::start(&place);
    let rows = |path: &str| server.get(path).body.matches("<tr><td").count();
    let runs = |path: &str| server.get(path).body.matches("href=\"/run/").count();
    assert_eq!(
        ["", "?page=2", "?page=3", "?page=4"].map(|page| runs(&format!("/experiment/1{page}"))),
        [200, 200, 50, 0]
    );
    let second = server.get("/experiment/1?page=2&part").body;
    for part in ["rows 201 to 400", "\"?page=1\"", "\"?page=3\"", "\"/run/250\"", "\"/run/51\""] {
        assert!(second.contains(part), "{part} in {second}");
    }
    assert!(!second.contains("<html"));
    assert!(!server.get("/experiment/1?page=3").body.contains("older"), "there is nothing behind the last page");
    assert_eq!(["/run/1", "/run/1?page=2"].map(rows), [201, 51], "epochs, and one claim");
    for page in ["0", "-1", "x", "", "99999999999"] {
        assert_eq!(server.get(&format!("/experiment/1?page={page}")).status, 404, "{page}");
    }
}

/// The numbers of the runs in a page's table, in its order.
fn run_numbers(body: &str) -> Vec<i64> {
    let links = body.split("<a href=\"/run/").skip(1);
    links.map(|rest| rest.split('"').next().unwrap().parse().unwrap()).collect()
}

#[test]
fn heads_of_columns_sort_all_pages() {
    let place = Workplace::new();
    let store = Store::open(place.path(DB)).unwrap();
    let trials: Vec<NewTrial> = (0..250)
        .map(|number| NewTrial {
            identity: format!("trial {number:03}"),
            canonical: "{}".to_owned(),
            label: format!("label {:03}", number * 7 % 250),
            architecture: "lenet5".to_owned(),
            ..NewTrial::default()
        })
        .collect();
    let new = NewExperiment { name: "many".to_owned(), ..NewExperiment::default() };
    let id = store.record_experiment(&new, &trials).unwrap();
    for trial in 0..250_u32 {
        let run = store.claim_next(id, "w", Duration::from_secs(600), &Provenance::default()).unwrap().unwrap().run;
        if trial < 240 {
            let accuracy = f64::from(trial * 11 % 240) / 240.0;
            let row = EpochRow { epoch: 1, validation_top1: Some(accuracy), ..Default::default() };
            store.record_epoch(run, "w", &row).unwrap();
        }
    }
    let server = Server::start(&place);
    let plain = server.get("/experiment/1").body;
    assert!(plain.contains("<th class=\"number\" aria-sort=\"descending\"><a id=\"sort-run\""), "{plain}");
    assert!(plain.contains("href=\"?sort=validation_top1&amp;order=descending#sort-validation_top1\""), "{plain}");
    assert!(plain.contains("href=\"?sort=label&amp;order=ascending#sort-label\""), "words from a to z");
    assert!(plain.contains("href=\"?sort=run&amp;order=ascending#sort-run\""), "the other way");
    assert_eq!(plain.matches("aria-sort").count(), 1);

    let sorted = "/experiment/1?sort=validation_top1&order=descending";
    let best = server.get(sorted).body;
    assert!(
        best.contains("href=\"?page=2&amp;sort=validation_top1&amp;order=descending#sort-validation_top1\""),
        "{best}"
    );
    assert!(best.contains("<th class=\"number\" aria-sort=\"descending\"><a id=\"sort-validation_top1\""), "{best}");
    assert!(best.contains("href=\"?sort=validation_top1&amp;order=ascending#sort-validation_top1\""), "{best}");
    let found = [run_numbers(&best), run_numbers(&server.get(&format!("{sorted}&page=2")).body)].concat();
    // The run of each trial has its number and one more; those that nothing is known of come last, the newest first.
    let mut expected: Vec<i64> = (1..=240).collect();
    expected.sort_by_key(|run| -((run - 1) * 11 % 240));
    expected.extend((241..=250).rev());
    assert_eq!(found, expected);
    let rising = run_numbers(&server.get("/experiment/1?sort=validation_top1&order=ascending").body);
    assert_eq!(rising[..], expected[40..240].iter().rev().copied().collect::<Vec<_>>());
    let by_label = run_numbers(&server.get("/experiment/1?page=1&sort=label").body);
    assert_eq!(by_label[..3], [1, 1 + 143, 1 + 36], "7 × 143 and 7 × 36 leave 1 and 2 of 250");
    assert_eq!(server.get("/?sort=experiment&order=ascending").status, 200);
    assert!(!server.get("/run/1").body.contains("?sort="), "single runs have no lists");
    for query in ["sort=x", "sort=run_id", "sort=run&order=up", "sort=run%22", "sort=", "sort=1", "sort=run;"] {
        assert_eq!(server.get(&format!("/experiment/1?{query}")).status, 404, "{query}");
    }
    for path in ["/?sort=label", "/run/1?sort=run"] {
        assert_eq!(server.get(path).status, 404, "{path}");
    }
}

#[test]
fn names_and_notes_are_text_on_every_page() {
    let place = Workplace::new();
    let hostile = place.record_hostile();
    place.run_words(&["note", hostile, hostile]).exits(0);
    place.run_words(&["note", "1", hostile]).exits(0);
    place.run_words(&["tag", "1", hostile]).exits(0);
    let server = Server::start(&place);
    for page in ["/", "/experiment/1", "/run/1", "/experiment/1?part", "/experiment/1/report"] {
        let answer = server.report(page);
        assert_eq!(answer.status, 200, "{page}: {}", answer.body);
        assert!(answer.body.contains("&lt;script&gt;"), "{page}: {}", answer.body);
        let shown = answer.body.replace("<script>", if page.ends_with("report") { "" } else { "<script>" });
        assert!(!shown.contains("<script>") && !answer.body.contains("<b>x</b>"), "{page}");
        assert!(!answer.body.contains(['\u{202e}', '\u{1b}']), "{page}");
    }
}
