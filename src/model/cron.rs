//! When a schedule fires: a cron expression in a time zone.
//!
//! No clock and no state: the same expression, time and zone give the same answer.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use jiff::civil::{Date, DateTime};
use jiff::tz::{Offset, TimeZone};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::CronError;
use super::cron_fields::Fields;

/// More than the distance between any two offsets from UTC: if an instant is later than another by
/// this much, so is what a clock on the wall shows.
const REACH: SignedDuration = SignedDuration::from_hours(52);

const SECOND: SignedDuration = SignedDuration::from_secs(1);

/// The largest year of the calendar.
const LAST_YEAR: i16 = 9999;

/// A cron expression: the local times at which a schedule fires.
///
/// It has five fields, minute, hour, day-of-month, month and day-of-week, or six with seconds first.
///
/// | field | values |
/// |---|---|
/// | second, minute | 0 to 59 |
/// | hour | 0 to 23 |
/// | day-of-month | 1 to 31 |
/// | month | 1 to 12, or `JAN` to `DEC` in any case |
/// | day-of-week | 0 to 7, or `SUN` to `SAT` in any case; 0 and 7 are Sunday |
///
/// A field is `*`, a value, a range (`9-17`), a step (`*/15`, `5-50/10`), or a list of these
/// (`0,30`, `MON-WED,FRI`). `@yearly`, `@annually`, `@monthly`, `@weekly`, `@daily`, `@midnight` and
/// `@hourly` stand for a whole expression. As in Vixie cron, a day matches if day-of-month *or*
/// day-of-week does; it must match both if one of the two begins with `*`.
///
/// # Time zones
/// Where clocks change, it depends on the hours.
///
/// - An expression that names hours fires once for each local time. A time that is skipped fires at
///   the first instant after the gap, all times of one gap together, once. A time that is repeated
///   fires the first time only. In short: it fires when the clock first shows its time or a later one.
/// - An expression of every hour (`*`, `*/1` or `0-23`) follows elapsed time. It fires whenever the
///   clock shows its time: also the second time, and not for what is skipped.
///
/// ```
/// use actix_workpool::Cron;
/// use jiff::{Timestamp, tz::TimeZone};
///
/// let berlin = TimeZone::get("Europe/Berlin")?;
/// let nightly = Cron::parse("30 2 * * *")?;
/// // On 30 March 2025 clocks went from 02:00 to 03:00.
/// let saturday: Timestamp = "2025-03-29T12:00+01:00".parse()?;
/// let sunday = nightly.next_after(saturday, &berlin).unwrap();
/// assert_eq!(sunday, "2025-03-30T03:00+02:00".parse()?);
/// let monday = nightly.next_after(sunday, &berlin).unwrap();
/// assert_eq!(monday, "2025-03-31T02:30+02:00".parse()?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Cron {
    text: Arc<str>,
    fields: Fields,
}

impl Cron {
    /// The largest number of bytes of an expression: it is stored with its schedule.
    pub const MAX_LEN: usize = 256;

    /// Parses an expression.
    ///
    /// # Errors
    /// Fails if the text is not an expression as above, or if it would never fire (`0 0 30 2 *`).
    /// What only other schedulers know is named in the error: `L`, `W`, `#`, `?`, years, `@reboot`.
    ///
    /// ```
    /// use actix_workpool::Cron;
    ///
    /// assert!(Cron::parse("*/15 9-17 * * MON-FRI").is_ok());
    /// let error = Cron::parse("0 25 * * *").unwrap_err();
    /// assert_eq!(error.to_string(), r#"hour "25" is invalid, allowed are 0 to 23 and *"#);
    /// ```
    pub fn parse(text: &str) -> Result<Cron, CronError> {
        if text.len() > Cron::MAX_LEN {
            return Err(CronError::Length { given: text.len(), max: Cron::MAX_LEN });
        }
        let fields = Fields::parse(text)?;
        if !fields.ever_fires() {
            return Err(CronError::Never { given: text.to_owned() });
        }
        Ok(Cron { text: text.into(), fields })
    }

    /// Returns the expression as it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns the first time at which the expression fires after `after`, itself not included.
    ///
    /// `None` is the end of the calendar, in the year 9999.
    #[must_use]
    pub fn next_after(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        // Rounded down: it fires at whole seconds only.
        let floor = after.as_second() - i64::from(after.subsec_nanosecond() < 0);
        let before = Timestamp::from_second(floor).unwrap_or(Timestamp::MIN);
        if self.fields.every_hour() {
            self.fields.next_shown(before.checked_add(SECOND).ok()?, zone)
        } else {
            self.fields.next_reached(before, zone)
        }
    }

