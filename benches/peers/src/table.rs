//! The figures for people: two tables, and what they say.

use std::fmt::Write;
use std::path::Path;

use crate::figures::{Amount, Figures, Measured};
use crate::list::{Entry, Kind, Role};
use crate::machine;

const BEGIN: &str = "<!-- results: written by --write -->\n";
const END: &str = "<!-- end of results -->\n";

/// Marks what is better than ours.
const BETTER: &str = " ▲";

pub fn markdown(measured: &Measured, entries: &[&'static Entry], amount: &Amount) -> String {
    let mut text = String::new();
    for kind in [Kind::Memory, Kind::Durable] {
        table(&mut text, kind, measured, entries, amount).expect("a string can be written");
    }
    if let Some((p50, p99)) = measured.fsync() {
        let times = format!("p50 {}, p99 {}", time(p50), time(p99));
        writeln!(text, "One append of 4 KiB and its fsync: {times}.\n").expect("written");
    }
    for (name, ratio, words) in measured.ratios(entries) {
        writeln!(text, "- `{name}`: {ratio:.2} = {words}").expect("written");
    }
    let machine = machine::machine();
    let rounds = amount.rounds;
    writeln!(text, "\nMedians of {rounds} rounds. {machine}. {}.", machine::versions())
        .expect("written");
    text
}

fn table(
    text: &mut String,
    kind: Kind,
    measured: &Measured,
    entries: &[&'static Entry],
    amount: &Amount,
) -> std::fmt::Result {
    let mut rows: Vec<_> = entries
        .iter()
        .filter(|entry| entry.kind == kind)
        .filter_map(|entry| Some((*entry, measured.medians(entry.name)?)))
        .collect();
    let Some((_, ours)) = rows.iter().find(|(entry, _)| entry.role == Role::Ours).cloned() else {
        return Ok(());
    };
    rows.sort_by(|(_, a), (_, b)| b.per_second.total_cmp(&a.per_second));
    let jobs = thousands(amount.of(kind).whole_life as f64);
    writeln!(
        text,
        "| {} | jobs/s | idle pick-up p50 | p99 | memory after {jobs} jobs | durability | keeps |",
        match kind {
            Kind::Memory => "in memory",
            Kind::Durable => "durable",
        }
    )?;
    writeln!(text, "|---|--:|--:|--:|--:|---|---|")?;
    for (entry, figures) in &rows {
        let name = match entry.role {
            Role::Ours => format!("**{}**", entry.name),
            Role::Peer => entry.name.to_owned(),
            Role::Baseline => format!("*{}*", entry.name),
        };
        let mark = |better: bool| if better { BETTER } else { "" };
        let less = |figure: fn(&Figures) -> f64| mark(figure(figures) < figure(&ours));
        writeln!(
            text,
            "| {name} | {}{} | {}{} | {}{} | {:.0} MB{} | {} | {} |",
            thousands(figures.per_second),
            mark(figures.per_second > ours.per_second),
            time(figures.p50),
            less(|of| of.p50),
            time(figures.p99),
            less(|of| of.p99),
            figures.resident_bytes / 1e6,
            less(|of| of.resident_bytes),
            figures.durability,
            entry.keeps,
        )?;
    }
    writeln!(text, "\n▲ better than actix-workpool.\n")
}

fn time(micros: f64) -> String {
    match micros {
        ..1_000.0 => format!("{micros:.0} µs"),
        _ => format!("{:.1} ms", micros / 1e3),
    }
}

/// Rounded to three digits, with commas.
pub fn thousands(figure: f64) -> String {
    let unit = 10f64.powi((figure.max(1.0).log10() as i32 - 2).max(0));
    let digits = format!("{:.0}", (figure / unit).round() * unit);
    let mut text = String::new();
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Puts the text between the marks in README.md.
pub fn write(results: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = std::fs::read_to_string(&path).expect("the README can be read");
    let (before, rest) = readme.split_once(BEGIN).expect("the README has the first mark");
    let (_, after) = rest.split_once(END).expect("the README has the second mark");
    let readme = format!("{before}{BEGIN}\n{results}\n{END}{after}");
    std::fs::write(path, readme).expect("the README can be written");
}
