//! Operations on pools: read them, act on a job by its id, act on many jobs, change a pool.
//!
//! The dashboard and other tools use these. Nothing here depends on HTTP or a terminal.

mod activity;
mod big;
mod bulk;
mod error;
mod key_text;
mod keys;
mod operator;
mod pacing;
mod redaction;
mod schedules;
pub(crate) mod schema;
mod views;

pub(crate) use activity::{Activity, Range, Totals};
pub(crate) use big::Big;
pub(crate) use bulk::{Bulk, BulkAction, Done, Found, MOST, TO_SAY};
pub(crate) use error::OpsError;
pub(crate) use key_text::{ShownKey, key_of};
pub(crate) use keys::{KeyView, KeysView, MOST_KEYS};
pub(crate) use operator::{Operator, PoolChange};
pub(crate) use redaction::Redaction;
pub use redaction::Sensitive;
pub(crate) use schedules::{ScheduleAction, ScheduleView, SchedulesView};
pub(crate) use schema::{CancelAnswer, PriorityAnswer, RetryAnswer, RunNowAnswer};
pub(crate) use views::{
    ConfigView, ErrorView, ExplainView, FunctionView, JsonView, KeyRuleView, LatelyView,
    OnCompleteView, Overview, PageView, PoolConfigView, PoolView, ProgressView, RetryView,
    RuntimeView, WorkDetail, WorkView,
};
