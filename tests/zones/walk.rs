//! Random expressions, against a walk that looks at each instant and asks what the clock shows.

use actix_workpool::Cron;
use fastrand::Rng;
use jiff::civil::{Date, DateTime, date};
use jiff::tz::{Offset, TimeZone, TimeZoneDatabase};
use jiff::{SignedDuration, Span, Timestamp};

const SECOND: SignedDuration = SignedDuration::from_secs(1);

/// An expression, and what it means: the values of its fields one by one.
struct Expression {
    cron: Cron,
    seconds: Vec<i8>,
    minutes: Vec<i8>,
    hours: Vec<i8>,
    days: Vec<i8>,
    months: Vec<i8>,
    weekdays: Vec<i8>,
    either_day: bool,
}

const MONTHS: [&str; 12] =
    ["jan", "FEB", "Mar", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "oct", "NOV", "DEC"];
const WEEKDAYS: [&str; 7] = ["SUN", "mon", "TUE", "Wed", "THU", "FRI", "SAT"];

impl Expression {
    /// Draws one. Those that never fire are drawn again.
    fn draw(rng: &mut Rng, with_seconds: bool) -> Expression {
        loop {
            let (second, seconds) = field(rng, 0, 59, 0.3, &[]);
            let (minute, minutes) = field(rng, 0, 59, 0.3, &[]);
            let (hour, hours) = field(rng, 0, 23, 0.4, &[]);
            let (day, days) = field(rng, 1, 31, 0.6, &[]);
            let (month, months) = field(rng, 1, 12, 0.8, &MONTHS);
            let (weekday, weekdays) = field(rng, 0, 7, 0.6, &WEEKDAYS);
            let either_day = !day.starts_with('*') && !weekday.starts_with('*');
            let mut text = format!("{minute} {hour} {day} {month} {weekday}");
            if with_seconds {
                text = format!("{second}\t{text} ");
            }
            let seconds = if with_seconds { seconds } else { vec![0] };
            let Ok(cron) = Cron::parse(&text) else { continue };
            assert_eq!(cron.to_string(), text);
            return Expression {
                cron,
                seconds,
                minutes,
                hours,
                days,
                months,
                weekdays,
                either_day,
            };
        }
    }

    fn matches_day(&self, date: Date) -> bool {
        let weekday = date.weekday().to_sunday_zero_offset();
        let by_weekday =
            self.weekdays.contains(&weekday) || weekday == 0 && self.weekdays.contains(&7);
        let by_day = self.days.contains(&date.day());
        let matches = if self.either_day { by_day || by_weekday } else { by_day && by_weekday };
        matches && self.months.contains(&date.month())
    }

    fn matches(&self, local: DateTime) -> bool {
        self.seconds.contains(&local.second())
            && self.minutes.contains(&local.minute())
            && self.hours.contains(&local.hour())
            && self.matches_day(local.date())
    }
}

/// Draws a field: its text and its values.
fn field(rng: &mut Rng, low: i8, high: i8, star: f64, names: &[&str]) -> (String, Vec<i8>) {
    if rng.f64() < star {
        return ("*".to_owned(), (low..=high).collect());
    }
    let (mut texts, mut values) = (Vec::new(), Vec::new());
    for _ in 0..if rng.bool() { 1 } else { rng.usize(1..4) } {
        let (start, end) = (rng.i8(low..=high), rng.i8(low..=high));
        let (start, end) = (start.min(end), start.max(end));
        let step = rng.i8(1..=(high - low).min(12));
        let every = |start: i8, end: i8| (start..=end).step_by(step as usize);
        let mut name = |value: i8| match names.get((value - low) as usize) {
            Some(name) if rng.bool() => (*name).to_owned(),
            _ => format!("{value}"),
        };
        let (first, last) = (name(start), name(end));
        // A range to Sunday is one to 7.
        let last = if start > 0 && end == 0 { "7".to_owned() } else { last };
        let (text, of_item): (String, Vec<i8>) = match rng.u8(0..5) {
            0 | 1 => (first, vec![start]),
            2 => (format!("{first}-{last}"), (start..=end).collect()),
            3 => (format!("{first}-{last}/{step}"), every(start, end).collect()),
            _ => (format!("*/{step}"), every(low, high).collect()),
        };
        texts.push(text);
        values.extend(of_item);
    }
    (texts.join(","), values)
}

/// What the clock shows at one instant.
struct Shown {
    at: Timestamp,
    local: DateTime,
    first_time: bool,
    /// The local times that were skipped just before.
    skipped: Vec<DateTime>,
}

