/// What SQLite keeps with these settings, in words.
#[must_use]
pub fn sqlite_durability(journal_mode: &str, synchronous: i64) -> String {
    let name = match synchronous {
        0 => "OFF",
        1 => "NORMAL",
        2 => "FULL",
        _ => "EXTRA",
    };
    let means = match (journal_mode, synchronous) {
        (_, 0) => "never synced",
        ("wal", 1) => "the last commits may be lost with the power",
        (_, 1) => "fsync of each commit, but not of each step",
        _ => "fsync of each commit",
    };
    format!("SQLite {journal_mode}, synchronous={name}: {means}")
}
