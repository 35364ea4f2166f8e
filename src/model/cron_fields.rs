//! The fields of a cron expression: from text to sets.

use super::CronError;

/// The values of each field as a set of bits: bit *n* is value *n*.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Fields {
    pub(super) seconds: u64,
    pub(super) minutes: u64,
    pub(super) hours: u32,
    pub(super) days: u32,
    pub(super) months: u16,
    /// Sunday is bit 0.
    pub(super) weekdays: u8,
    /// Whether one of the two fields of days is enough: neither begins with `*`.
    pub(super) either_day: bool,
}

impl Fields {
    pub(super) fn ever_fires(self) -> bool {
        // Every date falls on each weekday in some year, so only the length of the months counts.
        self.either_day
            || (1..=12).any(|month| {
                let longest = match month {
                    2 => 29,
                    4 | 6 | 9 | 11 => 30,
                    _ => 31,
                };
                self.months & (1 << month) != 0 && self.days.trailing_zeros() <= longest
            })
    }

    pub(super) fn parse(text: &str) -> Result<Fields, CronError> {
        let trimmed = text.trim_ascii();
        let expression = match trimmed.strip_prefix('@') {
            Some(_) => expand(trimmed)?,
            None => trimmed,
        };
        let fields: Vec<&str> = expression.split_ascii_whitespace().collect();
        if let Some(first) = fields.first().filter(|first| first.contains('=')) {
            let (given, meaning) =
                ((*first).to_owned(), "a setting in front (the zone is given to the schedule)");
            return Err(CronError::Unsupported { field: "text", given, meaning, allowed: FIELDS });
        }
        let (second, [minute, hour, day, month, weekday]) = match fields[..] {
            [minute, hour, day, month, weekday] => ("0", [minute, hour, day, month, weekday]),
            [second, minute, hour, day, month, weekday] if !is_year(weekday) => {
                (second, [minute, hour, day, month, weekday])
            }
            [.., year] if (6..=7).contains(&fields.len()) => {
                return Err(CronError::Unsupported {
                    field: "field",
                    given: year.to_owned(),
                    meaning: "a year",
                    allowed: FIELDS,
                });
            }
            _ => {
                return Err(CronError::Fields {
                    given: text.to_owned(),
                    count: fields.len(),
                    allowed: FIELDS,
                });
            }
        };
        let weekdays = WEEKDAYS.parse(weekday)?;
        Ok(Fields {
            seconds: SECONDS.parse(second)?,
            minutes: MINUTES.parse(minute)?,
            hours: HOURS.parse(hour)? as u32,
            days: DAYS.parse(day)? as u32,
            months: MONTHS.parse(month)? as u16,
            // 7 is Sunday as well.
            weekdays: (weekdays | weekdays >> 7) as u8 & 0x7f,
            either_day: !day.starts_with('*') && !weekday.starts_with('*'),
        })
    }

    pub(super) fn every_hour(self) -> bool {
        self.hours == HOURS.all() as u32
    }
}

const FIELDS: &str = "minute hour day-of-month month day-of-week, with or without second in front";

const NICKNAMES: &str = "@yearly, @annually, @monthly, @weekly, @daily, @midnight, @hourly";

fn expand(nickname: &str) -> Result<&'static str, CronError> {
    let given = nickname.to_owned();
    let unsupported = |meaning| {
        let (field, given) = ("nickname", nickname.to_owned());
        Err(CronError::Unsupported { field, given, meaning, allowed: NICKNAMES })
    };
    match nickname.to_ascii_lowercase().as_str() {
        "@yearly" | "@annually" => Ok("0 0 1 1 *"),
        "@monthly" => Ok("0 0 1 * *"),
        "@weekly" => Ok("0 0 * * 0"),
        "@daily" | "@midnight" => Ok("0 0 * * *"),
        "@hourly" => Ok("0 * * * *"),
        "@reboot" => unsupported("a start of the machine"),
        other if other.starts_with("@every") => unsupported("a fixed period, which is `Every`"),
        _ => Err(CronError::Value { field: "nickname", given, allowed: NICKNAMES }),
    }
}

fn is_year(field: &str) -> bool {
    field.len() == 4 && field.starts_with(['1', '2']) && number(field).is_some()
}

fn number(text: &str) -> Option<u16> {
    // `parse` alone takes a sign.
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// What a field may hold.
struct Field {
    name: &'static str,
    allowed: &'static str,
    low: u16,
    high: u16,
    /// The number of different values: 0 and 7 are the same day.
    count: u16,
    /// The names of the values from `first_name` on.
    names: &'static [&'static str],
    first_name: u16,
}

impl Field {
    const fn numbers(name: &'static str, allowed: &'static str, low: u16, high: u16) -> Field {
        Field { name, allowed, low, high, count: high - low + 1, names: &[], first_name: 0 }
    }

