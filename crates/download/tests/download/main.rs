//! Fetching from a server on this machine that does what servers do, good and bad.

mod server;

use std::{fs, net::TcpListener, path::Path, sync::mpsc::channel, time::Duration};

use download::{Contents, DownloadError, Event, Fetched, Options, PublicFile, PublicSet, fetch};
use ring::digest::{SHA256, digest};
use server::{Server, answer, give};
use tempfile::{TempDir, tempdir};

/// A file that no two bytes' distance repeats in, so that a wrong place shows.
fn file(bytes: usize) -> Vec<u8> {
    (0..bytes as u64).map(|i| (i.wrapping_mul(2_654_435_761) >> 11) as u8).collect()
}

fn sha256(bytes: &[u8]) -> &'static str {
    digest(&SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect::<String>().leak()
}

fn public(name: &'static str, contents: &[u8]) -> PublicFile<'static> {
    PublicFile { name, bytes: contents.len() as u64, sha256: sha256(contents), contents: None }
}

fn set(files: Vec<PublicFile<'static>>) -> PublicSet<'static> {
    PublicSet { name: "small", title: "Small", source: "made for a test", base_urls: &[], files: files.leak() }
}

/// Patient enough for a slow machine where a server is silent by intention, and quick where it fails by intention.
fn options(url: &str) -> Options<'_> {
    Options { base_url: Some(url), attempts: 3, pause: Duration::from_millis(1), silence: Duration::from_secs(20) }
}

/// Fetches and notes what is told in few words.
fn fetch_noting(
    set: &PublicSet<'_>,
    folder: &Path,
    options: &Options<'_>,
) -> (Result<Vec<Fetched>, DownloadError>, Vec<String>) {
    let mut told = Vec::new();
    let result = fetch(set, folder, options, &mut |event| match event {
        Event::Started { done, total, .. } => told.push(format!("from {done} of {total}")),
        Event::Retrying { reason, .. } => told.push(format!("again: {reason}")),
        Event::Present { .. } => told.push("present".to_owned()),
        Event::Finished { .. } => told.push("finished".to_owned()),
        _ => {}
    });
    (result, told)
}

/// Names in a folder but for the lock, sorted.
fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != ".download.lock")
        .collect();
    names.sort();
    names
}

fn with_part(contents: &[u8]) -> TempDir {
    let folder = tempdir().unwrap();
    fs::write(folder.path().join("data.bin.part"), contents).unwrap();
    folder
}

#[test]
fn a_set_is_fetched_once_and_then_only_checked() {
    let (first, second) = (file(300_000), file(1_000));
    let set = set(vec![public("first.bin", &first), public("second.bin", &second)]);
    let (a, b) = (first.clone(), second.clone());
    let server = Server::start(move |request, stream| {
        give(request, stream, if request.path == "/sub/first.bin" { &a } else { &b });
    });
    let folder = tempdir().unwrap();
    let folder = folder.path().join("deep/er");
    let url = format!("{}/sub/", server.url);
    let mut last = (0, 0);
    let fetched = fetch(&set, &folder, &options(&url), &mut |event| {
        if let Event::Progress { done, total } = event {
            last = (done, total);
        }
    });
    assert_eq!(last, (1_000, 1_000));
    let paths = ["first.bin", "second.bin"].map(|name| folder.join(name));
    assert_eq!(fetched.unwrap(), paths.clone().map(|path| Fetched { path, downloaded: true }));
    assert!(fs::read(&paths[0]).unwrap() == first && fs::read(&paths[1]).unwrap() == second);
    assert_eq!(names(&folder), ["first.bin", "second.bin"]);
    let times = paths.clone().map(|path| fs::metadata(path).unwrap().modified().unwrap());

    let (again, told) = fetch_noting(&set, &folder, &options(&url));
    assert_eq!(again.unwrap(), paths.clone().map(|path| Fetched { path, downloaded: false }));
    assert_eq!(told, ["present", "present"]);
    assert_eq!(times, paths.map(|path| fs::metadata(path).unwrap().modified().unwrap()));
    let asked: Vec<_> = server.requests().into_iter().map(|request| request.path).collect();
    assert_eq!(asked, ["/sub/first.bin", "/sub/second.bin"]);
}

#[test]
fn a_part_is_gone_on_with_where_it_ends() {
    let whole = file(200_000);
    let set = set(vec![public("data.bin", &whole)]);
    let served = whole.clone();
    let server = Server::start(move |request, stream| give(request, stream, &served));
    let folder = with_part(&whole[..123_457]);
    let (result, told) = fetch_noting(&set, folder.path(), &options(&server.url));
    result.unwrap();
    assert_eq!(told, ["from 123457 of 200000", "finished"]);
    assert_eq!(server.requests()[0].start, Some(123_457));
    assert!(fs::read(folder.path().join("data.bin")).unwrap() == whole);
    assert_eq!(names(folder.path()), ["data.bin"]);
}

