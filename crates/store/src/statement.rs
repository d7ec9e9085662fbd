//! Looks at SQL text before SQLite does: that it is one statement, and one that reads.

use crate::StoreError;

/// Statements that people may ask. All of them read; what else can be said in SQL, such as PRAGMA, ATTACH or VACUUM INTO, changes
/// the database, another file or the connection.
const READING: [&str; 4] = ["SELECT", "WITH", "VALUES", "EXPLAIN"];

/// Lets a single reading statement through.
///
/// SQLite refuses writes on its own, since the connection is read-only. This gives the reason in words, and covers what SQLite
/// would do on a read-only connection: opening other files, or running the first of several statements.
pub(crate) fn check(sql: &str) -> Result<(), StoreError> {
    let mut statements = split(sql).into_iter();
    let Some(first) = statements.next() else {
        return Err(StoreError::Query("the query is empty".to_owned()));
    };
    if statements.next().is_some() {
        return Err(StoreError::Query("one statement at a time: there is another one behind the semicolon".to_owned()));
    }
    let keyword = first.keyword.to_ascii_uppercase();
    if READING.contains(&keyword.as_str()) {
        return Ok(());
    }
    Err(StoreError::Query(if keyword.is_empty() {
        format!("a query starts with one of {}", READING.join(", "))
    } else {
        format!("{keyword} is refused: queries only read, and start with one of {}", READING.join(", "))
    }))
}

struct Statement<'a> {
    /// First word; empty where the statement starts with something else.
    keyword: &'a str,
}

/// The statements of the text, without those that are empty.
fn split(sql: &str) -> Vec<Statement<'_>> {
    let bytes = sql.as_bytes();
    let mut statements = Vec::new();
    let mut open = false;
    let mut at = 0;
    while at < bytes.len() {
        let byte = bytes[at];
        let rest = &sql.as_bytes()[at..];
        if byte.is_ascii_whitespace() || rest.starts_with("\u{feff}".as_bytes()) {
            at += if byte.is_ascii_whitespace() { 1 } else { 3 };
            continue;
        }
        if rest.starts_with(b"--") {
            at += find(rest, b"\n");
            continue;
        }
        if rest.starts_with(b"/*") {
            at += 2 + find(&rest[2..], b"*/");
            continue;
        }
        if byte == b';' {
            open = false;
            at += 1;
            continue;
        }
        if !open {
            open = true;
            let length = rest.iter().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_').count();
            statements.push(Statement { keyword: &sql[at..at + length] });
            if length > 0 {
                at += length;
                continue;
            }
        }
        at += match byte {
            // A doubled quote inside is seen as the end of one string and the start of the next: the same in the end.
            b'\'' | b'"' | b'`' => 1 + find(&rest[1..], &[byte]),
            b'[' => 1 + find(&rest[1..], b"]"),
            _ => 1,
        };
    }
    statements
}

/// Where the text after the end mark starts; the end of the text where there is no mark.
fn find(text: &[u8], mark: &[u8]) -> usize {
    text.windows(mark.len()).position(|window| window == mark).map_or(text.len(), |position| position + mark.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn single_reading_statements_pass() {
        for sql in [
            "SELECT 1",
            "select 1;",
            "  \n\tSELECT 1 ; ; -- a; b",
            "-- first; a comment\nSELECT 1",
            "/* ; */ WITH a AS (SELECT 1) SELECT * FROM a",
            "VALUES (1), (2)",
            "EXPLAIN QUERY PLAN SELECT 1",
            "SELECT ';', \";\", `;`, [;] FROM t",
            "SELECT 'it''s; fine'",
            "SELECT '--', 1; /* end */",
            "SELECT '/*'; -- */ x",
            "\u{feff}SELECT 1",
            "SELECT 'ü;🦀'",
        ] {
            assert!(check(sql).is_ok(), "{sql:?}: {:?}", check(sql));
        }
    }

    #[test]
    fn everything_else_is_refused_with_its_reason() {
        for (sql, reason) in [
            ("", "empty"),
            (" ; -- nothing\n;", "empty"),
            ("SELECT 1; SELECT 2", "one statement at a time"),
            ("SELECT ';'; DROP TABLE runs", "one statement at a time"),
            ("SELECT 1; -- x\n DELETE FROM runs", "one statement at a time"),
            ("DELETE FROM runs", "DELETE is refused"),
            ("insert into runs values (1)", "INSERT is refused"),
            ("PRAGMA query_only = OFF", "PRAGMA is refused"),
            ("ATTACH 'other.db' AS other", "ATTACH is refused"),
            ("VACUUM INTO 'copy.db'", "VACUUM is refused"),
            ("/* SELECT */ DROP TABLE runs", "DROP is refused"),
            ("BEGIN", "BEGIN is refused"),
            ("(SELECT 1)", "starts with one of SELECT"),
            ("ünsinn", "starts with one of SELECT"),
            ("SELECTX 1", "SELECTX is refused"),
        ] {
            let message = check(sql).map_err(|error| error.to_string());
            assert!(matches!(&message, Err(message) if message.contains(reason)), "{sql:?}: {message:?}");
        }
    }

    #[test]
    fn unfinished_quotes_and_comments_end_with_the_text() {
        for sql in ["SELECT 'open", "SELECT /* open", "SELECT [open", "SELECT \"open;"] {
            assert_eq!(split(sql).len(), 1, "{sql:?}");
        }
    }
}