fn walk(zone: &TimeZone, from: Timestamp, until: Timestamp, step: SignedDuration) -> Vec<Shown> {
    let mut shown = Vec::new();
    let mut previous = zone.to_datetime(from - step);
    let mut at = from;
    while at < until {
        let local = zone.to_datetime(at);
        let mut skipped = Vec::new();
        let mut missing = previous + step;
        while missing < local {
            skipped.push(missing);
            missing += step;
        }
        let first_time = zone.to_ambiguous_timestamp(local).earlier().unwrap() == at;
        shown.push(Shown { at, local, first_time, skipped });
        (previous, at) = (local, at + step);
    }
    shown
}

fn expected(expression: &Expression, walk: &[Shown]) -> Vec<Timestamp> {
    let every_hour = (0..24).all(|hour| expression.hours.contains(&hour));
    let fires = |shown: &&Shown| {
        let matches = expression.matches(shown.local);
        if every_hour {
            return matches;
        }
        matches && shown.first_time || shown.skipped.iter().any(|local| expression.matches(*local))
    };
    walk.iter().filter(fires).map(|shown| shown.at).collect()
}

fn check(rng: &mut Rng, expression: &Expression, zone: &TimeZone, walk: &[Shown]) {
    let nano = SignedDuration::from_nanos(1);
    let cron = &expression.cron;
    let expected = expected(expression, walk);
    let (from, until) = (walk[0].at, walk[walk.len() - 1].at);
    let mut found = Vec::new();
    let mut after = from - nano;
    while let Some(next) = cron.next_after(after, zone).filter(|next| *next <= until) {
        assert!(next > after, "{cron}: {next} is not after {after}");
        assert_eq!(cron.next_after(next - nano, zone), Some(next), "{cron}: from just before");
        found.push(next);
        after = next;
    }
    assert_eq!(found, expected, "{cron} from {from} in {zone:?}");

    for _ in 0..5 {
        let length = until.duration_since(from).as_millis() as i64;
        let mut any = || from + SignedDuration::from_millis(rng.i64(0..=length));
        let (one, other) = (any(), any());
        let (after, to) = (one.min(other), one.max(other));
        let next = expected.iter().find(|at| **at > after).copied();
        let found = cron.next_after(after, zone).filter(|next| *next <= until);
        assert_eq!(found, next, "{cron} after {after} in {zone:?}");
        let last = expected.iter().rfind(|at| **at > after && **at <= to).copied();
        let found = cron.last_between(after, to, zone);
        assert_eq!(found, last, "{cron} between {after} and {to} in {zone:?}");
    }
}

/// Zones with an instant at which the clock changes, and whether offsets are whole minutes.
fn places() -> Vec<(TimeZone, Timestamp, bool)> {
    let database = TimeZoneDatabase::bundled();
    let known = [
        ("UTC", "2027-12-31T23:00Z"),
        ("Asia/Kathmandu", "2028-02-28T23:00Z"),
        ("Europe/Berlin", "2027-03-28T01:00Z"),
        ("Europe/Berlin", "2027-10-31T01:00Z"),
        ("Europe/Dublin", "2027-10-31T01:00Z"),
        ("America/New_York", "2027-03-14T07:00Z"),
        ("America/New_York", "2027-11-07T06:00Z"),
        ("Australia/Lord_Howe", "2027-04-03T15:00Z"),
        ("Australia/Lord_Howe", "2027-10-02T15:30Z"),
        ("Africa/Cairo", "2027-04-29T22:00Z"),
        ("Africa/Cairo", "2027-10-28T21:00Z"),
        ("Asia/Beirut", "2027-03-27T22:00Z"),
        ("America/Asuncion", "2020-10-04T04:00Z"),
        ("America/Asuncion", "2021-03-28T03:00Z"),
        ("Africa/Casablanca", "2024-03-10T02:00Z"),
        ("Antarctica/Troll", "2027-03-28T01:00Z"),
        ("Pacific/Apia", "2011-12-30T10:00Z"),
        ("Pacific/Kwajalein", "1969-09-30T13:00Z"),
        ("Africa/Monrovia", "1972-01-07T00:44:30Z"),
    ];
    let mut places: Vec<_> = known
        .iter()
        .map(|(name, at)| (database.get(name).unwrap(), at.parse().unwrap(), !at.contains("44:30")))
        .collect();
    // Changes by two days, and by odd seconds.
    for (rule, whole) in [
        ("AAA24BBB-24,M3.5.0,M10.5.0", true),
        ("AAA-1BBB-2:17:13,M3.5.0/2:13:07,M10.5.0/3:01:01", false),
    ] {
        let zone = TimeZone::posix(rule).unwrap();
        let from = "2027-01-01T00:00Z".parse().unwrap();
        let changes: Vec<_> = zone.following(from).take(2).map(|at| at.timestamp()).collect();
        places.extend(changes.into_iter().map(|at| (zone.clone(), at, whole)));
    }
    places
}

