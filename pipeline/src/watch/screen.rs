//! The terminal as a screen: taken over, drawn, given back as it was.

use std::{
    io::{self, IsTerminal, Read, Write},
    sync::{
        atomic::{AtomicBool, Ordering::SeqCst},
        mpsc::{Receiver, Sender, channel},
    },
    thread,
};

use anyhow::Context;
use crossterm::{
    cursor::{Hide, MoveTo, Show},
    execute, queue,
    style::{Attribute, Print, SetAttribute},
    terminal::{self, Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen},
};
use report::{shorten, visible};

use super::page::Line;

/// What somebody wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// To see no more.
    Quit,
    /// To see other lines: so many further down.
    Lines(isize),
    /// So many screens further down.
    Screens(isize),
}

/// The keys that bytes of a terminal stand for. Ctrl-C is one of them, since a terminal that gives each key at once sends no signal.
fn keys(bytes: &[u8]) -> Vec<Key> {
    const KNOWN: [(&[u8], Key); 15] = [
        (b"\x1b[A", Key::Lines(-1)),
        (b"\x1b[B", Key::Lines(1)),
        (b"\x1bOA", Key::Lines(-1)),
        (b"\x1bOB", Key::Lines(1)),
        (b"\x1b[5~", Key::Screens(-1)),
        (b"\x1b[6~", Key::Screens(1)),
        (b"k", Key::Lines(-1)),
        (b"j", Key::Lines(1)),
        (b"b", Key::Screens(-1)),
        (b" ", Key::Screens(1)),
        (b"g", Key::Lines(isize::MIN)),
        (b"G", Key::Lines(isize::MAX)),
        (b"q", Key::Quit),
        (b"\x03", Key::Quit),
        (b"\x04", Key::Quit),
    ];
    let mut out = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let found = KNOWN.iter().find(|(sequence, _)| rest.starts_with(sequence));
        out.extend(found.map(|(_, key)| *key));
        rest = &rest[found.map_or(1, |(sequence, _)| sequence.len())..];
    }
    out
}

/// Whether the terminal is taken over: whoever gives it back does so once.
static TAKEN: AtomicBool = AtomicBool::new(false);

fn give_back() {
    if TAKEN.swap(false, SeqCst) {
        // Where this fails the terminal is gone.
        let _ = execute!(io::stdout(), Show, LeaveAlternateScreen);
        let _ = terminal::disable_raw_mode();
    }
}

/// The terminal, for as long as this lives.
#[derive(Debug)]
pub struct Screen {
    /// The first line that is shown.
    first: usize,
    /// Lines that were shown of how many.
    shown: (usize, usize),
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

impl Screen {
    /// Takes the terminal over. It is given back at the end, after a panic (whose message is seen then), and after a signal, which
    /// comes as [`Key::Quit`].
    pub fn enter() -> anyhow::Result<(Self, Receiver<Key>)> {
        let (sender, receiver) = channel();
        let signalled = sender.clone();
        ctrlc::set_handler(move || {
            // Nobody listens where it is over anyway.
            let _ = signalled.send(Key::Quit);
        })
        .context("cannot listen for Ctrl-C")?;
        let told = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            give_back();
            told(info);
        }));
        TAKEN.store(true, SeqCst);
        let screen = Self { first: 0, shown: (0, 0) };
        if io::stdin().is_terminal() {
            terminal::enable_raw_mode().context("cannot read single keys")?;
            thread::spawn(move || listen(&sender));
        } else {
            // Signals alone are listened to; the channel stays open for them.
            drop(sender);
        }
        execute!(io::stdout(), EnterAlternateScreen, Hide)?;
        Ok((screen, receiver))
    }

    /// Shows other lines, if there are any.
    pub fn scroll(&mut self, key: Key) {
        let by = match key {
            Key::Quit => 0,
            Key::Lines(by) => by,
            Key::Screens(by) => by.saturating_mul(self.shown.0 as isize),
        };
        let last = self.shown.1.saturating_sub(self.shown.0);
        self.first = self.first.saturating_add_signed(by).min(last);
    }

    /// Draws the lines for the window's columns, and what is watched.
    pub fn draw(&mut self, lines: impl Fn(usize) -> Vec<Line>, place: &str) -> anyhow::Result<()> {
        let (columns, rows) = terminal::size().context("cannot tell the window's size")?;
        let lines = lines(columns.into());
        self.shown = (usize::from(rows).saturating_sub(1), lines.len());
        self.scroll(Key::Lines(0));
        let mut bytes = Vec::new();
        picture(&mut bytes, &lines, self.first, (columns, rows), place)?;
        let mut out = io::stdout().lock();
        out.write_all(&bytes)?;
        Ok(out.flush()?)
    }
}

