//! Numbers, times and states in words.

use std::fmt::Write as _;
use std::time::Duration;

use maud::{Markup, html};

use crate::engine::explain::Lasting;
use crate::ops::Big;

/// Returns the word for a state or an outcome of a job, which is the same on all pages.
pub(super) fn state_word(state: &str) -> &str {
    match state {
        "pending" => "waiting",
        "success" => "succeeded",
        state => state,
    }
}

/// Returns the class of a state, an outcome, or the status of a pool.
pub(super) fn class_of(state: &str) -> &'static str {
    match state {
        "success" => "good",
        "failed" => "bad",
        "running" => "main",
        "paused" | "full" => "busy",
        _ => "soft",
    }
}

/// The text with a capital letter at its beginning.
pub(super) fn capital(word: &str) -> String {
    let mut rest = word.chars();
    rest.next().map(|first| first.to_uppercase().chain(rest).collect()).unwrap_or_default()
}

/// The beginning and the end of an id.
pub(super) fn short_id(id: &str) -> String {
    match (id.get(..8), id.len().checked_sub(4).and_then(|end| id.get(end..))) {
        (Some(begin), Some(end)) if id.len() > 12 => format!("{begin}…{end}"),
        _ => id.to_owned(),
    }
}

/// The maximum length of a key that is shown whole in a table, in characters.
const LONGEST_KEY: usize = 40;

/// The key, or its beginning and its end if it is long.
pub(super) fn short_key(key: &str) -> String {
    let length = key.chars().count();
    if length <= LONGEST_KEY {
        return key.to_owned();
    }
    let half = LONGEST_KEY / 2;
    let begin = key.chars().take(half);
    begin.chain(['…']).chain(key.chars().skip(length - half)).collect()
}

/// How long a job is or was due, or when it will be.
pub(super) fn due(due: Option<Big>, now: Big) -> Markup {
    html! {
        @match due {
            Some(due) if due.0 > now.0 => { "due in " (lasting(due.0 - now.0)) }
            Some(due) => { "due for " (lasting(now.0 - due.0)) }
            None => { "–" }
        }
    }
}

pub(super) fn rate(per_second: f64) -> String {
    match per_second {
        0.0 | 10.0.. => format!("{}/s", grouped(per_second.round() as u64)),
        1.0.. => format!("{per_second:.1}/s"),
        _ => format!("{per_second:.2}/s"),
    }
}

pub(super) fn brief(millis: u32) -> String {
    match millis {
        0..1_000 => format!("{millis} ms"),
        _ => lasting(millis.into()),
    }
}

/// A time relative to now, with the absolute time.
pub(super) fn time(at: Big, now: Big) -> Markup {
    let date = date(at.0);
    html! {
        time datetime=(date) title=(date) {
            @if at.0 > now.0 { "in " (lasting(at.0 - now.0)) }
            @else { (lasting(now.0 - at.0)) " ago" }
        }
    }
}

/// A number with separated thousands.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::with_capacity(digits.len() * 4 / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

pub(super) fn bytes(bytes: u64) -> String {
    match bytes {
        0..1_024 => format!("{bytes} bytes"),
        1_024..1_048_576 => format!("{} KiB", bytes / 1_024),
        _ => format!("{} MiB", bytes / 1_048_576),
    }
}

pub(super) fn lasting(millis: u64) -> String {
    Lasting(Duration::from_millis(millis)).to_string()
}

/// The time of the day in UTC.
pub(super) fn clock(millis: u64) -> String {
    let seconds = millis / 1_000 % 86_400;
    format!("{:02}:{:02}:{:02} UTC", seconds / 3_600, seconds / 60 % 60, seconds % 60)
}

/// Milliseconds since the Unix epoch, as a date and a time of the day in UTC.
pub(super) fn date(millis: u64) -> String {
    let (seconds, days) = (millis / 1_000 % 86_400, millis / 86_400_000);
    // The civil calendar, in eras of 400 years that begin on 1 March.
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Encodes text for a path or a query.
pub(in crate::web) fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(byte.into());
            }
            _ => {
                // Writing to a string does not fail.
                let _ = write!(encoded, "%{byte:02X}");
            }
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (millis, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400_000, "2000-02-29T00:00:00Z"),
            (1_709_164_799_999, "2024-02-28T23:59:59Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(date(millis), expected);
        }
        date(u64::MAX);
    }

    #[test]
    fn thousands_are_told_apart() {
        let numbers = [0, 999, 1_000, 10_000_000].map(grouped);
        assert_eq!(numbers, ["0", "999", "1,000", "10,000,000"]);
    }

    #[test]
    fn an_id_is_told_by_its_ends() {
        assert_eq!(short_id("0192f3a4-5b6c-7d8e-9f00-112233445566"), "0192f3a4…5566");
        assert_eq!(short_id("short"), "short");
        assert_eq!(short_id("üüüüüüüüüüüüü"), "üüüü…üü");
    }

    #[test]
    fn a_long_key_is_told_by_its_ends() {
        let long = format!("{}{}", "ä".repeat(200), "z".repeat(20));
        assert_eq!(short_key(&long), format!("{}…{}", "ä".repeat(20), "z".repeat(20)));
        assert_eq!(short_key(&"ä".repeat(40)), "ä".repeat(40));
    }

    #[test]
    fn rates_are_readable() {
        let rates = [0.0, 0.123, 1.23, 12.6, 12_345.6].map(rate);
        assert_eq!(rates, ["0/s", "0.12/s", "1.2/s", "13/s", "12,346/s"]);
    }

    #[test]
    fn what_is_encoded_stays_in_its_place() {
        assert_eq!(encoded("a/b?c=d&e \"<ö>%"), "a%2Fb%3Fc%3Dd%26e%20%22%3C%C3%B6%3E%25");
    }
}
