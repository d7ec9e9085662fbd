//! A sheet to draw on: plotters' SVG backend in quarter pixels, with colours that follow the page.

use plotters::coord::Shift;
use plotters::prelude::{
    Circle, DrawingArea, FontTransform, IntoDrawingArea, IntoFont, PathElement, Polygon, RGBColor, Rectangle,
    SVGBackend, ShapeStyle, Text,
};
use plotters::style::Color;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::ReportError;
use crate::picture::Picture;
use crate::text;

/// The backend's coordinates are whole numbers: so many of them make one pixel.
const FINE: f64 = 4.0;

/// Stands for the page's own text colour, which the finished SVG takes from `currentColor`.
pub const INK: RGBColor = RGBColor(1, 2, 3);

/// Stands for the text colour too, with the page's ground round it.
const HALO: RGBColor = RGBColor(1, 2, 4);

/// Okabe and Ito's palette (2008), which colour-blind readers can tell apart; black, which the background may be, and
/// yellow, which is faint on white, left out.
pub const PALETTE: [RGBColor; 6] = [
    RGBColor(0x00, 0x72, 0xB2),
    RGBColor(0xD5, 0x5E, 0x00),
    RGBColor(0x00, 0x9E, 0x73),
    RGBColor(0xCC, 0x79, 0xA7),
    RGBColor(0xE6, 0x9F, 0x00),
    RGBColor(0x56, 0xB4, 0xE9),
];

/// Text sizes, in pixels.
pub const SMALL: f64 = 12.0;
/// Axis titles and legends.
pub const NORMAL: f64 = 13.0;
/// The plot's title.
pub const TITLE: f64 = 16.0;

/// A finished plot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plot {
    /// File name without its ending.
    pub name: String,
    /// Title, also drawn.
    pub title: String,
    /// What it shows and how to read it, in a sentence or two.
    pub caption: String,
    /// The picture; its text takes the surrounding colour.
    pub svg: String,
}

/// Where a text sits in relation to its point, horizontally.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// The text begins there.
    Start,
    /// The text is centred there.
    Middle,
    /// The text ends there.
    End,
}

/// The shapes of data points, so that series differ in more than their colour.
const MARKERS: usize = 4;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// The sheet.
pub struct Canvas<'a> {
    area: Area<'a>,
    /// First failure of the backend, told at the end.
    failure: Option<String>,
    /// Pictures, which the backend has no element for: they are put on top at the end.
    pictures: String,
}

/// Width of a text in pixels, as far as that can be known without a font (a wide one: what fits then fits always).
pub fn text_width(text: &str, size: f64) -> f64 {
    let em: f64 = text
        .chars()
        .map(|c| match c {
            'i' | 'l' | 'j' | '.' | ',' | ':' | '|' | '\'' | 'I' | 't' | 'f' | 'r' | '(' | ')' | ' ' => 0.37,
            'm' | 'w' | 'M' | 'W' | '%' | '@' => 0.95,
            'A'..='Z' => 0.7,
            c if c.is_ascii() => 0.63,
            c => 0.65 * text::width(&c.to_string()).max(1) as f64,
        })
        .sum();
    em * size
}

/// The text cut so that it is at most `pixels` wide.
pub fn fit(text: &str, size: f64, pixels: f64) -> String {
    if text_width(text, size) <= pixels {
        return text.to_owned();
    }
    let mut out = String::new();
    for c in text.chars() {
        out.push(c);
        if text_width(&out, size) > pixels - size {
            out.pop();
            break;
        }
    }
    out.push('…');
    out
}

