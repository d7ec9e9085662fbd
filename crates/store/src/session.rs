//! One connection with the runtime that drives it, behind blocking calls.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, SqliteConnection};
use tokio::runtime::{Builder, Runtime};

use crate::StoreError;

/// How long a call waits for other processes to finish writing before it gives up. Their transactions take milliseconds, so this
/// is reached only when one of them is stopped in the middle of one.
const BUSY_TIMEOUT: Duration = Duration::from_secs(60);
/// How much of that SQLite waits by itself, before whoever waits is told and the call starts over.
const QUIET_WAIT: Duration = Duration::from_secs(2);

static WHEN_WAITING: OnceLock<fn(&Path)> = OnceLock::new();

/// Has `tell` called with the file's name whenever a call has waited for seconds for another program that keeps a database locked. The
/// first one that is given stays for the process.
pub fn when_waiting(tell: fn(&Path)) {
    WHEN_WAITING.get_or_init(|| tell);
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Reading and writing; makes the file.
    Write,
    /// Reading only, of a file that is there.
    Read,
    /// Reading only, of a file in a folder that cannot be written to, where SQLite cannot make its shared-memory file.
    ReadSealed,
    /// Neither, but allowed to remove log files that nobody needs; makes no file.
    Tidy,
}

/// What the inside of a call ends in: SQLite's own error, which gets the file's name on the way out, or one of ours.
#[derive(Debug)]
pub(crate) enum Problem {
    Sqlite(sqlx::Error),
    Store(StoreError),
}

impl From<sqlx::Error> for Problem {
    fn from(error: sqlx::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Problem {
    /// SQLite's primary result code.
    pub(crate) fn code(&self) -> Option<i32> {
        match self {
            Self::Sqlite(error) => code(error),
            Self::Store(_) => None,
        }
    }

    /// Another process is in the way for the moment: BUSY, or PROTOCOL, which a race for the write-ahead log's locks ends in.
    fn is_busy(&self) -> bool {
        matches!(self.code(), Some(5 | 15))
    }

    pub(crate) fn at(self, path: &Path) -> StoreError {
        match self {
            Self::Store(error) => error,
            Self::Sqlite(error) => match code(&error).and_then(reason) {
                Some(reason) => StoreError::Unavailable { path: path.to_path_buf(), reason },
                None => StoreError::Database { path: path.to_path_buf(), source: Box::new(error) },
            },
        }
    }
}

/// What is in the way, and what can be done, for SQLite's codes that are nothing but the machine's state.
fn reason(code: i32) -> Option<&'static str> {
    Some(match code {
        // BUSY and PROTOCOL.
        5 | 15 => {
            "another program keeps it locked; end what writes to it, and the same command goes on, or name another file with `--db FILE`"
        }
        // READONLY.
        8 => "it or its folder cannot be written to; change that, or name another file with `--db FILE`",
        // FULL.
        13 => "there is no room left to write to it; make some, and the same command goes on",
        _ => return None,
    })
}

/// SQLite's primary result code.
pub(crate) fn code(error: &sqlx::Error) -> Option<i32> {
    let code: i32 = error.as_database_error()?.code()?.parse().ok()?;
    Some(code & 0xff)
}

/// Does the work, again for so long while another process is in the way, and tells of a wait of seconds once.
fn patiently<T>(path: &Path, patience: Duration, mut work: impl FnMut() -> Result<T, Problem>) -> Result<T, Problem> {
    let start = Instant::now();
    let mut told = false;
    loop {
        match work() {
            Err(problem) if problem.is_busy() && start.elapsed() < patience => {
                if start.elapsed() >= QUIET_WAIT && !told {
                    WHEN_WAITING.get().inspect(|tell| tell(path));
                    told = true;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            result => return result,
        }
    }
}

/// One connection. Not to be used from within an async runtime.
#[derive(Debug)]
pub(crate) struct Session {
    runtime: Runtime,
    connection: Option<SqliteConnection>,
    path: PathBuf,
    patience: Duration,
}

impl Session {
    pub(crate) fn open(path: &Path, access: Access) -> Result<Self, Problem> {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Problem::Sqlite(sqlx::Error::Io(error)))?;
        let options = options(path, access);
        let patience = if access == Access::Tidy { Duration::ZERO } else { BUSY_TIMEOUT };
        // Switching a new file to write-ahead logging takes a lock that SQLite does not wait for.
        let connection = patiently(path, patience, || Ok(runtime.block_on(options.connect())?))?;
        let mut session = Self { runtime, connection: Some(connection), path: path.to_path_buf(), patience };
        // This is the first to look into the file, and not among the options for that reason: where it fails, a session that is
        // dropped waits until its connection is closed, and a connection that could not be made does not.
        // In KiB, as SQLite's negative numbers are: views go over the same pages again, and the default of 2 MB is soon full.
        session.attempt(async |connection| {
            sqlx::query("PRAGMA cache_size = -65536").execute(&mut *connection).await?;
            sqlx::query("SELECT count(*) FROM sqlite_schema").execute(connection).await?;
            Ok(())
        })?;
        Ok(session)
    }

    /// Does the work, again where another process was in the way: the work starts over, so it must be one transaction.
    pub(crate) fn attempt<T>(
        &mut self,
        mut work: impl AsyncFnMut(&mut SqliteConnection) -> Result<T, Problem>,
    ) -> Result<T, Problem> {
        let Some(connection) = self.connection.as_mut() else {
            return Err(Problem::Sqlite(sqlx::Error::PoolClosed));
        };
        patiently(&self.path, self.patience, || self.runtime.block_on(work(connection)))
    }

    /// As [`Self::attempt`], with the file's name in the error.
    pub(crate) fn run<T>(
        &mut self,
        work: impl AsyncFnMut(&mut SqliteConnection) -> Result<T, Problem>,
    ) -> Result<T, StoreError> {
        self.attempt(work).map_err(|problem| problem.at(&self.path))
    }
}

impl Drop for Session {
    /// Closes for good: the last one to leave moves the write-ahead log into the file and removes it.
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            // Nothing is lost if this fails: what was written is in the log, and the next one to open the file finds it there.
            let _ = self.runtime.block_on(connection.close());
        }
    }
}

