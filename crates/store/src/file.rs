//! The database file: opening it, making it, telling it apart from other files.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::{Connection, SqliteConnection};

use crate::StoreError;
use crate::session::{Access, Problem, Session};

pub(crate) static MIGRATIONS: Migrator = sqlx::migrate!("../../migrations");

/// SQLite's result code for a file that is not a database.
const NOT_A_DATABASE: i32 = 26;
/// SQLite's result code for a damaged database.
const CORRUPT: i32 = 11;
/// SQLite's result codes for a file that cannot be opened, or made in a folder that cannot be written to.
const CANNOT_OPEN: i32 = 14;
const CANNOT_WRITE: i32 = 8;

/// A results database. Clones share one connection for writing and one for reading; threads may use them side by side, and other
/// processes may have the same file open.
///
/// Calls block. They must not be made from within an async runtime.
#[derive(Clone, Debug)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    access: Access,
    /// Opened when first needed. Closed before the writer, which can then tidy up: a reader must not remove the log.
    reader: Mutex<Option<Session>>,
    writer: Option<Mutex<Session>>,
    /// Removes the log files that a reader makes and leaves behind; goes last.
    _tidy: Option<Tidy>,
}

impl Store {
    /// Opens the database at `path` for reading and writing. Makes it if there is none, and brings it up to date.
    ///
    /// # Errors
    /// A file that is not a database, is damaged, belongs to another program or was made by a newer or different version of this
    /// one is refused and not altered.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let path = path.as_ref();
        let folder = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        if !folder.is_dir() {
            return Err(StoreError::NoFolder { path: path.to_path_buf(), folder: folder.to_path_buf() });
        }
        let up_to_date = matches!(inspect_patiently(path)?, State::Current);
        let mut writer = Session::open(path, Access::Write).map_err(|problem| problem.at(path))?;
        if !up_to_date {
            writer.run(async |connection| migrate(connection, path).await)?;
        }
        Ok(Self {
            inner: Arc::new(Inner {
                path: path.to_path_buf(),
                access: Access::Read,
                reader: Mutex::new(None),
                writer: Some(Mutex::new(writer)),
                _tidy: None,
            }),
        })
    }

    /// Opens the database at `path` for reading. Makes and alters nothing.
    ///
    /// # Errors
    /// As [`Self::open`], and where there is no such file or it would have to be brought up to date first.
    pub fn open_read_only(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let path = path.as_ref();
        let tidy = Tidy::unless_in_use(path);
        match inspect_patiently(path)? {
            State::Empty => {
                return Err(StoreError::Missing { path: path.to_path_buf() });
            }
            State::Older => {
                return Err(StoreError::Older { path: path.to_path_buf() });
            }
            State::Current => {}
        }
        let (session, access) = open_reader(path).map_err(|problem| problem.at(path))?;
        Ok(Self {
            inner: Arc::new(Inner {
                path: path.to_path_buf(),
                access,
                reader: Mutex::new(Some(session)),
                writer: None,
                _tidy: tidy,
            }),
        })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    pub(crate) fn write<T>(
        &self,
        work: impl AsyncFnMut(&mut SqliteConnection) -> Result<T, Problem>,
    ) -> Result<T, StoreError> {
        let Some(writer) = &self.inner.writer else {
            return Err(StoreError::ReadOnly { path: self.inner.path.clone() });
        };
        lock(writer).run(work)
    }

    /// Reads through the read-only connection.
    pub(crate) fn read<T>(
        &self,
        work: impl AsyncFnMut(&mut SqliteConnection) -> Result<T, Problem>,
    ) -> Result<T, StoreError> {
        let mut reader = lock(&self.inner.reader);
        if reader.is_none() {
            let session =
                Session::open(&self.inner.path, self.inner.access).map_err(|problem| problem.at(&self.inner.path))?;
            *reader = Some(session);
        }
        match reader.as_mut() {
            Some(session) => session.run(work),
            None => Err(StoreError::ReadOnly { path: self.inner.path.clone() }),
        }
    }
}

/// A thread that panicked in the middle of a call has its transaction rolled back, so its connection is fit for the others.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is at the path.
#[derive(Clone, Copy, Debug)]
enum State {
    /// Nothing, or a database without a table.
    Empty,
    /// Ours, of an older version.
    Older,
    /// Ours.
    Current,
}

/// Looks a few times before it refuses a file: it may be one that another process is just making.
fn inspect_patiently(path: &Path) -> Result<State, StoreError> {
    let mut tries_left = 5;
    loop {
        match inspect(path) {
            Err(StoreError::NotADatabase { .. } | StoreError::Foreign { .. }) if tries_left > 0 => {
                tries_left -= 1;
                std::thread::sleep(Duration::from_millis(20));
            }
            result => return result,
        }
    }
}

