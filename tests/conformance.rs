//! Every backend passes the conformance suite.
#![cfg(feature = "conformance")]

use actix_workpool::storage::{Memory, conformance};

#[test]
fn memory_conforms() {
    for seed in 0..20 {
        let tables = Memory::new();
        conformance::exercise(seed, 300, || tables.clone());
    }
}

#[cfg(feature = "redb")]
#[test]
fn redb_conforms() {
    use actix_workpool::storage::Redb;
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("conformance");
    std::fs::create_dir_all(&folder).unwrap();
    for seed in 0..20 {
        let path = folder.join(format!("{seed}.redb"));
        let _ = std::fs::remove_file(&path);
        // A small log: everything goes through it many times, and some commits are too large for it.
        let length = [8 << 10, 16 << 10, 64 << 10, 256 << 10][seed as usize % 4];
        // With checkpoints beside the commits, and in their midst.
        match seed % 8 < 4 {
            true => {
                conformance::exercise(seed, 300, || Redb::open_with_log(&path, length).unwrap())
            }
            false => conformance::exercise(seed, 300, || {
                Redb::open_with_log(&path, length).unwrap().on_one_thread()
            }),
        }
    }
    std::fs::remove_dir_all(&folder).unwrap();
}
