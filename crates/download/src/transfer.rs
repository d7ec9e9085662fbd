//! One request, and what becomes of its answer.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
    path::Path,
    time::Duration,
};

use ureq::{
    Agent,
    http::{HeaderMap, StatusCode, Uri, header},
    tls::{Certificate, RootCerts, TlsConfig},
};

use crate::{DownloadError, Event, PublicFile};

/// Bytes that are read at a time.
const BUFFER_BYTES: usize = 1 << 16;

/// Why an attempt did not bring the whole file.
pub(crate) enum Failure {
    /// The next attempt may.
    Transient(String),
    /// No attempt will.
    Hopeless(String),
    /// The server will not give it.
    Refused(String),
    /// The server offers a file of so many bytes, which cannot be the right one.
    WrongSize(u64),
    /// It is the fault of this machine.
    Here(DownloadError),
}

/// A file on its way.
pub(crate) struct Transfer<'a> {
    pub agent: Agent,
    pub url: &'a str,
    pub file: &'a PublicFile<'a>,
    /// Where it grows.
    pub part: &'a Path,
    /// Longest silence of the server.
    pub silence: Duration,
}

/// Whoever asks at `url`, and gives up after `silence`.
pub(crate) fn agent(url: &str, silence: Duration) -> Agent {
    let silence = Some(silence);
    let mut config = Agent::config_builder()
        .http_status_as_error(false)
        .user_agent(concat!("pipeline/", env!("CARGO_PKG_VERSION")))
        .timeout_resolve(silence)
        .timeout_connect(silence)
        .timeout_recv_response(silence)
        .timeout_per_read(silence)
        .timeout_per_write(silence);
    // The system's certificates, so that an institute's own authority counts; where it has none, Mozilla's.
    let certificates: Vec<_> = match url.starts_with("https://") {
        true => rustls_native_certs::load_native_certs().certs,
        false => Vec::new(),
    };
    if !certificates.is_empty() {
        let roots: Vec<_> =
            certificates.iter().map(|certificate| Certificate::from_der(certificate).to_owned()).collect();
        config = config.tls_config(TlsConfig::builder().root_certs(RootCerts::new_with_certs(&roots)).build());
    }
    // A proxy is for what is outside of this machine.
    if is_this_machine(url) {
        config = config.proxy(None);
    }
    config.build().into()
}