    /// Returns the last time at which the expression fires after `after` and not after `until`: what
    /// to catch up with. The cost does not grow with the number of times between.
    #[must_use]
    pub fn last_between(
        &self,
        after: Timestamp,
        until: Timestamp,
        zone: &TimeZone,
    ) -> Option<Timestamp> {
        let next = |after| self.next_after(after, zone).filter(|next| *next <= until);
        let mut last = next(after)?;
        // It fires after `last` or not at all; never after `end`. Each turn halves the way between.
        let mut end = until;
        loop {
            let way = end.duration_since(last);
            match next(last.checked_add(way / 2).ok()?) {
                Some(later) => last = later,
                None if way <= SECOND => return Some(last),
                None => end = last.checked_add(way / 2).ok()?,
            }
        }
    }
}

impl Fields {
    /// Returns the first instant from `from` on at which the clock shows a time that matches.
    fn next_shown(self, mut from: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        loop {
            let offset = zone.to_offset(from);
            let local = self.first_match(offset.to_datetime(from))?;
            let at = offset.to_timestamp(local).ok()?;
            match zone.following(from).next().map(|change| change.timestamp()) {
                // The clock changes before it shows that time, and may go back.
                Some(change) if change <= at => {
                    let settled = change.duration_since(from) >= REACH;
                    let skip = at.checked_sub(REACH).unwrap_or(change);
                    from = if settled { change.max(skip) } else { change };
                }
                _ => return Some(at),
            }
        }
    }

    /// Returns the first instant after `before` at which the clock shows a time that matches, or has
    /// just skipped one, for the first time.
    fn next_reached(self, before: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        // The latest time that the clock has shown up to `before`. It may have gone back since.
        let mut shown = zone.to_datetime(before);
        for change in zone.preceding(before.checked_add(SECOND).ok()?) {
            if before.duration_since(change.timestamp()) >= REACH {
                break;
            }
            if let Ok(last) = change.timestamp().checked_sub(SECOND) {
                shown = shown.max(zone.to_datetime(last));
            }
        }
        let local = self.first_match(shown.checked_add(SECOND).ok()?)?;

        // No clock shows it earlier than the one that is furthest ahead.
        let mut from = match Offset::MAX.to_timestamp(local) {
            Ok(earliest) => earliest.max(before),
            Err(_) if local.year() < 0 => before,
            Err(_) => return None,
        };
        loop {
            let offset = zone.to_offset(from);
            if offset.to_datetime(from) >= local {
                return Some(from);
            }
            let at = offset.to_timestamp(local).ok()?;
            match zone.following(from).next().map(|change| change.timestamp()) {
                Some(change) if change <= at => from = change,
                _ => return Some(at),
            }
        }
    }

    /// Returns the first local time from `from` on that matches.
    fn first_match(self, from: DateTime) -> Option<DateTime> {
        let (date, time) = (from.date(), from.time());
        if self.days_of(date.first_of_month()) & (1 << date.day()) != 0 {
            let time = self.time_from(time.hour(), time.minute(), time.second());
            if let Some((hour, minute, second)) = time {
                return Some(date.at(hour, minute, second, 0));
            }
        }
        let date = self.date_after(date)?;
        let (hour, minute, second) = self.time_from(0, 0, 0)?;
        Some(date.at(hour, minute, second, 0))
    }

    fn time_from(self, hour: i8, minute: i8, second: i8) -> Option<(i8, i8, i8)> {
        let first_second = at_least(self.seconds, 0)?;
        if at_least(self.hours.into(), hour) == Some(hour) {
            if at_least(self.minutes, minute) == Some(minute)
                && let Some(second) = at_least(self.seconds, second)
            {
                return Some((hour, minute, second));
            }
            if let Some(minute) = at_least(self.minutes, minute + 1) {
                return Some((hour, minute, first_second));
            }
        }
        let hour = at_least(self.hours.into(), hour + 1)?;
        Some((hour, at_least(self.minutes, 0)?, first_second))
    }

    fn date_after(self, date: Date) -> Option<Date> {
        let mut month = date.first_of_month();
        let mut days = at_least(self.days_of(month), date.day() + 1);
        loop {
            if let Some(day) = days {
                return Date::new(month.year(), month.month(), day).ok();
            }
            month = match at_least(self.months.into(), month.month() + 1) {
                Some(next) => Date::new(month.year(), next, 1).ok()?,
                None if month.year() == LAST_YEAR => return None,
                None => Date::new(month.year() + 1, at_least(self.months.into(), 1)?, 1).ok()?,
            };
            days = at_least(self.days_of(month), 1);
        }
    }