/// Sends what is typed until nobody listens.
fn listen(to: &Sender<Key>) {
    let mut bytes = [0; 64];
    loop {
        // A terminal that is gone asks for nothing more.
        let typed = match io::stdin().read(&mut bytes) {
            Ok(0) | Err(_) => vec![Key::Quit],
            Ok(count) => keys(&bytes[..count]),
        };
        for key in typed {
            if to.send(key).is_err() || key == Key::Quit {
                return;
            }
        }
    }
}

/// Each line over the one before, with no flicker, and at the bottom what the keys do. Bold and reversed, no colours.
fn picture(
    out: &mut impl Write,
    lines: &[Line],
    first: usize,
    (columns, rows): (u16, u16),
    place: &str,
) -> io::Result<()> {
    let Some(bottom) = rows.checked_sub(1) else { return Ok(()) };
    for row in 0..bottom {
        // Emptied first: behind a full line the cursor still stands on its last character.
        queue!(out, MoveTo(0, row), Clear(ClearType::CurrentLine))?;
        if let Some(line) = lines.get(first + usize::from(row)) {
            let attribute = if line.is_head { Attribute::Bold } else { Attribute::Reset };
            let text = shorten(&line.text, columns.into());
            queue!(out, SetAttribute(attribute), Print(text), SetAttribute(Attribute::Reset))?;
        }
    }
    let seen = lines.len().min(first + usize::from(bottom));
    let scrolls = if lines.len() > usize::from(bottom) {
        format!(" ↑↓ lines {} to {seen} of {}", first + 1, lines.len())
    } else {
        String::new()
    };
    let status = shorten(&format!("q quits{scrolls} · {}", visible(place)), columns.into());
    queue!(
        out,
        MoveTo(0, bottom),
        Clear(ClearType::CurrentLine),
        SetAttribute(Attribute::Reverse),
        Print(status),
        SetAttribute(Attribute::Reset)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What stands on the rows of a window, by the few sequences that are written.
    fn rows(lines: &[Line], first: usize, size: (u16, u16)) -> Vec<String> {
        let mut bytes = Vec::new();
        picture(&mut bytes, lines, first, size, "results.db\u{1b}[2J").unwrap();
        let text = String::from_utf8(bytes).unwrap();
        let mut rows = vec![String::new(); size.1.into()];
        let mut row = 0;
        for part in text.split('\x1b').skip(1) {
            let end = part.find(|c: char| c.is_ascii_alphabetic()).expect("a sequence ends in a letter");
            let (sequence, rest) = part.split_at(end + 1);
            if let Some(place) = sequence.strip_prefix('[').and_then(|place| place.strip_suffix('H')) {
                row = place.split(';').next().unwrap().parse::<usize>().unwrap() - 1;
            }
            assert!(!rest.chars().any(char::is_control), "{rest:?}");
            rows[row].push_str(rest);
        }
        rows
    }

    fn numbered(count: usize, wide: usize) -> Vec<Line> {
        (0..count).map(|at| Line { text: format!("{at} {}", "日".repeat(wide)), is_head: at == 0 }).collect()
    }

    #[test]
    fn a_window_of_any_size_is_filled_and_never_overrun() {
        let lines = numbered(35, 100);
        for size in [(40, 10), (120, 40), (1, 1), (3, 2), (80, 0), (7, 36)] {
            for (at, row) in rows(&lines, 3, size).iter().enumerate() {
                assert_eq!(shorten(row, usize::from(size.0).max(1)), *row, "row {at} of {size:?} is too wide");
                if at + 1 < usize::from(size.1) && size.0 > 5 {
                    let number = if at + 3 < lines.len() { format!("{} ", at + 3) } else { String::new() };
                    assert!(row.starts_with(&number) && row.is_empty() == number.is_empty(), "{row}");
                }
            }
        }
        let small = rows(&lines, 3, (60, 10));
        assert_eq!(small[9], "q quits ↑↓ lines 4 to 12 of 35 · results.db\\u{1b}[2J");
        let all = rows(&lines, 0, (60, 40));
        assert_eq!(all[39], "q quits · results.db\\u{1b}[2J", "nothing to scroll");
        assert!(all[35..39].iter().all(String::is_empty));
    }

    #[test]
    fn one_scrolls_between_the_first_and_the_last_line() {
        let mut screen = Screen { first: 0, shown: (9, 35) };
        let mut after = |typed: &[u8]| {
            keys(typed).into_iter().for_each(|key| screen.scroll(key));
            screen.first
        };
        assert_eq!(after(b"\x1b[Bjj"), 3);
        assert_eq!(after(b"\x1b[A"), 2);
        assert_eq!(after(b" \x1b[6~"), 20);
        assert_eq!(after(b" "), 26, "the last line is at the bottom");
        assert_eq!(after(b"g"), 0);
        assert_eq!(after(b"kb"), 0);
        assert_eq!(after(b"G"), 26);
        assert_eq!(keys(b"x\x1b[Zq\x03"), [Key::Quit, Key::Quit], "what is not known is passed over");
    }
}
