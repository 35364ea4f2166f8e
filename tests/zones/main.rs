//! Cron expressions where clocks change: against a slow walk, and against a table made elsewhere.

mod table;
mod walk;
