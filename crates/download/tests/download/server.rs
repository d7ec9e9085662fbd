//! A web server on this machine that behaves as a test wants it to.

use std::{
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
};

/// What was asked for.
#[derive(Clone, Debug)]
pub struct Request {
    /// Path of the address, with its leading slash.
    pub path: String,
    /// First byte that was asked for, where a range was.
    pub start: Option<usize>,
    /// How many requests came before.
    pub number: usize,
}

/// Runs until the test ends.
pub struct Server {
    /// `http://127.0.0.1:PORT`.
    pub url: String,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    /// Answers each request by `answer`, which writes to the connection; it is closed afterwards.
    pub fn start(answer: impl Fn(&Request, &mut TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (all, answer) = (Arc::clone(&requests), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (all, answer) = (Arc::clone(&all), Arc::clone(&answer));
                std::thread::spawn(move || {
                    let mut stream = stream.unwrap();
                    if let Some(request) = read(&stream, &all) {
                        answer(&request, &mut stream);
                    }
                });
            }
        });
        Self { url, requests }
    }

    /// What has been asked for so far.
    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

fn read(stream: &TcpStream, all: &Mutex<Vec<Request>>) -> Option<Request> {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next()?.ok()?;
    let path = first.split(' ').nth(1)?.to_owned();
    let mut start = None;
    for line in lines.map_while(Result::ok).take_while(|line| !line.is_empty()) {
        if let Some(range) = line.to_lowercase().strip_prefix("range: bytes=") {
            start = range.trim_end_matches('-').parse().ok();
        }
    }
    let mut all = all.lock().unwrap();
    let request = Request { path, start, number: all.len() };
    all.push(request.clone());
    Some(request)
}

/// Writes an answer with a head of these lines. That nobody reads it to the end is the test's business.
pub fn answer(stream: &mut TcpStream, status: &str, headers: &[String], body: &[u8]) {
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    let head = format!("HTTP/1.1 {status}\r\nConnection: close\r\n{headers}\r\n");
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body)).and_then(|()| stream.flush());
}

/// Gives the file, or the part of it that was asked for, as a server of the usual kind does.
pub fn give(request: &Request, stream: &mut TcpStream, file: &[u8]) {
    match request.start {
        None => answer(stream, "200 OK", &[format!("Content-Length: {}", file.len())], file),
        Some(start) if start < file.len() => {
            let range = format!("Content-Range: bytes {start}-{}/{}", file.len() - 1, file.len());
            let length = format!("Content-Length: {}", file.len() - start);
            answer(stream, "206 Partial Content", &[range, length], &file[start..]);
        }
        Some(_) => {
            let range = format!("Content-Range: bytes */{}", file.len());
            answer(stream, "416 Range Not Satisfiable", &[range, "Content-Length: 0".to_owned()], b"");
        }
    }
}