#[test]
fn a_part_that_is_whole_needs_no_server() {
    let whole = file(70_000);
    let folder = with_part(&whole);
    let set = set(vec![public("data.bin", &whole)]);
    let (result, told) = fetch_noting(&set, folder.path(), &options("http://127.0.0.1:9"));
    assert!(result.unwrap()[0].downloaded);
    assert_eq!((told, names(folder.path())), (vec!["finished".to_owned()], vec!["data.bin".to_owned()]));
}

#[test]
fn a_server_that_ignores_ranges_is_listened_to_from_the_start() {
    let whole = file(100_000);
    let set = set(vec![public("data.bin", &whole)]);
    let served = whole.clone();
    let server = Server::start(move |_, stream| {
        answer(stream, "200 OK", &[format!("Content-Length: {}", served.len())], &served);
    });
    let folder = with_part(&[7; 60_000]);
    let (result, told) = fetch_noting(&set, folder.path(), &options(&server.url));
    result.unwrap();
    assert_eq!(told, ["from 0 of 100000", "finished"]);
    assert!(fs::read(folder.path().join("data.bin")).unwrap() == whole);
}

#[test]
fn a_part_of_something_else_is_replaced_by_the_right_file() {
    let whole = file(100_000);
    let set = set(vec![public("data.bin", &whole)]);
    // Of the same length as the file, shorter, and longer.
    for other in [vec![7; 100_000], vec![7; 60_000], vec![7; 160_000]] {
        let served = whole.clone();
        let server = Server::start(move |request, stream| give(request, stream, &served));
        let folder = with_part(&other);
        let (result, told) = fetch_noting(&set, folder.path(), &options(&server.url));
        result.unwrap_or_else(|error| panic!("{error} after {told:?}"));
        assert_eq!(told.last().unwrap(), "finished");
        assert!(told[told.len() - 3].starts_with("again: "), "{told:?}");
        assert!(fs::read(folder.path().join("data.bin")).unwrap() == whole);
    }
}

#[test]
fn a_connection_that_breaks_again_and_again_brings_the_whole_in_the_end() {
    let whole = file(500_000);
    let set = set(vec![public("data.bin", &whole)]);
    let served = whole.clone();
    let server = Server::start(move |request, stream| {
        // 50,000 bytes more each time, of what was announced as all: ten attempts where three without a byte are allowed.
        let start = request.start.unwrap_or(0);
        let range = format!("Content-Range: bytes {start}-{}/{}", served.len() - 1, served.len());
        let length = format!("Content-Length: {}", served.len() - start);
        let status = if start == 0 { "200 OK" } else { "206 Partial Content" };
        answer(stream, status, &[range, length], &served[start..(start + 50_000).min(served.len())]);
    });
    let folder = tempdir().unwrap();
    let (result, told) = fetch_noting(&set, folder.path(), &options(&server.url));
    result.unwrap_or_else(|error| panic!("{error} after {told:?}"));
    assert!(fs::read(folder.path().join("data.bin")).unwrap() == whole);
    let starts: Vec<_> = server.requests().iter().map(|request| request.start.unwrap_or(0)).collect();
    assert_eq!(starts, (0..10).map(|n| n * 50_000).collect::<Vec<_>>());
}

#[test]
fn a_truncated_file_is_kept_for_the_next_time_and_never_gets_its_name() {
    let whole = file(80_000);
    let set = set(vec![public("data.bin", &whole)]);
    let served = whole.clone();
    // Always the same 30,000 bytes from the start, without ranges: it never gets further.
    let server = Server::start(move |_, stream| {
        answer(stream, "200 OK", &["Content-Length: 80000".to_owned()], &served[..30_000]);
    });
    let folder = tempdir().unwrap();
    let (result, told) = fetch_noting(&set, folder.path(), &options(&server.url));
    let message = result.unwrap_err().to_string();
    assert!(message.starts_with(&format!("{}/data.bin: gave up after 3 attempts: ", server.url)), "{message}");
    assert!(message.ends_with("; the 30000 bytes that have come are kept, and the same command goes on from there"));
    assert_eq!(told.iter().filter(|told| told.starts_with("again")).count(), 2, "{told:?}");
    assert_eq!(names(folder.path()), ["data.bin.part"]);
    assert!(fs::read(folder.path().join("data.bin.part")).unwrap() == whole[..30_000]);

    let served = whole.clone();
    let better = Server::start(move |request, stream| give(request, stream, &served));
    fetch(&set, folder.path(), &options(&better.url), &mut |_| {}).unwrap();
    assert_eq!(better.requests()[0].start, Some(30_000));
    assert!(fs::read(folder.path().join("data.bin")).unwrap() == whole);
}

