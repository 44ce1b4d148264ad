//! Elements of a picture as SVG.
//!
//! Coordinates have one decimal. Text may hold anything; styles are attributes and taken as they are.

use super::escape::html;
use std::fmt::{self, Display};

/// What every picture needs to be one outside of HTML.
pub(crate) const NAMESPACE: &str = "xmlns=\"http://www.w3.org/2000/svg\"";

/// From the left and from the top.
pub(crate) type Point = (f64, f64);

/// A picture that is drawn from back to front.
#[derive(Debug, Default)]
pub(crate) struct Svg {
    text: String,
}

impl Svg {
    /// An empty picture whose root element has these attributes.
    pub(crate) fn new(attributes: &str) -> Self {
        Self { text: format!("<svg {attributes}>\n") }
    }

    /// Draws an element.
    pub(crate) fn add(&mut self, element: impl Display) {
        self.text += &format!("{element}\n");
    }

    /// Draws a line.
    pub(crate) fn line(&mut self, (x1, y1): Point, (x2, y2): Point, style: &str) {
        self.add(format_args!("<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" {style}/>"));
    }

    /// Draws a circle.
    pub(crate) fn circle(&mut self, (x, y): Point, radius: f64, style: &str) {
        self.add(format_args!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius}\" {style}/>"));
    }

    /// Draws lines from point to point.
    pub(crate) fn polyline(&mut self, points: impl Iterator<Item = Point>, style: &str) {
        self.add(format_args!("<polyline points=\"{}\" {style}/>", corners(points)));
    }

    /// Draws an area.
    pub(crate) fn polygon(&mut self, points: impl Iterator<Item = Point>, style: &str) {
        self.add(format_args!("<polygon points=\"{}\" {style}/>", corners(points)));
    }

    /// Draws text in the picture's own size.
    pub(crate) fn text(&mut self, at: Point, anchor: Anchor, text: &str) {
        self.add(Label { at, anchor, text, size: None, class: None });
    }

    /// What was drawn, without the root element.
    pub(crate) fn elements(self) -> String {
        self.text
    }

    /// The whole picture.
    pub(crate) fn finish(self) -> String {
        self.text + "</svg>\n"
    }
}

fn corners(points: impl Iterator<Item = Point>) -> String {
    points.map(|(x, y)| format!("{x:.1},{y:.1}")).collect::<Vec<_>>().join(" ")
}

/// Which part of a text is at its position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Anchor {
    /// Its first letter.
    Start,
    /// Its middle.
    Middle,
    /// Its last letter.
    End,
}

impl Anchor {
    fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Middle => "middle",
            Self::End => "end",
        }
    }
}

/// A text with attributes of its own.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Label<'a> {
    /// Position.
    pub at: Point,
    /// What of the text is there.
    pub anchor: Anchor,
    /// What is written.
    pub text: &'a str,
    /// Size of its letters.
    pub size: Option<u32>,
    /// Its class in the style of the picture.
    pub class: Option<&'a str>,
}

impl Display for Label<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at: (x, y), anchor, text, size, class } = *self;
        let class = class.map(|class| format!(" class=\"{class}\"")).unwrap_or_default();
        let size = size.map(|size| format!(" font-size=\"{size}\"")).unwrap_or_default();
        let (anchor, text) = (anchor.name(), html(text));
        write!(f, "<text{class} x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\"{size}>{text}</text>")
    }
}

/// A text that is read from bottom to top, its middle at (`x`, `y`).
pub(crate) fn vertical(x: u32, y: f64, size: Option<u32>, text: &str) -> String {
    let size = size.map(|size| format!(" font-size=\"{size}\"")).unwrap_or_default();
    let text = html(text);
    format!(
        "<text x=\"{x}\" y=\"{y:.1}\" text-anchor=\"middle\"{size} transform=\"rotate(-90 {x} {y:.1})\">{text}</text>"
    )
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Every tag closed by its own name, every attribute quoted, nothing unescaped.
    #[track_caller]
    pub(crate) fn assert_well_formed(text: &str) {
        let mut open: Vec<&str> = Vec::new();
        for piece in text.split('<').skip(1) {
            let (tag, text) = piece.split_once('>').unwrap();
            let plain = ["&amp;", "&lt;", "&gt;", "&quot;"].iter().fold(text.to_owned(), |text, e| text.replace(e, ""));
            assert!(!plain.contains('&'), "{text}");
            assert!(tag.matches('"').count() % 2 == 0, "{tag}");
            let name = tag.trim_start_matches('/').split([' ', '/']).next().unwrap();
            if tag.starts_with('/') {
                assert_eq!(open.pop(), Some(name), "{tag}");
            } else if !tag.ends_with('/') && !["!doctype", "meta"].contains(&name) {
                open.push(name);
            }
        }
        assert!(open.is_empty(), "{open:?}");
    }

    /// [`assert_well_formed`], and every coordinate a number.
    #[track_caller]
    pub(crate) fn assert_picture(text: &str) {
        assert_well_formed(text);
        assert!(text.starts_with("<svg ") && text.ends_with("</svg>\n"), "{text}");
        assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
    }

    #[test]
    fn elements_are_written_in_order_with_one_decimal() {
        let mut svg = Svg::new(NAMESPACE);
        svg.line((0.0, 1.0), (2.55, 3.0), "stroke=\"red\"");
        svg.circle((1.0, 2.0), 3.5, "fill=\"red\"");
        svg.polyline([(0.0, 0.0), (1.0, 1.0)].into_iter(), "fill=\"none\"");
        svg.text((4.0, 5.0), Anchor::End, "<&\">");
        svg.add(Label { at: (0.0, 0.0), anchor: Anchor::Start, text: "b", size: Some(14), class: Some("halo") });
        svg.add(vertical(14, 150.0, None, "up"));
        let text = svg.finish();
        assert_picture(&text);
        for element in [
            "<line x1=\"0.0\" y1=\"1.0\" x2=\"2.5\" y2=\"3.0\" stroke=\"red\"/>\n",
            "<circle cx=\"1.0\" cy=\"2.0\" r=\"3.5\" fill=\"red\"/>\n",
            "points=\"0.0,0.0 1.0,1.0\"",
            "<text x=\"4.0\" y=\"5.0\" text-anchor=\"end\">&lt;&amp;&quot;&gt;</text>\n",
            "<text class=\"halo\" x=\"0.0\" y=\"0.0\" text-anchor=\"start\" font-size=\"14\">b</text>\n",
            "<text x=\"14\" y=\"150.0\" text-anchor=\"middle\" transform=\"rotate(-90 14 150.0)\">up</text>\n",
        ] {
            assert!(text.contains(element), "{element} in {text}");
        }
    }
}
