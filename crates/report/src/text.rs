//! Numbers and names as text: formats, escapes, widths.

use unicode_width::UnicodeWidthChar;

/// A character that does something where it is shown: a control character, or one that turns the direction of the text around it.
pub fn is_obeyed(c: char) -> bool {
    let turns = matches!(
        c,
        '\u{200e}' | '\u{200f}' | '\u{061c}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}'
    );
    turns || c.is_control()
}

/// A name as it may be shown anywhere: on one line, without control characters and without the characters that turn
/// the direction of the text around them (they are shown as `\u{…}` instead).
pub fn visible(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for c in name.chars() {
        match c {
            '\n' | '\r' | '\t' | '\u{2028}' | '\u{2029}' => out.push(' '),
            // Not allowed in XML, not even escaped.
            '\u{fffe}' | '\u{ffff}' => out.extend(c.escape_unicode()),
            c if is_obeyed(c) => out.extend(c.escape_unicode()),
            c => out.push(c),
        }
    }
    out
}

/// A name as text in Markdown: characters with a meaning there, or in the HTML that Markdown admits, are escaped.
pub fn markdown(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for c in visible(name).chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\\' | '`' | '*' | '_' | '[' | ']' | '|' | '~' | '#' | '$' | '!' => {
                out.push('\\');
                out.push(c);
            }
            c => out.push(c),
        }
    }
    out
}

/// A name between backticks in Markdown: the fence is longer than any run of backticks inside. Bars are escaped for tables.
pub fn markdown_code(name: &str) -> String {
    let name = visible(name).replace('|', "\\|");
    let longest = name.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest + 1);
    let pad = if longest > 0 || name.is_empty() { " " } else { "" };
    format!("{fence}{pad}{name}{pad}{fence}")
}

/// A word for a POSIX shell, quoted where it has to be.
pub fn shell_word(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+%@".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", visible(word).replace('\'', "'\\''"))
    }
}

/// Columns that a text takes on a terminal.
pub fn width(text: &str) -> usize {
    text.chars().map(|c| c.width().unwrap_or(0)).sum()
}

/// The text in at most `columns` columns, cut with an ellipsis.
pub fn shorten(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let mut out = String::new();
    let mut used = 1;
    for c in text.chars() {
        used += c.width().unwrap_or(0);
        if used > columns {
            break;
        }
        out.push(c);
    }
    out.push('…');
    out
}

/// A whole number with thin groups: 62,378,344.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A number with `digits` significant digits and no trailing zeros after the point; very large and small ones as 1.5e-7.
pub fn significant(value: f64, digits: usize) -> String {
    if !value.is_finite() {
        return "–".to_owned();
    }
    if value == 0.0 {
        return "0".to_owned();
    }
    let scientific = format!("{value:.*e}", digits.saturating_sub(1));
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let trim = |text: &str| {
        if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text.to_owned() }
    };
    if (-5..7).contains(&exponent) {
        let decimals = usize::try_from(digits as i32 - 1 - exponent).unwrap_or(0);
        trim(&format!("{value:.decimals$}"))
    } else {
        format!("{}e{exponent}", trim(mantissa))
    }
}

/// An accuracy, a fraction in [0, 1], as a percentage with two decimals: 98.72 %.
pub fn percent(fraction: f64) -> String {
    if fraction.is_finite() { format!("{:.2} %", 100.0 * fraction) } else { "–".to_owned() }
}

/// A difference of accuracies as percentage points with a sign: +1.24, −0.31.
pub fn points(difference: f64) -> String {
    let rounded = (1e4 * difference).round() / 100.0;
    if !difference.is_finite() {
        "–".to_owned()
    } else if rounded < 0.0 {
        format!("−{:.2}", -rounded)
    } else {
        format!("+{:.2}", rounded.abs())
    }
}

/// A measure: three significant digits, whole and grouped from a thousand on.
pub fn measure(value: f64) -> String {
    if (1000.0..1e15).contains(&value) { grouped(value.round() as u64) } else { significant(value, 3) }
}

/// A p-value: three significant digits, small ones as a bound.
pub fn p_value(p: f64) -> String {
    if p < 0.0001 { "< 0.0001".to_owned() } else { significant(p, 2) }
}

/// A p-value in a sentence: p = 0.031, p < 0.0001.
pub fn p_equation(p: f64) -> String {
    let value = p_value(p);
    if value.starts_with('<') { format!("p {value}") } else { format!("p = {value}") }
}

/// A duration: 0.42 s, 12.3 s, 4 min 05 s, 2 h 10 min.
pub fn seconds(value: f64) -> String {
    if !value.is_finite() {
        "–".to_owned()
    } else if value < 59.95 {
        format!("{} s", significant(value, 3))
    } else if value < 3599.5 {
        let whole = value.round() as u64;
        format!("{} min {:02} s", whole / 60, whole % 60)
    } else {
        let minutes = (value / 60.0).round() as u64;
        format!("{} h {:02} min", minutes / 60, minutes % 60)
    }
}

/// "1 seed", "3 seeds".
pub fn count(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

/// A table of text, columns aligned: the first to the left, the others as `right` says.
pub fn aligned(header: &[String], rows: &[Vec<String>], right: &[bool]) -> String {
    let columns = header.len();
    let cell = |row: &[String], index: usize| row.get(index).cloned().unwrap_or_default();
    let widths: Vec<usize> = (0..columns)
        .map(|index| rows.iter().map(|row| width(&cell(row, index))).chain([width(&header[index])]).max().unwrap_or(0))
        .collect();
    let mut out = String::new();
    let mut line = |row: &[String]| {
        let mut text = String::new();
        for (index, &columns_wide) in widths.iter().enumerate() {
            if index > 0 {
                text.push_str("  ");
            }
            let value = cell(row, index);
            let pad = " ".repeat(columns_wide.saturating_sub(width(&value)));
            if right.get(index).copied().unwrap_or(false) {
                text.push_str(&pad);
                text.push_str(&value);
            } else {
                text.push_str(&value);
                text.push_str(&pad);
            }
        }
        out.push_str(text.trim_end());
        out.push('\n');
    };
    line(header);
    line(&widths.iter().map(|&columns_wide| "─".repeat(columns_wide)).collect::<Vec<_>>());
    for row in rows {
        line(row);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(grouped(62_378_344), "62,378,344");
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(significant(0.0005, 3), "0.0005");
        assert_eq!(significant(1.5e-7, 3), "1.5e-7");
        assert_eq!(significant(1234.567, 3), "1235");
        assert_eq!(significant(0.999_96, 3), "1");
        assert_eq!(significant(-12.0, 3), "-12");
        assert_eq!(percent(0.98765), "98.77 %");
        assert_eq!(points(-0.0124), "−1.24");
        assert_eq!(points(-0.000_04), "+0.00");
        assert_eq!(measure(113_176.4), "113,176");
        assert_eq!(measure(13.37), "13.4");
        assert_eq!(seconds(0.4213), "0.421 s");
        assert_eq!(seconds(59.97), "1 min 00 s");
        assert_eq!(seconds(7800.0), "2 h 10 min");
        assert_eq!(p_value(0.000_01), "< 0.0001");
        assert_eq!(p_value(0.0312), "0.031");
        assert_eq!((p_equation(0.000_01), p_equation(0.0312)), ("p < 0.0001".to_owned(), "p = 0.031".to_owned()));
    }

    #[test]
    fn hostile_names_become_plain_text() {
        assert_eq!(visible("a\nb\u{202e}c\u{0}"), "a b\\u{202e}c\\u{0}");
        assert_eq!(markdown("<b>|x|_y_"), "&lt;b&gt;\\|x\\|\\_y\\_");
        assert_eq!(markdown_code("a`b"), "`` a`b ``");
        assert_eq!(shell_word("a b'c"), "'a b'\\''c'");
        assert_eq!(shell_word("lenet5-mnist"), "lenet5-mnist");
        assert_eq!(shorten("abcdef", 4), "abc…");
        assert_eq!(width("日本"), 4);
    }

    #[test]
    fn columns_line_up() {
        let text = aligned(
            &["name".into(), "n".into()],
            &[vec!["日本".into(), "1".into()], vec!["a".into(), "12".into()]],
            &[false, true],
        );
        assert_eq!(text, "name   n\n────  ──\n日本   1\na     12\n");
    }
}