fn options(path: &Path, access: Access) -> SqliteConnectOptions {
    // SQLite takes a name that starts with `file:` for a URI.
    let name = if path.to_string_lossy().starts_with("file:") { Path::new(".").join(path) } else { path.to_path_buf() };
    let options = SqliteConnectOptions::new()
        .filename(name)
        .busy_timeout(QUIET_WAIT)
        .foreign_keys(true)
        .disable_statement_logging();
    match access {
        Access::Write => {
            options.create_if_missing(true).journal_mode(SqliteJournalMode::Wal).synchronous(SqliteSynchronous::Normal)
        }
        Access::Tidy => options.busy_timeout(Duration::ZERO),
        // Rows come from SQLite's thread in batches of this many; the default of 50 switches threads too often.
        Access::Read => options.read_only(true).row_buffer_size(1000).pragma("query_only", "ON"),
        Access::ReadSealed => options.read_only(true).immutable(true).row_buffer_size(1000).pragma("query_only", "ON"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// What the statements end in; the last one fails.
    fn said(session: &mut Session, statements: &[&'static str]) -> String {
        let ran = session.attempt(async |connection| {
            for statement in statements {
                sqlx::query(*statement).execute(&mut *connection).await?;
            }
            Ok(())
        });
        ran.unwrap_err().at(Path::new("x.db")).to_string()
    }

    #[test]
    fn what_is_in_the_way_is_said_in_words() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.db");
        let mut writer = Session::open(&path, Access::Write).unwrap();
        let message = said(&mut writer, &["CREATE TABLE t (x)", "PRAGMA query_only = ON", "INSERT INTO t VALUES (1)"]);
        assert!(message.starts_with("x.db: it or its folder cannot be written to"), "{message}");

        let mut other = Session::open(&path, Access::Tidy).unwrap();
        let full = ["PRAGMA max_page_count = 2", "INSERT INTO t VALUES (zeroblob(1000000))"];
        let message = said(&mut other, &full);
        assert!(message.starts_with("x.db: there is no room left"), "{message}");

        writer
            .attempt(async |connection| {
                for statement in ["PRAGMA query_only = OFF", "BEGIN IMMEDIATE", "INSERT INTO t VALUES (1)"] {
                    sqlx::query(statement).execute(&mut *connection).await?;
                }
                Ok(())
            })
            .unwrap();
        let message = said(&mut other, &["INSERT INTO t VALUES (2)"]);
        assert!(message.starts_with("x.db: another program keeps it locked"), "{message}");
    }

    #[test]
    fn who_waits_is_told_and_goes_on() {
        static TOLD: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());
        when_waiting(|path| TOLD.lock().unwrap().push(path.to_path_buf()));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.db");
        let mut holder = Session::open(&path, Access::Write).unwrap();
        let execute = |session: &mut Session, statement: &'static str| {
            session.attempt(async |connection| Ok(sqlx::query(statement).execute(&mut *connection).await?)).unwrap();
        };
        execute(&mut holder, "CREATE TABLE t (x)");
        execute(&mut holder, "BEGIN IMMEDIATE");
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| {
                let mut other = Session::open(&path, Access::Write).unwrap();
                execute(&mut other, "INSERT INTO t VALUES (1)");
            });
            while TOLD.lock().unwrap().is_empty() {
                assert!(!waiting.is_finished(), "the lock is held");
                std::thread::sleep(Duration::from_millis(10));
            }
            execute(&mut holder, "COMMIT");
        });
        assert_eq!(*TOLD.lock().unwrap(), [path], "once");
        let rows = holder.attempt(async |connection| {
            Ok(sqlx::query_scalar::<_, i64>("SELECT count(*) FROM t").fetch_one(&mut *connection).await?)
        });
        assert_eq!(rows.unwrap(), 1);
    }
}
