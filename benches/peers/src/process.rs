//! Each measurement runs in a process of its own, with a folder of its own on the disk of the target folder: a temporary
//! folder may be in memory.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use peers_harness::{Child, Measure, Report};

use crate::list::{BY_HAND, Entry, Program};

pub struct Processes {
    target: PathBuf,
    this: PathBuf,
    siblings: HashMap<&'static str, PathBuf>,
}

impl Processes {
    /// Builds the packages that these entries are in.
    pub fn prepare(entries: &[&'static Entry]) -> Processes {
        let this = std::env::current_exe().expect("a program has a path");
        let target = this.ancestors().nth(2).expect("it is in target/release").to_owned();
        let mut siblings = HashMap::new();
        for entry in entries {
            if let Program::Sibling(name) = entry.program {
                siblings.entry(name).or_insert_with(|| build(name, &target));
            }
        }
        Processes { target, this, siblings }
    }

    /// Measures one entry.
    pub fn measure(&self, entry: &Entry, measure: Measure, jobs: u64) -> Report {
        let program = match entry.program {
            Program::Here(_) => &self.this,
            Program::Sibling(name) => &self.siblings[name],
        };
        self.run(program, entry.name, measure, jobs)
    }

    /// Measures the disk.
    pub fn fsyncs(&self, count: u64) -> Report {
        self.run(&self.this, BY_HAND, Measure::Fsync, count)
    }

    fn run(&self, program: &Path, peer: &str, measure: Measure, jobs: u64) -> Report {
        let folder = self.target.join("peers-data").join(std::process::id().to_string());
        // What a run before this one may have left behind.
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).expect("a folder can be made");
        let child = Child { peer: peer.to_owned(), measure, jobs, folder };
        let output = Command::new(program)
            .args(child.args())
            .stderr(Stdio::inherit())
            .output()
            .expect("the process starts");
        let _ = fs::remove_dir_all(&child.folder);
        if !output.status.success() {
            eprintln!("{peer}: {measure:?} of {jobs} jobs has failed: {}", output.status);
            std::process::exit(1);
        }
        serde_json::from_slice(&output.stdout).expect("a process prints its report")
    }
}

fn build(name: &str, target: &Path) -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join(name).join("Cargo.toml");
    let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--quiet", "--release", "--locked", "--manifest-path"])
        .arg(manifest)
        .arg("--target-dir")
        .arg(target)
        .status()
        .expect("cargo starts");
    assert!(status.success(), "{name} is built");
    target.join("release").join(format!("peers-{name}"))
}