    /// Returns the days that match in the month that begins at `first`.
    fn days_of(self, first: Date) -> u64 {
        if self.months & (1 << first.month()) == 0 {
            return 0;
        }
        // Six weeks, shifted so that the weekday of the first is bit 1.
        let weeks = u64::from(self.weekdays) * 0x8_1020_4081 * 2;
        let weekdays = weeks >> first.weekday().to_sunday_zero_offset();
        let days = u64::from(self.days);
        let matches = if self.either_day { days | weekdays } else { days & weekdays };
        matches & ((2 << first.days_in_month()) - 2)
    }
}

/// Returns the smallest value of a set that is at least `value`.
fn at_least(bits: u64, value: i8) -> Option<i8> {
    let rest = bits >> value << value;
    (rest != 0).then(|| rest.trailing_zeros() as i8)
}

impl FromStr for Cron {
    type Err = CronError;

    fn from_str(text: &str) -> Result<Cron, CronError> {
        Cron::parse(text)
    }
}

impl fmt::Display for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

impl fmt::Debug for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Cron").field(&self.text).finish()
    }
}

impl Serialize for Cron {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Cron {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <Cow<'de, str>>::deserialize(deserializer)?;
        Cron::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the next `count` local times, as text without seconds of zero and the year.
    fn next(text: &str, zone: &str, after: &str, count: usize) -> Vec<String> {
        let (cron, zone) = (Cron::parse(text).unwrap(), TimeZone::get(zone).unwrap());
        let mut at: Timestamp = after.parse().unwrap();
        let mut times = Vec::new();
        for _ in 0..count {
            at = cron.next_after(at, &zone).unwrap();
            let local = at.to_zoned_datetime(zone.clone());
            times.push(local.strftime("%m-%d %H:%M:%S%:::z").to_string().replace(":00+", "+"));
        }
        times
    }

    #[test]
    fn a_skipped_time_fires_behind_the_gap_once() {
        let berlin = |text, count| next(text, "Europe/Berlin", "2027-03-27T12:00Z", count);
        assert_eq!(berlin("30 2 * * *", 2), ["03-28 03:00+02", "03-29 02:30+02"]);
        // Four times are skipped, and one is at the end of the gap.
        assert_eq!(berlin("*/15 2 * * *", 2), ["03-28 03:00+02", "03-29 02:00+02"]);
        assert_eq!(berlin("0 2,3 * * *", 2), ["03-28 03:00+02", "03-29 02:00+02"]);
        let cairo = next("0 0 * * FRI", "Africa/Cairo", "2027-04-29T12:00Z", 2);
        assert_eq!(cairo, ["04-30 01:00+03", "05-07 00:00+03"]);
    }

    #[test]
    fn a_repeated_time_fires_once() {
        let berlin = |text, count| next(text, "Europe/Berlin", "2027-10-30T22:00Z", count);
        assert_eq!(berlin("30 2 * * *", 2), ["10-31 02:30+02", "11-01 02:30+01"]);
        assert_eq!(
            berlin("0,30 2-3 * * *", 3),
            ["10-31 02:00+02", "10-31 02:30+02", "10-31 03:00+01"]
        );
        // From between the two, the second one is over as well.
        let late = next("50 2 * * *", "Europe/Berlin", "2027-10-31T01:10Z", 1);
        assert_eq!(late, ["11-01 02:50+01"]);
    }

    #[test]
    fn every_hour_and_oftener_follows_elapsed_time() {
        let hourly = next("0 * * * *", "Europe/Berlin", "2027-10-30T23:30Z", 4);
        assert_eq!(
            hourly,
            ["10-31 02:00+02", "10-31 02:00+01", "10-31 03:00+01", "10-31 04:00+01"]
        );
        let hourly = next("0 * * * *", "Europe/Berlin", "2027-03-27T23:30Z", 3);
        assert_eq!(hourly, ["03-28 01:00+01", "03-28 03:00+02", "03-28 04:00+02"]);
        let (cron, zone) =
            (Cron::parse("*/15 * * * * *").unwrap(), TimeZone::get("Europe/Berlin").unwrap());
        let mut at: Timestamp = "2027-10-31T00:00Z".parse().unwrap();
        for _ in 0..4 * 60 * 3 {
            let next = cron.next_after(at, &zone).unwrap();
            assert_eq!(next.duration_since(at), SignedDuration::from_secs(15));
            at = next;
        }
    }