    const fn all(&self) -> u64 {
        (2 << self.high) - (1 << self.low)
    }

    fn parse(&self, field: &str) -> Result<u64, CronError> {
        let mut values = 0;
        for item in field.split(',') {
            values |= self.parse_item(item)?;
        }
        Ok(values)
    }

    fn parse_item(&self, item: &str) -> Result<u64, CronError> {
        let (range, step) = match item.split_once('/') {
            Some((range, step)) => (range, Some(step)),
            None => (item, None),
        };
        let (low, high) = match range.split_once('-') {
            _ if range == "*" => (self.low, self.high),
            Some((low, high)) => {
                let low = self.value(low, item)?;
                match self.value(high, item)? {
                    // Sunday by name can end a week as well as begin it.
                    0 if low > 0 && number(high).is_none() => (low, 7),
                    high => (low, high),
                }
            }
            None if step.is_some() => {
                self.value(range, item)?;
                return Err(self.invalid_step(item));
            }
            None => {
                let value = self.value(range, item)?;
                (value, value)
            }
        };
        if low > high {
            return Err(CronError::Backwards { field: self.name, given: item.to_owned() });
        }
        let step = match step.map(number) {
            None => 1,
            Some(Some(step)) if (1..=self.count).contains(&step) => step,
            Some(_) => return Err(self.invalid_step(item)),
        };
        Ok((low..=high).step_by(step.into()).fold(0, |values, value| values | 1 << value))
    }

    fn value(&self, text: &str, item: &str) -> Result<u16, CronError> {
        let named = || self.names.iter().position(|name| name.eq_ignore_ascii_case(text));
        match number(text) {
            Some(value) if (self.low..=self.high).contains(&value) => return Ok(value),
            None if let Some(index) = named() => return Ok(self.first_name + index as u16),
            _ => {}
        }
        let (field, given, allowed) = (self.name, item.to_owned(), self.allowed);
        let of_days = field.starts_with("day");
        let meaning = match item.to_ascii_uppercase() {
            item if item.contains('?') => "any value, as * does",
            item if item.contains('#') => "the n-th such weekday of the month",
            item if item.starts_with('H') || item.contains('~') => "a value by chance",
            item if of_days && item.ends_with('W') => "the working day next to a date",
            item if of_days && (item.starts_with('L') || item.ends_with('L')) => {
                "the last such day of the month"
            }
            _ => return Err(CronError::Value { field, given, allowed }),
        };
        Err(CronError::Unsupported { field, given, meaning, allowed })
    }

    fn invalid_step(&self, item: &str) -> CronError {
        CronError::Step { field: self.name, given: item.to_owned(), max: self.count }
    }
}

