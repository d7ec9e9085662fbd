//! Public data sets, from a server on this machine.

#[path = "../crates/download/tests/download/server.rs"]
mod server;

use std::{
    sync::{Mutex, mpsc::channel},
    time::{Duration, Instant},
};

use server::{Server, answer, give};

use crate::{
    real::real,
    resume::signal,
    workplace::{SMALL, Workplace, wait},
};

/// Length of MNIST's training images as they were published.
const PUBLISHED_BYTES: usize = 9_912_422;

#[test]
fn mnist_is_fetched_checked_and_prepared_and_not_asked_for_twice() {
    let Some(mnist) = real("mnist") else { return };
    let server = Server::start(move |request, stream| {
        if request.number == 0 {
            return answer(stream, "503 Slow Down", &["Content-Length: 0".to_owned()], b"");
        }
        let name = request.path.strip_prefix("/mirror/").expect("the mirror's own paths");
        give(request, stream, &std::fs::read(mnist.join(name)).unwrap());
    });
    let place = Workplace::new();
    // Half a file, as a process leaves it that is killed.
    let labels = std::fs::read(real("mnist").unwrap().join("train-labels-idx1-ubyte.gz")).unwrap();
    place.write("digits/train-labels-idx1-ubyte.gz.part", &labels[..10_000]);
    let url = format!("{}/mirror/", server.url);
    let line = ["prepare", "mnist", "--download", "--to", "digits", "--base-url", &url];
    let first = place.run_words(&line).exits(0);
    for fact in ["\"idx\"", "\"digits\"", "54000", "6000", "10000", "0.1307", "1×28×28"] {
        assert!(first.text().contains(fact), "{fact} in {}", first.text());
    }
    assert!(first.stderr.contains("train-labels-idx1-ubyte.gz (29 kB, from byte 10000 on)"), "{}", first.stderr);
    let asked: Vec<_> = server.requests().iter().map(|request| (request.path.clone(), request.start)).collect();
    let path = |name: &str| format!("/mirror/{name}-ubyte.gz");
    assert_eq!(
        asked,
        [
            (path("train-images-idx3"), None),
            (path("train-images-idx3"), None),
            (path("train-labels-idx1"), Some(10_000)),
            (path("t10k-images-idx3"), None),
            (path("t10k-labels-idx1"), None)
        ]
    );
    let modified = |folder: &str| {
        let path = place.path(format!("{folder}/t10k-labels-idx1-ubyte.gz"));
        std::fs::metadata(path).unwrap().modified().unwrap()
    };
    let before = modified("digits");

    let second = place.run_words(&line).exits(0);
    assert_eq!(second.text(), first.text());
    assert_eq!(second.stderr.matches("is there already, and is MNIST's").count(), 4, "{}", second.stderr);
    // An experiment whose path says which set it is, with what is there already.
    std::fs::rename(place.path("digits"), place.path("mnist")).unwrap();
    place.write("digits.toml", "seeds = 1\n[dataset]\nsource = \"idx\"\npath = \"mnist\"\n");
    place.run_words(&["prepare", "digits.toml", "--download", "--base-url", &url, "--quiet"]).exits(0);
    place.run("prepare mnist --to mnist").exits(0);
    assert_eq!((server.requests().len(), modified("mnist")), (5, before));
}

#[test]
fn a_download_that_is_stopped_or_killed_goes_on_where_it_was() {
    let place = Workplace::new();
    let (stop, stopped) = channel::<()>();
    let stopped = Mutex::new(stopped);
    let server = Server::start(move |request, stream| {
        let start = request.start.unwrap_or(0);
        let status = if start == 0 { "200 OK" } else { "206 Partial Content" };
        let range = format!("Content-Range: bytes {start}-{}/{PUBLISHED_BYTES}", PUBLISHED_BYTES - 1);
        let length = format!("Content-Length: {}", PUBLISHED_BYTES - start);
        answer(stream, status, &[range, length], &[start as u8; 1_000_000]);
        // Holds the connection open, as a network does that has stopped.
        let _ = stopped.lock().unwrap().recv();
    });
    let part = place.path("data/mnist/train-images-idx3-ubyte.gz.part");
    for (round, how) in ["-INT", "-TERM", "-KILL"].into_iter().enumerate() {
        let bytes = 1_000_000 * (round as u64 + 1);
        let child = place.command(["prepare", "mnist", "--download", "--base-url", &server.url]).spawn().unwrap();
        let start = Instant::now();
        while std::fs::metadata(&part).map_or(0, |part| part.len()) < bytes {
            assert!(start.elapsed() < Duration::from_secs(120), "no {bytes} bytes have come");
            std::thread::sleep(Duration::from_millis(5));
        }
        signal(&child, how);
        let stopped = wait(child);
        match how {
            "-KILL" => assert_eq!(stopped.code, None),
            _ => {
                let stopped = stopped.exits(130);
                assert!(stopped.stderr.contains("the same command goes on where it stopped"), "{}", stopped.stderr);
                assert_eq!(stopped.text(), "");
            }
        }
        assert_eq!(std::fs::metadata(&part).unwrap().len(), bytes);
    }
    drop(stop);
    let starts: Vec<_> = server.requests().iter().map(|request| request.start).collect();
    assert_eq!(starts, [None, Some(1_000_000), Some(2_000_000)]);
    assert!(!place.path("cache").exists(), "nothing was prepared");
}

