//! Texts that are not cron expressions.

/// A text that is not a cron expression.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CronError {
    /// More text than can be kept.
    #[error("a cron expression of {given} bytes was given, it may have at most {max}")]
    Length {
        /// The number of bytes that was given.
        given: usize,
        /// The maximum.
        max: usize,
    },
    /// Too few or too many fields.
    #[error("cron expression {given:?} has {count} fields, it must have {allowed}")]
    Fields {
        /// The expression.
        given: String,
        /// The number of its fields.
        count: usize,
        /// The fields that it must have.
        allowed: &'static str,
    },
    /// A value that the field cannot have.
    #[error("{field} {given:?} is invalid, allowed are {allowed}")]
    Value {
        /// The name of the field.
        field: &'static str,
        /// The item of the field's list.
        given: String,
        /// The values that the field can have.
        allowed: &'static str,
    },
    /// A range whose end is before its start.
    #[error(
        "{field} {given:?} runs backwards, write two ranges: up to the last value, from the first"
    )]
    Backwards {
        /// The name of the field.
        field: &'static str,
        /// The range.
        given: String,
    },
    /// A step that is out of its range, or follows a single value.
    #[error("{field} {given:?} has an invalid step, allowed are 1 to {max} after * or a range")]
    Step {
        /// The name of the field.
        field: &'static str,
        /// The item of the field's list.
        given: String,
        /// The largest step of the field.
        max: u16,
    },
    /// What only other schedulers know.
    #[error("{field} {given:?} means {meaning}, which is not supported; allowed are {allowed}")]
    Unsupported {
        /// The name of the field.
        field: &'static str,
        /// The item of the field's list.
        given: String,
        /// What it means elsewhere.
        meaning: &'static str,
        /// What can be written here.
        allowed: &'static str,
    },
    /// Days that none of the months have.
    #[error("cron expression {given:?} never fires, its months do not have its days")]
    Never {
        /// The expression.
        given: String,
    },
}
