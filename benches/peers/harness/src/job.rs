use serde::{Deserialize, Serialize};

/// The argument of every job: about 100 bytes of JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Job {
    pub number: u64,
    pub text: String,
}

impl Job {
    #[must_use]
    pub fn new(number: u64) -> Job {
        Job { number, text: "x".repeat(100) }
    }

    /// For libraries that take values, or bytes, as they are.
    #[must_use]
    pub fn encoded(number: u64) -> Vec<u8> {
        serde_json::to_vec(&Job::new(number)).expect("a job is encoded")
    }
}