#[test]
fn a_body_without_a_length_that_ends_early_is_not_taken_for_the_whole() {
    let whole = file(80_000);
    let set = set(vec![public("data.bin", &whole)]);
    let served = whole.clone();
    let server = Server::start(move |request, stream| {
        answer(stream, "200 OK", &[], if request.number == 0 { &served[..50_000] } else { &served });
    });
    let folder = tempdir().unwrap();
    let (result, told) = fetch_noting(&set, folder.path(), &options(&server.url));
    result.unwrap();
    assert!(told.contains(&"again: it ended after 50000 of 80000 bytes".to_owned()), "{told:?}");
    assert!(fs::read(folder.path().join("data.bin")).unwrap() == whole);
}

#[test]
fn a_wrong_checksum_is_refused_and_nothing_is_kept() {
    let whole = file(40_000);
    let set = set(vec![public("data.bin", &whole)]);
    let mut changed = whole.clone();
    changed[20_000] ^= 1;
    let found = sha256(&changed);
    let server = Server::start(move |request, stream| give(request, stream, &changed));
    let folder = tempdir().unwrap();
    let (result, _) = fetch_noting(&set, folder.path(), &options(&server.url));
    let error = result.unwrap_err();
    assert!(error.blames_the_mirror());
    assert_eq!(
        error.to_string(),
        format!(
            "{}/data.bin: not Small's file (40000 bytes with SHA-256 {found} instead of 40000 with {}); nothing was kept of it",
            server.url,
            sha256(&whole)
        )
    );
    assert!(names(folder.path()).is_empty());
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn a_page_in_place_of_the_file_is_refused_by_its_size() {
    let set = set(vec![public("data.bin", &file(40_000))]);
    let server = Server::start(|request, stream| give(request, stream, b"<html>please log in</html>"));
    let folder = tempdir().unwrap();
    let (result, _) = fetch_noting(&set, folder.path(), &options(&server.url));
    let message = result.unwrap_err().to_string();
    assert!(message.contains("not Small's file (26 bytes instead of 40000)"), "{message}");
    assert!(names(folder.path()).is_empty());
}

#[test]
fn an_endless_file_does_not_fill_the_disk() {
    let set = set(vec![public("data.bin", &file(40_000))]);
    let server = Server::start(|_, stream| answer(stream, "200 OK", &[], &vec![0; 10_000_000]));
    let folder = tempdir().unwrap();
    let (result, _) = fetch_noting(&set, folder.path(), &options(&server.url));
    let message = result.unwrap_err().to_string();
    assert!(message.contains("instead of 40000"), "{message}");
    assert!(names(folder.path()).is_empty());
}

#[test]
fn a_refusal_ends_it_at_once_and_trouble_is_tried_again() {
    let whole = file(10_000);
    let set = set(vec![public("data.bin", &whole)]);
    let server = Server::start(|_, stream| answer(stream, "404 Not Found", &["Content-Length: 0".to_owned()], b""));
    let folder = tempdir().unwrap();
    let (result, told) = fetch_noting(&set, folder.path(), &options(&server.url));
    assert_eq!(result.unwrap_err().to_string(), format!("{}/data.bin: the server answered 404 Not Found", server.url));
    assert_eq!((told.len(), server.requests().len()), (0, 1));
    assert!(names(folder.path()).is_empty());

    let served = whole.clone();
    let server = Server::start(move |request, stream| match request.number {
        0 => answer(stream, "500 Internal Server Error", &["Content-Length: 0".to_owned()], b""),
        1 => answer(stream, "503 Service Unavailable", &["Content-Length: 0".to_owned()], b""),
        _ => give(request, stream, &served),
    });
    let (result, told) = fetch_noting(&set, folder.path(), &options(&server.url));
    result.unwrap();
    assert_eq!(
        told[..2],
        ["again: the server answered 500 Internal Server Error", "again: the server answered 503 Service Unavailable"]
    );
    assert!(fs::read(folder.path().join("data.bin")).unwrap() == whole);
}

#[test]
fn the_next_mirror_is_asked_where_one_fails() {
    let whole = file(10_000);
    let missing = Server::start(|_, stream| answer(stream, "404 Not Found", &["Content-Length: 0".to_owned()], b""));
    let served = whole.clone();
    let good = Server::start(move |request, stream| give(request, stream, &served));
    let urls: &[&str] = vec![&*missing.url.clone().leak(), &*good.url.clone().leak()].leak();
    let set = PublicSet { base_urls: urls, ..set(vec![public("data.bin", &whole)]) };
    let folder = tempdir().unwrap();
    let (result, told) = fetch_noting(&set, folder.path(), &Options { base_url: None, ..options("") });
    result.unwrap();
    assert_eq!(
        told[0],
        format!("again: {}/data.bin: the server answered 404 Not Found; asking another mirror", missing.url)
    );
    assert!(fs::read(folder.path().join("data.bin")).unwrap() == whole);
}

#[test]
fn a_redirection_is_followed_also_in_the_middle() {
    let whole = file(90_000);
    let set = set(vec![public("data.bin", &whole)]);
    let served = whole.clone();
    let server = Server::start(move |request, stream| match request.path.as_str() {
        "/data.bin" => {
            let headers = ["Location: /elsewhere".to_owned(), "Content-Length: 0".to_owned()];
            answer(stream, "302 Found", &headers, b"");
        }
        "/elsewhere" => give(request, stream, &served),
        other => panic!("{other}"),
    });
    let folder = with_part(&whole[..44_444]);
    fetch(&set, folder.path(), &options(&server.url), &mut |_| {}).unwrap();
    assert_eq!(server.requests().last().unwrap().start, Some(44_444));
    assert!(fs::read(folder.path().join("data.bin")).unwrap() == whole);

    let circle = Server::start(|_, stream| {
        answer(stream, "302 Found", &["Location: /data.bin".to_owned(), "Content-Length: 0".to_owned()], b"");
    });
    let folder = tempdir().unwrap();
    let message = fetch_noting(&set, folder.path(), &options(&circle.url)).0.unwrap_err().to_string();
    assert!(message.contains("the server answered with one redirection after the other"), "{message}");
}

#[test]
fn a_port_where_nobody_listens_is_named() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let set = set(vec![public("data.bin", &file(10))]);
    let folder = tempdir().unwrap();
    let url = format!("http://127.0.0.1:{port}");
    let (result, told) = fetch_noting(&set, folder.path(), &options(&url));
    let message = result.unwrap_err().to_string();
    assert!(message.starts_with(&format!("{url}/data.bin: gave up after 3 attempts: ")), "{message}");
    assert!(message.to_lowercase().contains("refused"), "{message}");
    assert_eq!(told.len(), 2);
    assert!(names(folder.path()).is_empty());
}