/// Looks without altering anything.
///
/// The file is read by SQLite only: were it opened and closed here as a plain file, POSIX would drop the locks that other
/// connections of this process hold on it.
fn inspect(path: &Path) -> Result<State, StoreError> {
    match fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(State::Empty),
        Err(error) => {
            return Err(StoreError::Database { path: path.to_path_buf(), source: Box::new(error) });
        }
        Ok(metadata) if metadata.is_dir() => {
            return Err(StoreError::NotADatabase { path: path.to_path_buf(), reason: "it is a folder".to_owned() });
        }
        Ok(metadata) if metadata.len() == 0 => return Ok(State::Empty),
        Ok(_) => {}
    }
    let _tidy = Tidy::unless_in_use(path);
    open_reader(path)
        .and_then(|(mut session, _)| session.attempt(async |connection| state(connection, path).await))
        .map_err(|problem| match problem {
            Problem::Sqlite(error) if matches!(crate::session::code(&error), Some(NOT_A_DATABASE | CORRUPT)) => {
                StoreError::NotADatabase { path: path.to_path_buf(), reason: message(&error) }
            }
            problem => problem.at(path),
        })
}

fn message(error: &sqlx::Error) -> String {
    error.as_database_error().map_or_else(|| error.to_string(), |error| error.message().to_owned())
}

async fn state(connection: &mut SqliteConnection, path: &Path) -> Result<State, Problem> {
    let (tables, migrated): (i64, i64) = sqlx::query_as(
        "SELECT count(*), coalesce(sum(name = '_sqlx_migrations'), 0) FROM sqlite_schema WHERE name NOT LIKE 'sqlite\\_%' ESCAPE '\\'",
    )
    .fetch_one(&mut *connection)
    .await?;
    if tables == 0 {
        return Ok(State::Empty);
    }
    let path = path.to_path_buf();
    if migrated == 0 {
        return Err(StoreError::Foreign { path }.into());
    }
    let applied: Vec<(i64, bool, Vec<u8>)> =
        sqlx::query_as("SELECT version, success, checksum FROM _sqlx_migrations ORDER BY version")
            .fetch_all(&mut *connection)
            .await?;
    // Another program's that uses the same library is told by the identifier that the first migration writes.
    let identifier: i64 = sqlx::query_scalar("PRAGMA application_id").fetch_one(connection).await?;
    if !applied.is_empty() && identifier != APPLICATION_ID {
        return Err(StoreError::Foreign { path }.into());
    }
    for (version, success, checksum) in &applied {
        match MIGRATIONS.iter().find(|known| known.version == *version) {
            None => return Err(StoreError::Newer { path, version: *version }.into()),
            Some(known) if !success || *known.checksum != checksum[..] => {
                return Err(StoreError::Different { path, version: *version }.into());
            }
            Some(_) => {}
        }
    }
    Ok(if applied.len() == MIGRATIONS.iter().count() { State::Current } else { State::Older })
}

/// "pipl", as the first migration writes it into the file's header.
const APPLICATION_ID: i64 = 0x7069_706c;

/// Brings the database up to date in one transaction that keeps other processes from doing the same.
async fn migrate(connection: &mut SqliteConnection, path: &Path) -> Result<(), Problem> {
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    MIGRATIONS.run_direct(None, &mut *transaction, false).await.map_err(|error| match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => Problem::Sqlite(error),
        MigrateError::VersionMissing(version) => StoreError::Newer { path: path.to_path_buf(), version }.into(),
        MigrateError::VersionMismatch(version) | MigrateError::Dirty(version) => {
            StoreError::Different { path: path.to_path_buf(), version }.into()
        }
        other => StoreError::Database { path: path.to_path_buf(), source: Box::new(other) }.into(),
    })?;
    transaction.commit().await?;
    Ok(())
}

fn open_reader(path: &Path) -> Result<(Session, Access), Problem> {
    match Session::open(path, Access::Read) {
        // A folder that cannot be written to has no room for the shared-memory file, and no writer either.
        Err(problem) if matches!(problem.code(), Some(CANNOT_OPEN | CANNOT_WRITE)) && !wal(path).exists() => {
            Ok((Session::open(path, Access::ReadSealed)?, Access::ReadSealed))
        }
        result => Ok((result?, Access::Read)),
    }
}

fn wal(path: &Path) -> PathBuf {
    let mut name: OsString = path.as_os_str().to_owned();
    name.push("-wal");
    PathBuf::from(name)
}

/// A read-only connection makes log files where there are none and may not remove them. This lets SQLite itself do so at the
/// end, by closing a connection that may.
#[derive(Debug)]
struct Tidy {
    path: PathBuf,
}

impl Tidy {
    /// Nothing where log files are there already: they are someone else's.
    fn unless_in_use(path: &Path) -> Option<Self> {
        (!wal(path).exists()).then(|| Self { path: path.to_path_buf() })
    }
}

impl Drop for Tidy {
    fn drop(&mut self) {
        if !wal(&self.path).exists() {
            return;
        }
        // Where this fails, empty log files stay: no harm.
        drop(Session::open(&self.path, Access::Tidy));
    }
}
