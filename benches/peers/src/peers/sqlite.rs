//! What is asked of SQLite by the side of a library that is built on it.

use std::time::Duration;

use sqlx::SqlitePool;

/// Waits until the count of what is done is this.
pub async fn settle(pool: &SqlitePool, done: &'static str, jobs: u64) {
    loop {
        let done: i64 = sqlx::query_scalar(done).fetch_one(pool).await.expect("it answers");
        if done.cast_unsigned() == jobs {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// How the connections of the pool sync, as each of them says.
pub async fn durability(pool: &SqlitePool) -> String {
    let mut connections = Vec::new();
    for _ in 0..pool.size() {
        connections.push(pool.acquire().await.expect("a connection"));
    }
    let mut answers = Vec::new();
    for connection in &mut connections {
        let journal: String = sqlx::query_scalar("PRAGMA journal_mode")
            .fetch_one(&mut **connection)
            .await
            .expect("it answers");
        let synchronous: i64 = sqlx::query_scalar("PRAGMA synchronous")
            .fetch_one(&mut **connection)
            .await
            .expect("it answers");
        answers.push((journal, synchronous));
    }
    answers.dedup();
    match answers.as_slice() {
        [(journal, synchronous)] => peers_harness::sqlite_durability(journal, *synchronous),
        _ => panic!("connections differ: {answers:?}"),
    }
}