fn seeded(name: &str) -> Rng {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("{name}: SEED={seed}");
    Rng::with_seed(seed)
}

#[test]
fn it_fires_as_a_walk_by_minutes_says() {
    let mut rng = seeded("minutes");
    let days = |days: i64| SignedDuration::from_hours(24 * days);
    for (zone, change, _) in places().into_iter().filter(|place| place.2) {
        let walk = walk(&zone, change - days(3), change + days(4), SignedDuration::from_mins(1));
        for _ in 0..60 {
            let expression = Expression::draw(&mut rng, false);
            check(&mut rng, &expression, &zone, &walk);
        }
    }
}

#[test]
fn it_fires_as_a_walk_by_seconds_says() {
    let mut rng = seeded("seconds");
    let hours = SignedDuration::from_hours;
    for (zone, change, _) in places() {
        let walk = walk(&zone, change - hours(3), change + hours(3), SECOND);
        for with_seconds in [true, true, true, false].repeat(8) {
            let expression = Expression::draw(&mut rng, with_seconds);
            check(&mut rng, &expression, &zone, &walk);
        }
    }
}

#[test]
fn it_fires_on_the_days_of_a_walk_by_days() {
    let mut rng = seeded("days");
    let midnight = |day: Date| Offset::UTC.to_timestamp(day.at(0, 0, 0, 0)).unwrap();
    // Over the turn of a century that has no leap day.
    let (begin, end) = (date(2095, 1, 1), date(2109, 1, 1));
    let all: Vec<Date> = begin.series(Span::new().days(1)).take_while(|day| *day < end).collect();
    for _ in 0..300 {
        let expression = Expression::draw(&mut rng, false);
        let Expression { cron, hours, minutes, .. } = &expression;
        let (hour, minute) = (hours.iter().min().unwrap(), minutes.iter().min().unwrap());
        let mut found = Vec::new();
        let mut day = begin;
        while let Some(next) = cron.next_after(midnight(day) - SECOND, &TimeZone::UTC) {
            let local = Offset::UTC.to_datetime(next);
            if local.date() >= end {
                break;
            }
            assert_eq!((local.hour(), local.minute()), (*hour, *minute), "{cron}");
            found.push(local.date());
            day = local.date().tomorrow().unwrap();
        }
        let expected = all.iter().copied().filter(|day| expression.matches_day(*day));
        assert_eq!(found, expected.collect::<Vec<_>>(), "{cron}");
    }
}

#[test]
fn no_text_and_no_time_make_it_panic() {
    let mut rng = seeded("texts");
    let parts = [
        "*",
        "/",
        "-",
        ",",
        " ",
        "\t",
        "0",
        "1",
        "7",
        "9",
        "59",
        "31",
        "2",
        "JAN",
        "sun",
        "L",
        "W",
        "#",
        "?",
        "@",
        "daily",
        "é",
        "\0",
        "+",
        "99999999999999999999",
        "=",
        "~",
        "* * * * ",
    ];
    let zones: Vec<TimeZone> = [Offset::MIN, Offset::UTC, Offset::MAX]
        .map(TimeZone::fixed)
        .into_iter()
        .chain(places().into_iter().map(|place| place.0))
        .collect();
    let mut parsed = 0;
    for _ in 0..30_000 {
        let text: String = if rng.bool() {
            (0..rng.usize(0..20)).map(|_| *rng.choice(&parts).unwrap()).collect()
        } else {
            Expression::draw(&mut rng, true).cron.to_string()
        };
        let cron = match Cron::parse(&text) {
            Ok(cron) => cron,
            Err(error) => {
                assert!(!error.to_string().is_empty());
                continue;
            }
        };
        parsed += 1;
        let limits = Timestamp::MIN.as_second()..=Timestamp::MAX.as_second();
        let at = match rng.u8(0..4) {
            0 => Timestamp::MIN + SignedDuration::from_secs(rng.i64(0..300_000)),
            1 => Timestamp::MAX - SignedDuration::from_secs(rng.i64(0..300_000)),
            2 => *rng.choice(&[Timestamp::MIN, Timestamp::MAX]).unwrap(),
            _ => Timestamp::new(rng.i64(limits), 999_999_999).unwrap_or(Timestamp::MAX),
        };
        let zone = rng.choice(&zones).unwrap();
        if let Some(next) = cron.next_after(at, zone) {
            assert!(next > at);
            assert_eq!(cron.next_after(next - SignedDuration::from_nanos(1), zone), Some(next));
        }
        let last = cron.last_between(at, Timestamp::MAX, zone);
        assert_eq!(last.is_some(), cron.next_after(at, zone).is_some());
    }
    assert!(parsed > 10_000, "only {parsed} were expressions");
}
