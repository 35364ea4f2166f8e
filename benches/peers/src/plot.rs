//! The jobs per second as a picture: bars, in memory and durable, each with a scale of its own.

use std::fmt::Write;
use std::path::Path;

use crate::figures::Measured;
use crate::list::{Entry, Kind, Role};
use crate::table::thousands;

const WIDTH: f64 = 760.0;
const LABELS: f64 = 150.0;
/// The longest bar, which leaves room for its figure.
const BAR: f64 = 500.0;
const ROW: f64 = 26.0;
const TITLE: f64 = 40.0;

/// Writes `docs/peers.svg`.
pub fn write(measured: &Measured, entries: &[&'static Entry]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/peers.svg");
    std::fs::write(path, picture(measured, entries)).expect("the picture can be written");
}

fn picture(measured: &Measured, entries: &[&'static Entry]) -> String {
    let mut body = String::new();
    let mut y = 0.0;
    for (kind, title) in [
        (Kind::Memory, "In memory: jobs per second, whole life"),
        (Kind::Durable, "Durable: jobs per second, whole life"),
    ] {
        let mut bars: Vec<_> = entries
            .iter()
            .filter(|entry| entry.kind == kind)
            .filter_map(|entry| Some((*entry, measured.medians(entry.name)?.per_second)))
            .collect();
        bars.sort_by(|(_, a), (_, b)| b.total_cmp(a));
        let longest = bars.first().map_or(1.0, |(_, longest)| *longest);
        y += TITLE;
        let at = y - 12.0;
        writeln!(body, r#"<text x="16" y="{at}" font-weight="bold">{title}</text>"#)
            .expect("written");
        for (entry, per_second) in bars {
            bar(&mut body, y, entry, per_second, longest).expect("a string can be written");
            y += ROW;
        }
    }
    let height = y + 16.0;
    format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="13" fill="#222">
<rect width="100%" height="100%" fill="#fff"/>
{body}</svg>
"##
    )
}

fn bar(
    body: &mut String,
    y: f64,
    entry: &Entry,
    per_second: f64,
    longest: f64,
) -> std::fmt::Result {
    let (name, label, text) = (entry.name, LABELS - 8.0, y + 17.0);
    let length = (per_second / longest * BAR).max(1.0);
    let colour = match entry.role {
        Role::Ours => "#c2410c",
        Role::Peer => "#64748b",
        Role::Baseline => "#cbd5e1",
    };
    let (bar, height, figure) = (y + 3.0, ROW - 6.0, LABELS + length + 6.0);
    writeln!(body, r#"<text x="{label}" y="{text}" text-anchor="end">{name}</text>"#)?;
    writeln!(
        body,
        r#"<rect x="{LABELS}" y="{bar}" width="{length:.1}" height="{height}" fill="{colour}"/>"#
    )?;
    let per_second = thousands(per_second);
    writeln!(body, r#"<text x="{figure:.1}" y="{text}">{per_second}</text>"#)
}
