//! Where, and with what, it was measured.

/// The cores and the system.
pub fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{cores} cores, {} {}", std::env::consts::OS, kernel.trim())
}

/// The versions of what is compared, from the lock files.
pub fn versions() -> String {
    const LOCKS: [&str; 2] =
        [include_str!("../Cargo.lock"), include_str!("../effectum/Cargo.lock")];
    const CRATES: &[&str] = &[
        "actix-workpool",
        "kameo",
        "kameo_actors",
        "ractor",
        "apalis",
        "apalis-sqlite",
        "effectum",
        "riverqueue",
        "tokio",
    ];
    let versions = CRATES.iter().map(|name| {
        let version = LOCKS.iter().find_map(|lock| version(lock, name));
        format!("{name} {}", version.expect("what is compared is locked"))
    });
    versions.collect::<Vec<_>>().join(", ")
}

fn version<'a>(lock: &'a str, name: &str) -> Option<&'a str> {
    let (_, package) = lock.split_once(&format!("name = \"{name}\"\nversion = \""))?;
    package.split('"').next()
}