#[test]
fn a_silent_server_is_given_up_and_its_bytes_are_kept() {
    let whole = file(90_000);
    let set = set(vec![public("data.bin", &whole)]);
    let served = whole.clone();
    let (stop, stopped) = channel::<()>();
    let stopped = std::sync::Mutex::new(stopped);
    let server = Server::start(move |request, stream| {
        if request.start.is_none() {
            answer(stream, "200 OK", &["Content-Length: 90000".to_owned()], &served[..40_000]);
        }
        // Holds the connection open and says no more.
        let _ = stopped.lock().unwrap().recv();
    });
    let folder = tempdir().unwrap();
    let silence = Duration::from_millis(300);
    let (result, told) = fetch_noting(&set, folder.path(), &Options { silence, attempts: 2, ..options(&server.url) });
    drop(stop);
    let message = result.unwrap_err().to_string();
    assert!(message.contains("gave up after 2 attempts: no answer for 0.3 s; the 40000 bytes"), "{message}");
    assert_eq!(told[..2], ["from 0 of 90000", "again: no answer for 0.3 s"]);
    assert!(fs::read(folder.path().join("data.bin.part")).unwrap() == whole[..40_000]);
}

#[test]
fn a_slow_server_that_goes_on_is_waited_for() {
    let whole = file(40_000);
    let set = set(vec![public("data.bin", &whole)]);
    let served = whole.clone();
    let server = Server::start(move |_, stream| {
        use std::io::Write;
        answer(stream, "200 OK", &["Content-Length: 40000".to_owned()], b"");
        // Longer in all than the silence that is allowed, but never so long at a time.
        for piece in served.chunks(4_000) {
            stream.write_all(piece).and_then(|()| stream.flush()).unwrap();
            std::thread::sleep(Duration::from_millis(350));
        }
    });
    let folder = tempdir().unwrap();
    let silence = Duration::from_secs(3);
    let (result, told) = fetch_noting(&set, folder.path(), &Options { silence, ..options(&server.url) });
    result.unwrap();
    assert_eq!(told, ["from 0 of 40000", "finished"]);
}