#[test]
fn a_mirror_with_other_files_is_refused() {
    let place = Workplace::new();
    let server = Server::start(|request, stream| give(request, stream, b"not what it says"));
    let line = ["prepare", "fashion-mnist", "--download", "--base-url", &server.url];
    let refused = place.run_words(&line).exits(2);
    let says = "train-images-idx3-ubyte.gz: not Fashion-MNIST's file (16 bytes instead of 26421880); nothing was kept \
                of it; --base-url URL names another mirror";
    assert!(refused.stderr.contains(says), "{}", refused.stderr);
    assert!(refused.stderr.contains("error: fashion-mnist: http://127.0.0.1:"), "{}", refused.stderr);

    let server = Server::start(|_, stream| answer(stream, "404 Not Found", &["Content-Length: 0".to_owned()], b""));
    let refused = place.run_words(&["prepare", "cifar10", "--download", "--base-url", &server.url]).exits(2);
    assert!(
        refused.stderr.contains("/cifar-10-binary.tar.gz: the server answered 404 Not Found"),
        "{}",
        refused.stderr
    );

    place.write("data/cifar100/cifar-100-binary.tar.gz", "mine");
    let refused = place.run_words(&["prepare", "cifar100", "--download", "--base-url", &server.url]).exits(2);
    assert!(refused.stderr.contains("cifar-100-binary.tar.gz: is there already, but is not CIFAR-100's"));
    assert_eq!(std::fs::read(place.path("data/cifar100/cifar-100-binary.tar.gz")).unwrap(), b"mine");
}

#[test]
fn without_download_nothing_asks_the_network() {
    let place = Workplace::with(SMALL);
    // Whatever was asked of the outside would have to go through here.
    let proxy = Server::start(|_, stream| answer(stream, "502 Bad Gateway", &[], b""));
    place.write("digits.toml", "[dataset]\nsource = \"idx\"\npath = \"data/mnist\"\n");
    let command = |line: &str| {
        let mut command = place.command(line.split(' '));
        for name in ["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
            command.env(name, &proxy.url);
        }
        command
    };
    let run = |line: &str, code: i32| wait(command(line).spawn().unwrap()).exits(code).stderr;
    run("prepare experiment.toml", 0);
    run("train experiment.toml ~sweep seeds=1 train.epochs=1", 0);
    let missing = run("prepare mnist", 2);
    assert!(
        missing.contains(
            "data/mnist: no such file or folder (dataset.path); pipeline prepare mnist --download fetches MNIST"
        ),
        "{missing}"
    );
    let missing = run("sweep digits.toml", 2);
    assert!(missing.contains("pipeline prepare digits.toml --download fetches MNIST"), "{missing}");
    assert!(proxy.requests().is_empty());
    // With it the proxy is asked.
    let mut asking = command("prepare fashion-mnist --download --base-url http://mirror.invalid/").spawn().unwrap();
    let start = Instant::now();
    while proxy.requests().is_empty() {
        assert!(start.elapsed() < Duration::from_secs(120), "nothing asked the proxy");
        std::thread::sleep(Duration::from_millis(5));
    }
    asking.kill().unwrap();
    assert_eq!((wait(asking).code, proxy.requests()[0].path.as_str()), (None, "mirror.invalid:80"));
}

#[test]
fn what_cannot_be_downloaded_is_refused() {
    let place = Workplace::with(SMALL);
    place.write("images.toml", "[dataset]\nsource = \"images\"\npath = \"data/flowers\"\nimage_size = 32\n");
    place.write("idx.toml", "[dataset]\nsource = \"idx\"\npath = \"data/letters\"\n");
    place.write("cifar.toml", "[dataset]\nsource = \"cifar\"\npath = \"data/cifar10\"\n");
    let cases = [
        (
            "prepare mnits",
            "error: mnits: no such file, and no public data set; those are mnist, fashion-mnist, cifar10, cifar100",
        ),
        (
            "prepare experiment.toml --download",
            "error: experiment.toml: dataset.source: glyphs are drawn by the program",
        ),
        ("prepare images.toml --download", "images.toml: dataset.source: images have no public source"),
        (
            "prepare idx.toml --download",
            "idx.toml: dataset.path: data/letters does not say which data set belongs there",
        ),
        (
            "prepare cifar.toml --download",
            "cifar.toml: dataset.path: must name the archive that is to be downloaded, such as data/cifar-10-binary.tar.gz",
        ),
        ("prepare experiment.toml --to data", "--to: is for a public data set by its name"),
        ("prepare mnist --base-url http://127.0.0.1", "--download"),
        (
            "prepare mnist --download --base-url files",
            "files: not an address to fetch from; it must begin with http:// or https://",
        ),
        ("prepare mnist --download dataset.source=cifar", "mnist: dataset.source: must be \"idx\" for MNIST"),
        (
            "prepare cifar10 --download dataset.path=here",
            "cifar10: dataset.path: must end in cifar-10-binary.tar.gz, the archive of CIFAR-10",
        ),
        ("prepare mnist dataset.size=3", "command line: dataset.size: unknown key"),
        ("prepare missing.toml", "missing.toml"),
    ];
    for (line, says) in cases {
        let refused = place.run(line).exits(2);
        assert!(refused.stderr.contains(says), "{line}: {}", refused.stderr);
        assert_eq!(refused.text(), "");
    }
    assert!(!place.path("data").exists() && !place.path("cache").exists(), "nothing was written");
}