/// Draws a plot of `width` × `height` pixels.
pub fn draw(
    name: &str,
    title: &str,
    caption: &str,
    (width, height): (f64, f64),
    paint: impl FnOnce(&mut Canvas<'_>),
) -> Result<Plot, ReportError> {
    let problem = |cause: String| ReportError::Plot { plot: name.to_owned(), cause };
    let (fine_width, fine_height) = ((width * FINE) as u32, (height * FINE) as u32);
    let mut buffer = String::new();
    let pictures;
    {
        let area = SVGBackend::with_string(&mut buffer, (fine_width, fine_height)).into_drawing_area();
        let mut canvas = Canvas { area, failure: None, pictures: String::new() };
        canvas.bold(16.0, 22.0, &fit(title, TITLE, width - 32.0), TITLE, Align::Start);
        paint(&mut canvas);
        canvas.area.present().map_err(|error| problem(error.to_string()))?;
        if let Some(cause) = canvas.failure {
            return Err(problem(cause));
        }
        pictures = canvas.pictures;
    }
    if let Some(end) = buffer.rfind("</svg>") {
        buffer.insert_str(end, &pictures);
    }
    // Shown at its size in pixels, as an image that says its title.
    let opening = format!("<svg width=\"{fine_width}\" height=\"{fine_height}\"");
    let mut label = String::new();
    for c in text::visible(title).chars() {
        match c {
            '&' => label.push_str("&amp;"),
            '<' => label.push_str("&lt;"),
            '>' => label.push_str("&gt;"),
            '"' => label.push_str("&quot;"),
            c => label.push(c),
        }
    }
    let svg = buffer
        .replacen(
            &opening,
            &format!("<svg role=\"img\" aria-label=\"{label}\" width=\"{width}\" height=\"{height}\""),
            1,
        )
        .replace("fill=\"#010204\"", "fill=\"currentColor\" class=\"halo\"")
        .replace("#010203", "currentColor")
        .replace("opacity=\"1\" ", "");
    Ok(Plot { name: name.to_owned(), title: title.to_owned(), caption: caption.to_owned(), svg })
}

impl<'a> Canvas<'a> {
    fn at(x: f64, y: f64) -> (i32, i32) {
        ((x * FINE).round() as i32, (y * FINE).round() as i32)
    }

    fn keep<E: std::fmt::Display>(&mut self, result: Result<(), E>) {
        if let Err(error) = result {
            self.failure.get_or_insert(error.to_string());
        }
    }

    fn write(&mut self, place: (f64, f64), words: &str, size: f64, align: Align, color: RGBColor, face: Face) {
        let horizontal = match align {
            Align::Start => HPos::Left,
            Align::Middle => HPos::Center,
            Align::End => HPos::Right,
        };
        // The backend divides sizes by 1.24.
        let mut font = ("sans-serif", size * FINE * 1.24).into_font();
        if face == Face::Bold {
            font = font.style(plotters::style::FontStyle::Bold);
        }
        if face == Face::Upright {
            font = font.transform(FontTransform::Rotate270);
        }
        let style = font.color(&color).pos(Pos::new(horizontal, VPos::Center));
        let result = self.area.draw(&Text::new(text::visible(words), Self::at(place.0, place.1), style));
        self.keep(result);
    }

    /// Text in the page's colour, centred vertically on `y`.
    pub fn text(&mut self, x: f64, y: f64, words: &str, size: f64, align: Align) {
        self.write((x, y), words, size, align, INK, Face::Plain);
    }

    /// The same with the page's ground round its letters, for text on top of lines.
    pub fn halo(&mut self, x: f64, y: f64, words: &str, size: f64, align: Align) {
        self.write((x, y), words, size, align, HALO, Face::Plain);
    }

    /// The same in bold.
    pub fn bold(&mut self, x: f64, y: f64, words: &str, size: f64, align: Align) {
        self.write((x, y), words, size, align, INK, Face::Bold);
    }

    /// Text in a colour of its own.
    pub fn colored(&mut self, x: f64, y: f64, words: &str, size: f64, align: Align, color: RGBColor) {
        self.write((x, y), words, size, align, color, Face::Plain);
    }

    /// Text that runs upwards, centred on the point.
    pub fn upright(&mut self, x: f64, y: f64, words: &str, size: f64) {
        self.write((x, y), words, size, Align::Middle, INK, Face::Upright);
    }

    /// An open line through points.
    pub fn path(&mut self, points: &[(f64, f64)], color: RGBColor, width: f64, opacity: f64) {
        let style =
            ShapeStyle { color: color.mix(opacity), filled: false, stroke_width: (width * FINE).round() as u32 };
        let points: Vec<(i32, i32)> = points.iter().map(|&(x, y)| Self::at(x, y)).collect();
        let result = self.area.draw(&PathElement::new(points, style));
        self.keep(result);
    }

    /// A filled polygon.
    pub fn polygon(&mut self, points: &[(f64, f64)], color: RGBColor, opacity: f64) {
        let points: Vec<(i32, i32)> = points.iter().map(|&(x, y)| Self::at(x, y)).collect();
        let result = self.area.draw(&Polygon::new(points, color.mix(opacity).filled()));
        self.keep(result);
    }

    /// A filled rectangle between two corners.
    pub fn rectangle(&mut self, a: (f64, f64), b: (f64, f64), color: RGBColor, opacity: f64) {
        let corners = [Self::at(a.0.min(b.0), a.1.min(b.1)), Self::at(a.0.max(b.0), a.1.max(b.1))];
        let result = self.area.draw(&Rectangle::new(corners, color.mix(opacity).filled()));
        self.keep(result);
    }

    /// A picture inside a square of `side` pixels, its pixels as squares; nothing where it has no pixels.
    pub fn picture(&mut self, (x, y): (f64, f64), side: f64, picture: &Picture) {
        let Some(address) = picture.address() else { return };
        let (x, y) = Self::at(x, y);
        let side = (side * FINE).round() as i32;
        self.pictures.push_str(&format!(
            "<image x=\"{x}\" y=\"{y}\" width=\"{side}\" height=\"{side}\" style=\"image-rendering:pixelated\" href=\"{address}\"/>\n"
        ));
    }

    /// An open rectangle between two corners.
    pub fn outline(&mut self, a: (f64, f64), b: (f64, f64), color: RGBColor, width: f64, opacity: f64) {
        self.path(&[a, (b.0, a.1), b, (a.0, b.1), a], color, width, opacity);
    }

    /// The marker of the series with this index, centred on a point.
    pub fn marker(&mut self, (x, y): (f64, f64), series: usize, color: RGBColor) {
        let r = 4.0;
        match series % MARKERS {
            0 => {
                let result = self.area.draw(&Circle::new(Self::at(x, y), (r * FINE).round() as i32, color.filled()));
                self.keep(result);
            }
            1 => self.rectangle((x - 3.5, y - 3.5), (x + 3.5, y + 3.5), color, 1.0),
            2 => self.polygon(&[(x, y - 4.8), (x + 4.6, y + 3.6), (x - 4.6, y + 3.6)], color, 1.0),
            _ => self.polygon(&[(x, y - 5.2), (x + 5.2, y), (x, y + 5.2), (x - 5.2, y)], color, 1.0),
        }
    }

    /// A bar from `low` to `high` with short caps.
    pub fn error_bar(&mut self, x: f64, low: f64, high: f64, color: RGBColor) {
        self.path(&[(x, low), (x, high)], color, 1.5, 1.0);
        for y in [low, high] {
            self.path(&[(x - 4.0, y), (x + 4.0, y)], color, 1.5, 1.0);
        }
    }

    /// A legend in rows from (`x`, `y`) downwards, no wider than `width`; returns the height it took.
    pub fn legend(&mut self, x: f64, y: f64, width: f64, entries: &[(String, Key)]) -> f64 {
        let (mut left, mut top) = (x, y);
        for (name, key) in entries {
            let name = fit(name, NORMAL, width - 34.0);
            let needed = 28.0 + text_width(&name, NORMAL) + 18.0;
            if left > x && left + needed > x + width + 18.0 {
                left = x;
                top += ROW;
            }
            match *key {
                Key::Line { color, width, opacity } => {
                    self.path(&[(left, top), (left + 22.0, top)], color, width, opacity);
                }
                Key::Marker { series, color } => {
                    self.path(&[(left, top), (left + 22.0, top)], color, 1.8, 1.0);
                    self.marker((left + 11.0, top), series, color);
                }
            }
            self.text(left + 28.0, top, &name, NORMAL, Align::Start);
            left += needed;
        }
        top - y + ROW
    }
}

/// Height of one row of a legend.
const ROW: f64 = 20.0;

/// How a series looks in the legend.
#[derive(Clone, Copy, Debug)]
pub enum Key {
    /// A line.
    Line {
        /// Colour.
        color: RGBColor,
        /// In pixels.
        width: f64,
        /// In [0, 1].
        opacity: f64,
    },
    /// A line with markers.
    Marker {
        /// Index of the series, which decides the marker.
        series: usize,
        /// Colour.
        color: RGBColor,
    },
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Face {
    Plain,
    Bold,
    Upright,
}