#[test]
fn two_at_once_fetch_once() {
    let whole = file(400_000);
    let set = set(vec![public("data.bin", &whole)]);
    let served = whole.clone();
    let server = Server::start(move |request, stream| {
        std::thread::sleep(Duration::from_millis(200));
        give(request, stream, &served);
    });
    let folder = tempdir().unwrap();
    let fetched: Vec<_> = std::thread::scope(|scope| {
        let work = || fetch(&set, folder.path(), &options(&server.url), &mut |_| {}).unwrap()[0].downloaded;
        let workers: Vec<_> = (0..3).map(|_| scope.spawn(work)).collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).collect()
    });
    assert_eq!(fetched.iter().filter(|&&downloaded| downloaded).count(), 1);
    assert_eq!(server.requests().len(), 1);
    assert!(fs::read(folder.path().join("data.bin")).unwrap() == whole);
    assert_eq!(names(folder.path()), ["data.bin"]);
}

#[test]
fn another_file_of_that_name_is_never_overwritten() {
    let whole = file(5_000);
    let set = set(vec![public("data.bin", &whole)]);
    let folder = tempdir().unwrap();
    let path = folder.path().join("data.bin");
    fs::write(&path, b"mine").unwrap();
    let server = Server::start(move |request, stream| give(request, stream, &whole));
    let (result, _) = fetch_noting(&set, folder.path(), &options(&server.url));
    let error = result.unwrap_err();
    assert!(!error.blames_the_mirror());
    let message = error.to_string();
    assert!(message.starts_with(&format!("{}: is there already, but is not Small's file (4 bytes", path.display())));
    assert!(message.ends_with("; move it away and the same command fetches the right one"), "{message}");
    assert_eq!(fs::read(&path).unwrap(), b"mine");
    assert!(server.requests().is_empty());
}

#[test]
fn the_same_contents_in_another_compression_or_in_none_are_as_good() {
    use std::io::Write;
    let contents = file(60_000);
    let zip = |level| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(level));
        encoder.write_all(&contents).unwrap();
        encoder.finish().unwrap()
    };
    let (published, other) = (zip(9), zip(0));
    assert_ne!(published, other);
    let known = Contents { bytes: contents.len() as u64, sha256: sha256(&contents) };
    let set = set(vec![PublicFile { contents: Some(known), ..public("data.gz", &published) }]);
    let served = other.clone();
    let server = Server::start(move |request, stream| give(request, stream, &served));

    let folder = tempdir().unwrap();
    fetch(&set, folder.path(), &options(&server.url), &mut |_| {}).unwrap();
    assert!(fs::read(folder.path().join("data.gz")).unwrap() == other);

    let folder = tempdir().unwrap();
    fs::write(folder.path().join("data"), &contents).unwrap();
    let fetched = fetch(&set, folder.path(), &options(&server.url), &mut |_| {}).unwrap();
    assert_eq!(fetched, [Fetched { path: folder.path().join("data"), downloaded: false }]);
    assert_eq!(server.requests().len(), 1, "nothing was fetched for the second folder");

    fs::write(folder.path().join("data"), &contents[1..]).unwrap();
    let message = fetch_noting(&set, folder.path(), &options(&server.url)).0.unwrap_err().to_string();
    assert!(message.contains("data: is there already, but is not Small's file (59999 bytes"), "{message}");
    let unknown = self::set(vec![public("data.gz", &published)]);
    let message = fetch_noting(&unknown, folder.path(), &options(&server.url)).0.unwrap_err().to_string();
    assert!(message.contains("the checksum is only known of the file as it was published"), "{message}");
}

#[test]
fn what_cannot_be_used_is_refused_before_anything_is_asked_for_or_written() {
    let set = set(vec![public("data.bin", &file(10))]);
    let folder = tempdir().unwrap();
    for url in ["ftp://127.0.0.1/x", "127.0.0.1", ""] {
        let message = fetch_noting(&set, folder.path(), &options(url)).0.unwrap_err().to_string();
        assert_eq!(message, format!("{url}: not an address to fetch from; it must begin with http:// or https://"));
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    let occupied = folder.path().join("file");
    fs::write(&occupied, b"").unwrap();
    let message = fetch_noting(&set, &occupied, &options("http://127.0.0.1:9")).0.unwrap_err().to_string();
    assert!(message.starts_with(&format!("cannot create {}", occupied.display())), "{message}");
}
