//! As much of HTTP/1.1 (RFC 9112) as a page that is only read needs: GET and HEAD, one request to a connection.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{IpAddr, Shutdown, TcpStream},
    time::Duration,
};

/// Largest head of a request, in bytes.
const HEAD: u64 = 16 << 10;
/// Longest that a browser may take to ask or to read.
const PATIENCE: Duration = Duration::from_secs(10);

/// Longest that what nobody wants is waited for.
const LINGER: Duration = Duration::from_millis(500);

/// What is sent back.
pub struct Response {
    status: u16,
    kind: &'static str,
    policy: &'static str,
    /// Seconds after which a browser asks again by itself.
    again_s: Option<u32>,
    body: Vec<u8>,
}

/// Nothing from anywhere but this server, no script and style in the page itself.
const OWN: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// A report holds everything itself and fetches nothing.
const WHOLE: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

impl Response {
    /// A page of this server.
    pub fn page(status: u16, body: String) -> Self {
        Self { status, kind: "text/html; charset=utf-8", policy: OWN, again_s: None, body: body.into_bytes() }
    }

    /// A report; the browser asks for it again after so many seconds.
    pub fn report(body: String, again_s: Option<u32>) -> Self {
        Self { status: 200, kind: "text/html; charset=utf-8", policy: WHOLE, again_s, body: body.into_bytes() }
    }

    /// A page that stands in for one which is being made; the browser asks again every second.
    pub fn wait(body: String) -> Self {
        Self { again_s: Some(1), ..Self::page(202, body) }
    }

    /// A file that pages need.
    pub fn file(kind: &'static str, body: &str) -> Self {
        Self { status: 200, kind, policy: OWN, again_s: None, body: body.into() }
    }

    /// A line of text.
    pub fn text(status: u16, line: &str) -> Self {
        let body = format!("{line}\n").into_bytes();
        Self { status, kind: "text/plain; charset=utf-8", policy: OWN, again_s: None, body }
    }

    fn send(&self, mut stream: &TcpStream, with_body: bool) -> std::io::Result<()> {
        let reason = match self.status {
            200 => "OK",
            202 => "Accepted",
            400 => "Bad Request",
            403 => "Forbidden",
            404 => "Not Found",
            405 => "Method Not Allowed",
            _ => "Internal Server Error",
        };
        let head = format!(
            "HTTP/1.1 {} {reason}\r\nContent-Type: {}\r\nContent-Length: {}\r\nContent-Security-Policy: {}\r\n\
             Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\n\
             Cross-Origin-Resource-Policy: same-origin\r\nAllow: GET, HEAD\r\n{}Connection: close\r\n\r\n",
            self.status,
            self.kind,
            self.body.len(),
            self.policy,
            self.again_s.map_or_else(String::new, |seconds| format!("Refresh: {seconds}\r\n"))
        );
        stream.write_all(head.as_bytes())?;
        if with_body {
            stream.write_all(&self.body)?;
        }
        stream.flush()
    }
}

/// Reads a request and answers it. `answer` gets the path and the query behind it.
pub fn converse(stream: TcpStream, answer: &dyn Fn(&str, &str) -> Response) -> std::io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut reader = BufReader::new((&stream).take(HEAD));
    let mut head = Vec::new();
    loop {
        let mut line = Vec::new();
        // An end that comes too early, or never, is no request.
        if reader.read_until(b'\n', &mut line)? == 0 || !line.ends_with(b"\n") {
            Response::text(400, "a request that is too long, or no request").send(&stream, true)?;
            return finish(&stream);
        }
        let line = String::from_utf8_lossy(&line).trim_end().to_owned();
        if line.is_empty() {
            break;
        }
        head.push(line);
    }
    let mut words = head.first().map(String::as_str).unwrap_or_default().split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let hosts: Vec<&str> = head
        .iter()
        .skip(1)
        .filter_map(|line| line.split_once(':'))
        .filter(|(name, _)| name.eq_ignore_ascii_case("host"))
        .map(|(_, value)| value.trim())
        .collect();
    let response = match (method, &hosts[..]) {
        ("GET" | "HEAD", [host]) if is_own(host) => {
            let (path, query) = target.split_once('?').unwrap_or((target, ""));
            answer(path, query)
        }
        ("GET" | "HEAD", [_]) => Response::text(403, "this page is asked for as localhost or by an address"),
        ("GET" | "HEAD", _) => Response::text(400, "a request names one host"),
        _ => Response::text(405, "this page is only read"),
    };
    response.send(&stream, method != "HEAD")?;
    finish(&stream)
}

/// Reads what is still coming: closing on unread bytes would reset the connection and take the answer along (RFC 9112, 9.6).
fn finish(mut stream: &TcpStream) -> std::io::Result<()> {
    stream.shutdown(Shutdown::Write)?;
    stream.set_read_timeout(Some(LINGER))?;
    let mut rest = [0; 4096];
    for _ in 0..64 {
        if stream.read(&mut rest)? == 0 {
            break;
        }
    }
    Ok(())
}

/// Another site's name may lead to this machine (DNS rebinding): only `localhost` and addresses can be trusted to mean it.
fn is_own(host: &str) -> bool {
    let (name, port) = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((name, rest)) => (name, rest.strip_prefix(':').or(rest.is_empty().then_some("0"))),
        None => host.split_once(':').map_or((host, Some("0")), |(name, port)| (name, Some(port))),
    };
    let is_port = port.is_some_and(|port| port.parse::<u16>().is_ok());
    is_port && (name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_and_addresses_are_hosts() {
        for host in ["localhost", "LOCALHOST:80", "127.0.0.1", "127.0.0.1:8080", "[::1]", "[::1]:8080", "192.168.1.5:1"]
        {
            assert!(is_own(host), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "evil.example:80",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "localhost:x",
            "localhost@evil",
            "[::1",
            "[evil]:1",
        ] {
            assert!(!is_own(host), "{host}");
        }
    }
}
