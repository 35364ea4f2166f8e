//! The example `durable` as its users run it: killed in the middle of its work, and run again.

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// The example, which `cargo test` builds beside the tests.
fn durable(file: &Path) -> Command {
    let mut folder = std::env::current_exe().unwrap();
    folder.pop();
    folder.pop();
    let mut command = Command::new(folder.join("examples/durable"));
    command.arg(file).args(["--transfers", "400"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn kill_after(file: &Path, step: u64) -> Output {
    durable(file).args(["--kill-after", &step.to_string()]).output().expect("the example is built")
}

/// A folder of its own for each test, empty.
fn folder(test: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("durable-example-{test}"));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Runs it to its end, and answers how many mails were delivered.
fn finish(file: &Path) -> usize {
    let output = durable(file).output().expect("the example is built");
    let printed = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{printed}{output:?}");
    for line in [
        "transfers: 400 of 400 made, each once\n",
        "accounts:  10 hold 10000 of 10000, balanced\n",
        "mails:     400 of 400 recorded, each once; delivered ",
    ] {
        assert!(printed.contains(line), "{printed}");
    }
    let delivered = printed.rsplit("delivered ").next().unwrap();
    delivered.strip_suffix(" times\n").unwrap().parse().unwrap()
}

#[test]
fn undisturbed_each_mail_is_delivered_once() {
    let file = folder("undisturbed").join("ledger.redb");
    assert_eq!(finish(&file), 400);
    assert_eq!(finish(&file), 400, "nothing is done again");
}

#[test]
fn killed_at_any_step_the_books_balance_and_nothing_is_lost() {
    let folder = folder("killed");
    // The first one in the first transfer; the last ones when only mails are left.
    for step in [1, 2, 150, 500, 800, 1_100, 1_199] {
        let file = folder.join(format!("{step}.redb"));
        let killed = kill_after(&file, step);
        assert_eq!(killed.status.signal(), Some(6), "it has aborted: {killed:?}");
        assert!(stdout(&killed).starts_with("a new ledger"), "{killed:?}");
        let delivered = finish(&file);
        // At most those that were under way may be delivered twice.
        assert!((400..=420).contains(&delivered), "{delivered} deliveries, killed at {step}");
    }
}

#[test]
fn killed_again_and_again_it_goes_on_each_time() {
    let file = folder("again").join("ledger.redb");
    let mut kills = 0;
    let mut made_before = 0;
    for _ in 0..20 {
        let killed = kill_after(&file, 150);
        if killed.status.success() {
            break;
        }
        kills += 1;
        let printed = stdout(&killed);
        if kills > 1 {
            assert!(printed.contains("accounts hold 10000 of 10000"), "always: {printed}");
            let made = printed.strip_prefix("going on: ").and_then(|rest| rest.split(' ').next());
            let made: u64 = made.unwrap().parse().unwrap();
            assert!(made >= made_before, "what was made stays made");
            made_before = made;
        }
    }
    assert!(kills >= 5, "{kills}");
    assert!((400..=400 + 20 * kills).contains(&finish(&file)));
}
