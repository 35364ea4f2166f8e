//! The pages as HTML. All outside data is text for maud, which escapes it.

mod bulk;
mod chart;
mod config;
mod job;
mod keys;
mod layout;
mod overview;
mod parts;
mod pool;
mod pretty;
mod schedules;
mod timeline;
mod words;
mod works;

pub(super) use bulk::bulk;
pub(super) use config::config;
pub(super) use job::job;
pub(super) use keys::keys;
pub(super) use layout::{Here, Nav, error, page, title_of};
pub(super) use overview::overview;
pub(super) use pool::pool;
pub(super) use schedules::schedules;
pub(super) use words::encoded;
pub(super) use works::{Listed, list_title, works};
