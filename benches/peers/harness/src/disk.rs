use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::Instant;

/// The microseconds of appends of 4 KiB, each synced.
pub fn fsyncs(folder: &Path, count: u64) -> Vec<f64> {
    let mut file = File::create(folder.join("appends")).expect("a file can be made");
    let block = [7; 4096];
    let append = |_| {
        let begun = Instant::now();
        file.write_all(&block).expect("written");
        file.sync_data().expect("synced");
        begun.elapsed().as_secs_f64() * 1e6
    };
    (0..count).map(append).collect()
}