const SECONDS: Field = Field::numbers("second", "0 to 59 and *", 0, 59);
const MINUTES: Field = Field::numbers("minute", "0 to 59 and *", 0, 59);
const HOURS: Field = Field::numbers("hour", "0 to 23 and *", 0, 23);
const DAYS: Field = Field::numbers("day-of-month", "1 to 31 and *", 1, 31);
const MONTHS: Field = Field {
    names: &["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"],
    first_name: 1,
    ..Field::numbers("month", "1 to 12, JAN to DEC and *", 1, 12)
};
const WEEKDAYS: Field = Field {
    names: &["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"],
    count: 7,
    ..Field::numbers("day-of-week", "0 to 7, SUN to SAT and *", 0, 7)
};

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(text: &str) -> Fields {
        Fields::parse(text).unwrap()
    }

    fn error(text: &str) -> String {
        Fields::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn fields_become_sets() {
        let parsed = fields("*/20 5-50/15 8,10-12 1,31 feb,DEC-dec MON-wed");
        assert_eq!(parsed.seconds, 1 | 1 << 20 | 1 << 40);
        assert_eq!(parsed.minutes, 1 << 5 | 1 << 20 | 1 << 35 | 1 << 50);
        assert_eq!(parsed.hours, 1 << 8 | 0b111 << 10);
        assert_eq!(parsed.days, 1 << 1 | 1 << 31);
        assert_eq!(parsed.months, 1 << 2 | 1 << 12);
        assert_eq!(parsed.weekdays, 0b1110);
        assert!(parsed.either_day && !parsed.every_hour());
    }

    #[test]
    fn a_nickname_is_an_expression() {
        for (nickname, text) in [
            ("@yearly", "0 0 1 1 *"),
            ("@annually", "0 0 1 1 *"),
            ("@monthly", "0 0 1 * *"),
            ("@weekly", "0 0 * * 0"),
            ("@Daily", "0 0 * * *"),
            ("@midnight", "0 0 * * *"),
            (" @hourly\n", "0 * * * *"),
        ] {
            assert!(fields(nickname) == fields(text), "{nickname}");
        }
    }

    #[test]
    fn sunday_is_0_and_7_and_ends_a_week() {
        let weekdays = |field: &str| fields(&format!("0 0 * * {field}")).weekdays;
        for sunday in ["0", "7", "sun", "SUN-SUN", "0,7", "*/7", "7-7"] {
            assert_eq!(weekdays(sunday), 1, "{sunday}");
        }
        assert_eq!(weekdays("FRI-SUN"), weekdays("5-7"));
        assert_eq!(weekdays("5-7"), 0b110_0001);
        assert_eq!(weekdays("0-7"), weekdays("*"));
        assert_eq!(weekdays("SUN-TUE"), 0b111);
    }

    #[test]
    fn every_hour_can_be_written_in_many_ways() {
        for field in ["*", "*/1", "0-23", "0-11,12-23", "5,*"] {
            assert!(fields(&format!("0 {field} * * *")).every_hour(), "{field}");
        }
        for field in ["*/2", "1-23", "0"] {
            assert!(!fields(&format!("0 {field} * * *")).every_hour(), "{field}");
        }
    }

    #[test]
    fn a_star_in_front_of_either_day_asks_for_both() {
        assert!(fields("0 0 13 * 5").either_day);
        for text in ["0 0 */2 * 5", "0 0 *,3 * 5", "0 0 13 * */2", "0 0 13 * *", "0 0 * * *"] {
            assert!(!fields(text).either_day, "{text}");
        }
    }

    #[test]
    fn months_that_lack_the_days_never_fire() {
        for text in ["0 0 30 2 *", "0 0 31 2,4,6,9,11 *", "0 0 30,31 FEB */2"] {
            assert!(!fields(text).ever_fires(), "{text}");
        }
        for text in ["0 0 29 2 *", "0 0 31 2-3 *", "0 0 30 2 5", "0 0 29 2 */6"] {
            assert!(fields(text).ever_fires(), "{text}");
        }
    }

    #[test]
    fn an_error_says_what_is_wrong_and_what_is_allowed() {
        let of_fields =
            "minute hour day-of-month month day-of-week, with or without second in front";
        for text in ["", "* * * *", "* * * * * * * *"] {
            assert!(error(text).ends_with(&format!("it must have {of_fields}")), "{text}");
        }
        for (text, message) in [
            ("60 * * * *", r#"minute "60" is invalid, allowed are 0 to 59 and *"#),
            ("* * 0 * *", r#"day-of-month "0" is invalid, allowed are 1 to 31 and *"#),
            ("* * * JANU *", r#"month "JANU" is invalid, allowed are 1 to 12, JAN to DEC and *"#),
            ("* * * * 1,,2", r#"day-of-week "" is invalid, allowed are 0 to 7, SUN to SAT and *"#),
            ("* +5 * * *", r#"hour "+5" is invalid, allowed are 0 to 23 and *"#),
            (
                "* 22-2 * * *",
                r#"hour "22-2" runs backwards, write two ranges: up to the last value, from the first"#,
            ),
            (
                "*/0 * * * *",
                r#"minute "*/0" has an invalid step, allowed are 1 to 60 after * or a range"#,
            ),
            (
                "*/90 * * * *",
                r#"minute "*/90" has an invalid step, allowed are 1 to 60 after * or a range"#,
            ),
            (
                "5/15 * * * *",
                r#"minute "5/15" has an invalid step, allowed are 1 to 60 after * or a range"#,
            ),
        ] {
            assert_eq!(error(text), message);
        }
    }

    #[test]
    fn what_only_other_schedulers_know_is_named() {
        for (text, part) in [
            ("0 0 L * *", r#"day-of-month "L" means the last such day of the month"#),
            ("0 0 L-3 * *", r#"day-of-month "L-3" means the last such day of the month"#),
            ("0 0 * * 5L", r#"day-of-week "5L" means the last such day of the month"#),
            ("0 0 15W * *", r#"day-of-month "15W" means the working day next to a date"#),
            ("0 0 LW * *", r#"day-of-month "LW" means the working day next to a date"#),
            ("0 0 * * MON#2", r##"day-of-week "MON#2" means the n-th such weekday of the month"##),
            ("0 0 ? * 1", r#"day-of-month "?" means any value, as * does"#),
            ("H/15 * * * *", r#"minute "H/15" means a value by chance"#),
            ("0 0 1 1 * 2030", r#"field "2030" means a year"#),
            ("0 0 0 1 1 * *", r#"field "*" means a year"#),
            ("@reboot", r#"nickname "@reboot" means a start of the machine"#),
            ("@every 5m", r#"nickname "@every 5m" means a fixed period, which is `Every`"#),
            ("TZ=UTC 0 2 * * *", r#"text "TZ=UTC" means a setting"#),
        ] {
            let message = error(text);
            assert!(message.starts_with(part), "{message}");
            assert!(message.contains("is not supported; allowed are "), "{message}");
        }
    }
}