fn is_this_machine(url: &str) -> bool {
    let host = url.parse::<Uri>().ok().and_then(|uri| uri.host().map(str::to_owned)).unwrap_or_default();
    let address = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

impl Transfer<'_> {
    /// Bytes that are there.
    pub fn kept(&self) -> u64 {
        std::fs::metadata(self.part).map_or(0, |metadata| metadata.len())
    }

    /// Throws away what is there.
    pub fn discard(&self) -> Result<(), DownloadError> {
        match std::fs::remove_file(self.part) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(DownloadError::io("remove", self.part, error)),
            _ => Ok(()),
        }
    }

    /// Asks for what is missing and appends it, until the file is as long as the server says.
    pub fn attempt(&self, tell: &mut dyn FnMut(Event<'_>)) -> Result<(), Failure> {
        let kept = self.kept();
        if kept == self.file.bytes {
            // Killed between the last byte and the check.
            return Ok(());
        }
        let mut request = self.agent.get(self.url).header(header::ACCEPT_ENCODING, "identity");
        if kept > 0 {
            request = request.header(header::RANGE, format!("bytes={kept}-"));
        }
        let response = request.call().map_err(|error| self.refusal(error))?;
        let (start, total) = match response.status() {
            // The whole: the server does not know ranges, or this is the beginning.
            StatusCode::OK => (0, response.body().content_length()),
            StatusCode::PARTIAL_CONTENT => match content_range(response.headers()) {
                Some((Some(start), total)) if start == kept => (kept, total),
                _ => {
                    self.discard().map_err(Failure::Here)?;
                    return Err(Failure::Transient("the server sent another part than it was asked for".to_owned()));
                }
            },
            StatusCode::RANGE_NOT_SATISFIABLE if kept > 0 => {
                if content_range(response.headers()).is_some_and(|(_, total)| total == Some(kept)) {
                    return Ok(());
                }
                self.discard().map_err(Failure::Here)?;
                return Err(Failure::Transient("more was kept than the server's file has".to_owned()));
            }
            status => {
                let again = status.is_server_error()
                    || [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_EARLY, StatusCode::TOO_MANY_REQUESTS]
                        .contains(&status);
                let status = status.to_string();
                return Err(match again {
                    true => Failure::Transient(format!("the server answered {status}")),
                    false => Failure::Refused(status),
                });
            }
        };
        if let Some(total) = total
            && total != self.file.bytes
            && self.file.contents.is_none()
        {
            return Err(Failure::WrongSize(total));
        }
        self.receive(response.into_body(), start, total, tell)
    }

    /// Writes what comes behind the first `start` bytes.
    fn receive(
        &self,
        body: ureq::Body,
        start: u64,
        total: Option<u64>,
        tell: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), Failure> {
        let here = |error| Failure::Here(DownloadError::io("write", self.part, error));
        let mut part = File::options().create(true).truncate(false).write(true).open(self.part).map_err(here)?;
        part.set_len(start).and_then(|()| part.seek(SeekFrom::End(0))).map_err(here)?;
        let mut done = start;
        let expected = total.unwrap_or(self.file.bytes);
        // A server that tells no length must not fill the disk.
        let most = total.unwrap_or(2 * self.file.bytes + BUFFER_BYTES as u64);
        tell(Event::Started { url: self.url, done, total: expected });
        let mut reader = body.into_with_config().limit(u64::MAX).reader();
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            let read = match reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Failure::Transient(self.reason(ureq::Error::from(error)))),
            };
            done += read as u64;
            if done > most {
                self.discard().map_err(Failure::Here)?;
                return Err(Failure::WrongSize(done));
            }
            part.write_all(&buffer[..read]).map_err(here)?;
            tell(Event::Progress { done, total: expected });
        }
        match total {
            Some(total) if done < total => Err(Failure::Transient(format!("it ended after {done} of {total} bytes"))),
            // Without a length the end of the connection may be the end of the file or not: the checksum says.
            None if done < self.file.bytes && self.file.contents.is_none() => {
                Err(Failure::Transient(format!("it ended after {done} of {} bytes", self.file.bytes)))
            }
            _ => Ok(()),
        }
    }

    /// What a request without an answer means.
    fn refusal(&self, error: ureq::Error) -> Failure {
        match error {
            ureq::Error::BadUri(_) | ureq::Error::Http(_) => {
                Failure::Here(DownloadError::Address { url: self.url.to_owned() })
            }
            ureq::Error::TooManyRedirects => Failure::Refused("with one redirection after the other".to_owned()),
            error @ (ureq::Error::Rustls(_) | ureq::Error::Tls(_) | ureq::Error::InvalidProxyUrl) => {
                Failure::Hopeless(error.to_string())
            }
            error => Failure::Transient(self.reason(error)),
        }
    }

    fn reason(&self, error: ureq::Error) -> String {
        match error {
            ureq::Error::Timeout(_) => format!("no answer for {} s", self.silence.as_secs_f64()),
            ureq::Error::HostNotFound => "no such host, or no network".to_owned(),
            ureq::Error::Io(error) => error.to_string(),
            error => error.to_string(),
        }
    }
}

/// First byte and whole length of `Content-Range: bytes 200-999/1000`, as far as they are told.
fn content_range(headers: &HeaderMap) -> Option<(Option<u64>, Option<u64>)> {
    let range = headers.get(header::CONTENT_RANGE)?.to_str().ok()?.trim().strip_prefix("bytes")?.trim_start();
    let (range, total) = range.split_once('/')?;
    let start = range.split_once('-').and_then(|(start, _)| start.trim().parse().ok());
    Some((start, total.trim().parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_the_standard_writes_them() {
        let range = |text: &'static str| {
            content_range(&HeaderMap::from_iter([(header::CONTENT_RANGE, header::HeaderValue::from_static(text))]))
        };
        assert_eq!(range("bytes 200-999/1000"), Some((Some(200), Some(1000))));
        assert_eq!(range("bytes 200-999/*"), Some((Some(200), None)));
        assert_eq!(range("bytes */1000"), Some((None, Some(1000))));
        assert_eq!(range("lines 1-2/3"), None);
        assert_eq!(content_range(&HeaderMap::new()), None);
    }

    #[test]
    fn a_proxy_is_not_asked_for_this_machine() {
        for url in ["http://127.0.0.1:80/a", "http://localhost/a", "http://[::1]:8000"] {
            assert!(is_this_machine(url), "{url}");
        }
        assert!(!is_this_machine("https://example.org") && !is_this_machine("nonsense"));
    }
}
