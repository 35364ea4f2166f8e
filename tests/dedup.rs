//! The example `dedup` as its users run it: a process over a tree of files, held against coreutils.
#![cfg(target_os = "linux")]

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// The example, which `cargo test` builds beside the tests.
fn dedup() -> Command {
    let mut folder = std::env::current_exe().unwrap();
    folder.pop();
    folder.pop();
    Command::new(folder.join("examples/dedup"))
}

fn run<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Output {
    dedup().args(args).output().expect("the example is built")
}

/// The totals, which are the one line that is printed.
fn totals(output: &Output) -> Value {
    let printed = std::str::from_utf8(&output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(output));
    assert!(printed.ends_with('\n') && printed.lines().count() == 1, "one line: {printed:?}");
    serde_json::from_str(printed).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A folder of files that is removed in the end.
struct Tree(PathBuf);

impl Tree {
    fn new(name: &str) -> Tree {
        let folder = format!("dedup-{name}-{}", std::process::id());
        let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join(folder);
        fs::create_dir_all(&root).unwrap();
        Tree(root)
    }

    fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.0.join(name)
    }

    fn write(&self, name: impl AsRef<Path>, content: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// Some of everything.
    fn varied(name: &str) -> Tree {
        let tree = Tree::new(name);
        for n in 0..120 {
            // 40 contents of up to 300 KiB, each three times, and one that is there once.
            let content = vec![n as u8 % 40; (n % 40) * (n % 40) * 200 + 1];
            tree.write(format!("many/{}/{n}.dat", n % 7), content);
            tree.write(format!("many/{}/{n}.txt", n % 5), format!("only once: {n}"));
        }
        for n in 0..3 {
            tree.write(format!("empty/{n}"), "");
        }
        tree.write(not_utf8("caf", ".txt"), "coffee");
        tree.write(not_utf8("folder/th", "/tea"), "coffee");
        tree.write("line\nbreak \\ and 'quotes'", "coffee");
        fs::hard_link(tree.path("many/0/0.dat"), tree.path("hard link")).unwrap();
        symlink("many/0/0.dat", tree.path("link to a file")).unwrap();
        symlink("many", tree.path("link to a folder")).unwrap();
        symlink("..", tree.path("many/loop")).unwrap();
        symlink("nowhere", tree.path("dangling link")).unwrap();
        let made = Command::new("mkfifo").arg(tree.path("pipe")).status().unwrap();
        assert!(made.success());
        tree
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn not_utf8(before: &str, after: &str) -> OsString {
    OsString::from_vec([before.as_bytes(), b"\xe9", after.as_bytes()].concat())
}

/// The totals as find, sha256sum and uniq have them.
fn coreutils(root: &Path) -> Value {
    let script = r#"
        find "$1" -type f -exec sh -c '
            for file; do echo "$(stat -c %s "$file") $(sha256sum <"$file")"; done
        ' sh {} + | sort | uniq -c"#;
    let output = Command::new("sh").args(["-c", script, "sh"]).arg(root).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let (mut files, mut bytes, mut groups, mut members, mut wasted) = (0, 0, 0, 0, 0);
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        let mut fields = line.split_whitespace();
        let mut number = || fields.next().unwrap().parse::<u64>().unwrap();
        let (copies, size) = (number(), number());
        files += copies;
        bytes += copies * size;
        if copies > 1 && size > 0 {
            groups += 1;
            members += copies;
            wasted += (copies - 1) * size;
        }
    }
    serde_json::json!({
        "files": files,
        "bytes": bytes,
        "duplicate_groups": groups,
        "duplicate_files": members,
        "wasted_bytes": wasted,
        "failed": 0,
    })
}

/// The totals without the one that is never the same twice.
fn steady(mut totals: Value) -> Value {
    let speed = totals.as_object_mut().unwrap().remove("works_per_s").unwrap();
    assert!(speed.as_f64().unwrap() >= 0.0);
    totals
}

#[test]
fn it_agrees_with_coreutils() {
    let tree = Tree::varied("agrees");
    let expected = coreutils(&tree.0);
    assert_eq!(expected["duplicate_groups"], 41, "the tree is what it should be");

    for parallelism in ["1", "3", "200"] {
        let output =
            run(["--json".as_ref(), "--parallelism".as_ref(), parallelism.as_ref(), &*tree.0]
                as [&Path; 4]);
        assert_eq!(steady(totals(&output)), expected);
        assert_eq!(stderr(&output), "", "nothing is drawn into a pipe");
    }
}

#[test]
fn a_file_that_several_paths_lead_to_counts_once() {
    let tree = Tree::varied("overlap");
    let expected = coreutils(&tree.0);
    let paths = [
        tree.path("many/3"),
        tree.0.clone(),
        tree.path("many/../many"),
        tree.0.clone(),
        tree.path("many/0/0.dat"),
        tree.path("link to a folder/0"),
    ];
    let output = run(["--json".as_ref()].into_iter().chain(paths.iter().map(PathBuf::as_path)));
    assert_eq!(steady(totals(&output)), expected);
}

#[test]
fn a_symlink_is_not_followed_even_if_it_is_given() {
    let tree = Tree::varied("symlink");
    let output = run([Path::new("--json"), &tree.path("link to a folder")]);
    assert_eq!(totals(&output)["files"], 0);
    assert!(stderr(&output).contains("link to a folder"), "{}", stderr(&output));
}

#[test]
fn a_file_that_cannot_be_read_is_reported_counted_and_stops_nothing() {
    // A regular file of which nobody, root included, can read the first page.
    let unreadable = Path::new("/proc/self/mem");
    let tree = Tree::varied("unreadable");
    let mut expected = coreutils(&tree.0);
    expected["files"] = (expected["files"].as_u64().unwrap() + 1).into();
    expected["failed"] = 1.into();

    let started = Instant::now();
    let output = run([Path::new("--json"), unreadable, &tree.0]);
    assert_eq!(steady(totals(&output)), expected);
    assert!(stderr(&output).contains("/proc/self/mem: Input/output error"), "{}", stderr(&output));
    // Two retries, after 25 ms and 50 ms at least.
    assert!(started.elapsed() >= Duration::from_millis(75), "it was retried");
}

#[test]
fn the_report_lists_duplicates_by_what_they_waste_and_names_them_byte_for_byte() {
    let tree = Tree::new("report");
    for name in ["small/a", "small/b", "small/c"] {
        tree.write(name, "x".repeat(10));
    }
    let odd = not_utf8("large/", "");
    tree.write("large/a", "y".repeat(5_000));
    tree.write(&odd, "y".repeat(5_000));
    tree.write("alone", "z");

    let output = run([&tree.0]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let path = |name: &OsStr| [b"  ", tree.path(name).as_os_str().as_encoded_bytes()].concat();
    let mut lines = output.stdout.split(|byte| *byte == b'\n');
    let mut line = || lines.next().unwrap().to_vec();
    assert_eq!(line(), "2 × 4.88 KiB, 4.88 KiB wasted".as_bytes());
    assert_eq!(line(), path("large/a".as_ref()));
    assert_eq!(line(), path(&odd));
    assert_eq!(line(), "3 × 10 B, 20 B wasted".as_bytes());
    for name in ["small/a", "small/b", "small/c"] {
        assert_eq!(line(), path(name.as_ref()));
    }
    let last = String::from_utf8(line()).unwrap();
    assert!(last.starts_with("6 files with "), "{last}");
    assert!(last.contains("2 groups of 5 duplicates, 4.90 KiB wasted; 0 failed"), "{last}");
}

#[test]
fn an_empty_folder_has_nothing_in_it() {
    let tree = Tree::new("empty");
    let totals = totals(&run([Path::new("--json"), &tree.0]));
    assert!(totals.as_object().unwrap().values().all(|total| total.as_f64() == Some(0.0)));
}

#[test]
fn wrong_arguments_are_named_and_exit_with_2() {
    let tree = Tree::new("arguments");
    let missing = tree.path("missing");
    let here = tree.0.to_str().unwrap();
    for (args, named) in [
        (vec![here, missing.to_str().unwrap()], "missing: No such file"),
        (vec![here, "--parallelism", "0"], "'0'"),
        (vec![here, "--parallelism", "1000000000000"], "'1000000000000'"),
        (vec![here, "--parallelism", "all"], "'all'"),
        (vec!["--json"], "<PATH>"),
    ] {
        let output = run(&args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(output.stdout.is_empty(), "{args:?}");
        assert!(stderr(&output).contains(named), "{args:?}: {}", stderr(&output));
    }
}

#[test]
fn an_interrupt_shuts_down_gracefully() {
    let tree = Tree::varied("interrupt");
    // A hole that takes minutes to read.
    let large = tree.path("large");
    fs::File::create(&large).unwrap().set_len(1 << 38).unwrap();
    let mut child = dedup();
    let child = child.arg("--json").arg(&tree.0).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = child.spawn().unwrap();
    let is_open = || {
        let files = fs::read_dir(format!("/proc/{}/fd", child.id())).unwrap();
        files.flatten().any(|file| fs::read_link(file.path()).is_ok_and(|path| path == large))
    };
    let started = Instant::now();
    while !is_open() {
        assert!(started.elapsed() < Duration::from_secs(60), "the large file is not hashed");
        std::thread::sleep(Duration::from_millis(10));
    }

    let interrupted = Instant::now();
    let killed = Command::new("kill").arg("-INT").arg(child.id().to_string()).status().unwrap();
    assert!(killed.success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
    assert!(output.stdout.is_empty(), "no totals of a part");
    assert!(stderr(&output).contains("not hashed"), "{}", stderr(&output));
    assert!(interrupted.elapsed() < Duration::from_secs(30));
}