    #[test]
    fn a_change_by_half_an_hour_keeps_the_clock_of_every_hour() {
        let gap = next("15 * * * *", "Australia/Lord_Howe", "2027-10-02T14:30Z", 2);
        assert_eq!(gap, ["10-03 01:15+10:30", "10-03 03:15+11"]);
        let fold = next("45 * * * *", "Australia/Lord_Howe", "2027-04-03T14:00Z", 3);
        assert_eq!(fold, ["04-04 01:45+11", "04-04 01:45+10:30", "04-04 02:45+10:30"]);
        let daily = next("15 2 * * *", "Australia/Lord_Howe", "2027-10-02T14:30Z", 2);
        assert_eq!(daily, ["10-03 02:30+11", "10-04 02:15+11"]);
    }

    #[test]
    fn a_skipped_day_fires_at_the_start_of_the_next() {
        // There was no 30 December 2011 on Samoa.
        let after = "2011-12-29T12:00-10:00";
        assert_eq!(
            next("0 9 * * *", "Pacific/Apia", after, 2),
            ["12-31 00:00+14", "12-31 09:00+14"]
        );
        assert_eq!(next("0 9 30 12 *", "Pacific/Apia", after, 1), ["12-31 00:00+14"]);
        assert_eq!(next("0 * 30 * *", "Pacific/Apia", after, 1), ["01-30 00:00+14"]);
    }

    #[test]
    fn either_day_is_enough_unless_one_begins_with_a_star() {
        let days = |text| next(text, "UTC", "2027-01-31T12:00Z", 4);
        assert_eq!(
            days("0 0 13 * 5"),
            ["02-05 00:00+00", "02-12 00:00+00", "02-13 00:00+00", "02-19 00:00+00"]
        );
        assert_eq!(
            days("0 0 13 * *"),
            ["02-13 00:00+00", "03-13 00:00+00", "04-13 00:00+00", "05-13 00:00+00"]
        );
        assert_eq!(
            days("0 0 */10 * MON"),
            ["02-01 00:00+00", "03-01 00:00+00", "05-31 00:00+00", "06-21 00:00+00"]
        );
    }

    #[test]
    fn what_comes_rarely_is_found_and_the_calendar_ends() {
        let zone = TimeZone::get("Europe/Berlin").unwrap();
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let leap = Cron::parse("0 0 29 2 *").unwrap();
        // 2100 has no leap day.
        assert_eq!(leap.next_after(at("2096-03-01T00:00Z"), &zone), Some(at("2104-02-28T23:00Z")));
        assert_eq!(leap.next_after(at("9996-03-01T00:00Z"), &zone), None);
        assert_eq!(leap.next_after(Timestamp::MAX, &zone), None);
        let second = Cron::parse("* * * * * *").unwrap();
        assert_eq!(second.next_after(Timestamp::MAX, &zone), None);
        assert!(second.next_after(Timestamp::MIN, &zone) > Some(Timestamp::MIN));
        // Fractions are rounded down, also before the epoch.
        let before = Timestamp::new(-2, -500_000_000).unwrap();
        assert_eq!(second.next_after(before, &zone), Timestamp::from_second(-2).ok());
    }

    #[test]
    fn the_last_one_of_a_long_time_is_found() {
        let zone = TimeZone::get("Europe/Berlin").unwrap();
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let last = |text, after, until| {
            Cron::parse(text).unwrap().last_between(at(after), at(until), &zone)
        };
        let (old, now) = ("1990-01-01T00:00Z", "2027-03-28T10:00:00.5Z");
        assert_eq!(last("* * * * * *", old, now), Some(at("2027-03-28T10:00Z")));
        assert_eq!(last("30 2 * * *", old, now), Some(at("2027-03-28T01:00Z")));
        assert_eq!(last("0 0 29 2 *", old, now), Some(at("2024-02-28T23:00Z")));
        assert_eq!(last("0 0 29 2 *", "2024-02-28T23:00Z", now), None);
        assert_eq!(
            last("0 0 29 2 *", "2024-02-28T22:59:59.9Z", "2024-02-28T23:00Z"),
            Some(at("2024-02-28T23:00Z"))
        );
        assert_eq!(last("* * * * *", now, old), None);
    }

    #[test]
    fn the_text_is_kept_and_stored() {
        let cron: Cron = "  30\t2 * *  mon ".parse().unwrap();
        assert_eq!(cron.to_string(), "  30\t2 * *  mon ");
        let stored = serde_json::to_string(&cron).unwrap();
        assert_eq!(serde_json::from_str::<Cron>(&stored).unwrap(), cron);
        assert!(serde_json::from_str::<Cron>("\"0 0 30 2 *\"").is_err());
        let long = format!("{} * * * *", "0,".repeat(200));
        assert_eq!(Cron::parse(&long), Err(CronError::Length { given: 408, max: 256 }));
    }
}
