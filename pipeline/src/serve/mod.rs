//! A web page of the results, for browsers on this machine: reads only, holds all that it needs, opens no connection itself.

mod curves;
mod http;
mod pages;
mod reports;

use std::{
    net::{IpAddr, SocketAddr, TcpListener},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::SystemTime,
};

use anyhow::Context;
use store::Store;

pub use http::Response;

use self::reports::Reports;
use crate::{cli::Global, output};

/// Connections served side by side; one more is told to come back.
const CONNECTIONS: usize = 64;

/// What all connections share.
pub struct Site {
    /// The results.
    pub store: Store,
    /// What all commands share.
    pub global: Global,
    /// Folder that reports are written into.
    pub scratch: PathBuf,
    /// The newest report of each experiment.
    pub reports: Arc<Reports>,
}

/// Serves until the process is stopped.
pub fn serve(host: IpAddr, port: u16, global: &Global) -> anyhow::Result<()> {
    let store = Store::open_read_only(&global.db)?;
    let address = SocketAddr::new(host, port);
    let listener = TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"))?;
    let bound = listener.local_addr()?;
    // Not there yet, whatever a process of the same number left.
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let scratch = std::env::temp_dir().join(format!("pipeline-serve-{}-{}", std::process::id(), since.as_nanos()));
    std::fs::create_dir(&scratch).with_context(|| format!("cannot make {}", scratch.display()))?;
    let gone = scratch.clone();
    ctrlc::set_handler(move || {
        let _ = std::fs::remove_dir_all(&gone);
        std::process::exit(0);
    })
    .context("cannot listen for Ctrl-C")?;
    output::line(&format!("http://{bound}/ shows {}; Ctrl-C stops", global.db.display()))?;
    if !host.is_loopback() && !global.quiet {
        eprintln!("{host} is not of this machine alone: whoever reaches it sees all results");
    }
    let site = Arc::new(Site { store, global: global.clone(), scratch, reports: Arc::default() });
    let open = Arc::new(AtomicUsize::new(0));
    for stream in listener.incoming() {
        // One that broke off before it began is nobody's loss.
        let Ok(stream) = stream else { continue };
        if open.fetch_add(1, SeqCst) >= CONNECTIONS {
            open.fetch_sub(1, SeqCst);
            continue;
        }
        let (site, open) = (Arc::clone(&site), Arc::clone(&open));
        thread::spawn(move || {
            let answer = |path: &str, query: &str| {
                std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| pages::answer(&site, path, query)))
                    .unwrap_or_else(|_| Response::text(500, "a bug: the terminal says more"))
            };
            // Whoever asked has gone; the next one is served.
            let _ = http::converse(stream, &answer);
            open.fetch_sub(1, SeqCst);
        });
    }
    Ok(())
}
