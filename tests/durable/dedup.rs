//! The example `dedup` as its users run it: a process over a tree of files, held against coreutils.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{BufRead, BufReader, Lines};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Output, Stdio};
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

/// The totals without those that are not the same in every run.
fn steady(mut totals: Value) -> Value {
    let speed = totals.as_object_mut().unwrap().remove("works_per_s").unwrap();
    assert!(speed.as_f64().unwrap() >= 0.0);
    totals
}

/// Waits until the process has opened the file.
fn await_open(child: &Child, path: &Path) {
    let is_open = || {
        let files = fs::read_dir(format!("/proc/{}/fd", child.id())).unwrap();
        files.flatten().any(|file| fs::read_link(file.path()).is_ok_and(|open| open == path))
    };
    let started = Instant::now();
    while !is_open() {
        assert!(started.elapsed() < Duration::from_secs(60), "{} is not hashed", path.display());
        std::thread::yield_now();
    }
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
    await_open(&child, &large);

    let interrupted = Instant::now();
    let killed = Command::new("kill").arg("-INT").arg(child.id().to_string()).status().unwrap();
    assert!(killed.success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
    assert!(output.stdout.is_empty(), "no totals of a part");
    assert!(stderr(&output).contains("not hashed"), "{}", stderr(&output));
    assert!(interrupted.elapsed() < Duration::from_secs(30));
}

// With a store

/// A run that says what it does.
struct Observed {
    child: Child,
    stderr: Lines<BufReader<ChildStderr>>,
    /// How often the hashing of each file has begun.
    hashings: BTreeMap<PathBuf, usize>,
}

impl Observed {
    fn new<S: AsRef<OsStr>>(store: &Path, args: impl IntoIterator<Item = S>) -> Observed {
        let mut child = dedup()
            .args(["--json".as_ref(), "--store".as_ref(), store.as_os_str()])
            .args(args)
            .env("RUST_LOG", "dedup=debug")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap()).lines();
        Observed { child, stderr, hashings: BTreeMap::new() }
    }

    /// Reads until it has said this as many times, or everything that it says.
    fn until(&mut self, said: &str, mut times: usize) {
        while times > 0
            && let Some(line) = self.stderr.next()
        {
            let line = line.unwrap();
            if let Some((_, path)) = line.split_once("dedup: hashing path=") {
                *self.hashings.entry(path.into()).or_default() += 1;
            }
            times -= usize::from(line.contains(said));
        }
    }

    /// Kills it, and answers what it has begun to hash until then.
    fn kill(mut self) -> BTreeMap<PathBuf, usize> {
        self.child.kill().unwrap();
        self.until("", usize::MAX);
        self.child.wait().unwrap();
        self.hashings
    }

    /// Lets it come to its end, and answers the totals and what it has hashed.
    fn finish(mut self) -> (Value, BTreeMap<PathBuf, usize>) {
        self.until("", usize::MAX);
        (totals(&self.child.wait_with_output().unwrap()), self.hashings)
    }
}

/// Takes `resumed` out of the totals.
fn resumed(totals: &mut Value) -> u64 {
    totals.as_object_mut().unwrap().remove("resumed").unwrap().as_u64().unwrap()
}

/// 400 files of 30 contents.
fn plain_tree(name: &str) -> Tree {
    let tree = Tree::new(name);
    for n in 0..400_usize {
        tree.write(format!("tree/{}/{n}", n % 7), vec![(n % 30) as u8; 500 * (n % 30) + 1]);
    }
    tree
}

/// The jobs that may be under way at once with `--parallelism 2`.
const UNDER_WAY: usize = 2 * 16;

#[test]
fn killed_at_any_moment_it_goes_on_where_it_was() {
    let tree = plain_tree("killed");
    let root = tree.path("tree");
    let expected = coreutils(&root);
    let args = ["--parallelism".as_ref(), "2".as_ref(), root.as_os_str()];
    let undisturbed = run(args);
    for (n, (said, times)) in [
        ("hashing", 1),
        ("hashed", 1),
        ("hashed", 60),
        ("hashed", 200),
        ("hashed", 385),
        ("all found", 1),
    ]
    .into_iter()
    .enumerate()
    {
        let store = tree.path(format!("store-{n}"));
        let mut first = Observed::new(&store, args);
        first.until(said, times);
        let before = first.kill();
        let (mut totals, after) = Observed::new(&store, args).finish();
        let resumed = resumed(&mut totals);
        assert_eq!(steady(totals), expected, "killed at {said} {times}");
        assert_eq!(resumed + after.len() as u64, 400, "each file is known or hashed");
        assert!(after.values().all(|hashings| *hashings == 1));
        let twice = after.keys().filter(|path| before.contains_key(*path)).count();
        assert!(twice <= UNDER_WAY, "{twice} files were hashed twice, killed at {said} {times}");
        if said == "hashed" {
            assert!(resumed + UNDER_WAY as u64 >= times as u64, "{resumed} known of {times}");
        }
        // The report for humans names the same files.
        let human = run(["--store".as_ref(), store.as_os_str(), root.as_os_str()]);
        let groups = |output: &Output| {
            let text = String::from_utf8(output.stdout.clone()).unwrap();
            text.lines().rev().skip(1).map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(groups(&human), groups(&undisturbed));
        let printed = String::from_utf8_lossy(&human.stdout);
        assert!(printed.contains("; 400 known from earlier runs; "), "{printed}");
    }
}

#[test]
fn killed_again_and_again_it_comes_to_its_end() {
    let tree = plain_tree("again");
    let root = tree.path("tree");
    let store = tree.path("store");
    let args = ["--parallelism".as_ref(), "2".as_ref(), root.as_os_str()];
    let mut hashings: BTreeMap<PathBuf, usize> = BTreeMap::new();
    let mut kills = 0;
    // More often than a file that cannot be read is tried.
    for times in [1, 0, 0, 0, 0, 5, 40, 1, 80, 20, 0, 60] {
        let mut run = Observed::new(&store, args);
        run.until("hashed", times);
        if times == 0 {
            run.until("hashing", 1);
        }
        kills += 1;
        for (path, count) in run.kill() {
            *hashings.entry(path).or_default() += count;
        }
    }
    let (mut totals, after) = Observed::new(&store, args).finish();
    assert_eq!(resumed(&mut totals) + after.len() as u64, 400);
    assert_eq!(steady(totals), coreutils(&root));
    for (path, count) in after {
        *hashings.entry(path).or_default() += count;
    }
    let repeated: usize = hashings.values().map(|count| count - 1).sum();
    assert!(repeated <= kills * UNDER_WAY, "{repeated} hashings were repeated");
    assert_eq!(hashings.len(), 400);
}

#[test]
fn a_file_is_hashed_again_only_if_it_has_changed() {
    let tree = plain_tree("changed");
    let root = tree.path("tree");
    let store = tree.path("store");
    let expected = coreutils(&root);
    let (mut first, hashings) = Observed::new(&store, [&root]).finish();
    assert_eq!((resumed(&mut first), hashings.len()), (0, 400));
    assert_eq!(steady(first), expected);

    // Other content behind the same looks: were anything read again, the report would tell.
    let walk = ignore::WalkBuilder::new(&root).standard_filters(false).build();
    let entries = walk.map(Result::unwrap);
    for file in entries.filter(|entry| entry.file_type().unwrap().is_file()) {
        let metadata = file.metadata().unwrap();
        let number: u32 = file.file_name().to_str().unwrap().parse().unwrap();
        let mut content = number.to_le_bytes().repeat(metadata.len() as usize);
        content.truncate(metadata.len() as usize);
        fs::write(file.path(), content).unwrap();
        let opened = fs::File::options().write(true).open(file.path()).unwrap();
        opened.set_modified(metadata.modified().unwrap()).unwrap();
    }
    let (mut again, hashings) = Observed::new(&store, [&root]).finish();
    assert_eq!((resumed(&mut again), hashings.len()), (400, 0));
    assert_eq!(steady(again), expected);

    let touched = root.join("3/17");
    let opened = fs::File::options().write(true).open(&touched).unwrap();
    opened.set_modified(std::time::UNIX_EPOCH - Duration::from_millis(1)).unwrap();
    fs::write(root.join("4/18"), "another size").unwrap();
    fs::remove_file(root.join("5/19")).unwrap();
    tree.write("tree/new", "new");
    let (mut last, hashings) = Observed::new(&store, [&root]).finish();
    assert_eq!(resumed(&mut last), 397);
    let hashed: Vec<_> = hashings.keys().map(|path| path.strip_prefix(&root).unwrap()).collect();
    assert_eq!(hashed, [Path::new("3/17"), Path::new("4/18"), Path::new("new")]);
    assert_eq!(last["files"], 400);
}

#[test]
fn the_report_is_about_the_paths_given_whatever_the_store_has() {
    let tree = plain_tree("paths");
    let (root, store) = (tree.path("tree"), tree.path("store"));
    let (left, right) = (root.join("1"), root.join("2"));
    // Killed with many files waiting.
    let mut first =
        Observed::new(&store, ["--parallelism".as_ref(), "1".as_ref(), &*root] as [&Path; 3]);
    first.until("all found", 1);
    first.kill();

    let (mut part, hashings) = Observed::new(&store, [&left]).finish();
    resumed(&mut part);
    assert_eq!(steady(part), coreutils(&left));
    assert!(hashings.keys().all(|path| path.starts_with(&left)), "the others are skipped");
    let (mut both, hashings) = Observed::new(&store, [&left, &right]).finish();
    assert!(resumed(&mut both) >= coreutils(&left)["files"].as_u64().unwrap());
    assert!(hashings.keys().all(|path| path.starts_with(&right)));
    // What was skipped is found again.
    let (mut whole, _) = Observed::new(&store, [&root]).finish();
    resumed(&mut whole);
    assert_eq!(steady(whole), coreutils(&root));

    // Other words for the same files, from another folder.
    let output = dedup()
        .current_dir(&left)
        .args(["--json", "--store", "../../store", ".", "../2"])
        .output()
        .unwrap();
    let mut totals = totals(&output);
    assert_eq!(resumed(&mut totals), totals["files"].as_u64().unwrap());
    assert_eq!(steady(totals), steady(both));
}

#[test]
fn files_that_git_ignores_do_not_count_unless_that_is_asked_for() {
    let tree = Tree::new("ignored");
    tree.write(".git/objects/a", "an object");
    tree.write(".gitignore", "/built\n*.log\n");
    tree.write("built/a", "made");
    tree.write("inside/built/a", "made");
    tree.write("inside/b.log", "a log");
    tree.write(".hidden", "made");
    let files = |args: &[&str]| {
        let inside = tree.path("inside").into_os_string();
        let paths = [tree.0.clone().into_os_string(), inside];
        totals(&run(args.iter().map(OsString::from).chain(paths)))["files"].clone()
    };
    assert_eq!(files(&["--json"]), 3, "the .gitignore, what is hidden, and what lies deeper");
    assert_eq!(files(&["--json", "--no-ignore"]), 6);
}

#[test]
fn the_store_is_not_among_the_files() {
    let tree = plain_tree("inside");
    let root = tree.path("tree");
    let expected = coreutils(&root);
    let store = root.join("store");
    for (paths, known) in [(vec![&root], 0), (vec![&root], 400), (vec![&root, &store], 400)] {
        let (mut totals, _) = Observed::new(&store, paths).finish();
        assert_eq!(resumed(&mut totals), known);
        assert_eq!(steady(totals), expected);
    }
}

#[test]
fn what_failed_or_changed_meanwhile_is_hashed_anew_in_the_next_run() {
    let tree = plain_tree("failed");
    let store = tree.path("store");
    let (large, root) = (tree.path("before/large"), tree.path("tree"));
    let unreadable = Path::new("/proc/1/mem");
    let args = ["--parallelism".as_ref(), "1".as_ref(), &*tree.path("before"), &root, unreadable]
        as [&Path; 5];
    tree.write("before/large", "");
    // A hole that takes minutes to read; it comes first, and the others wait.
    fs::File::options().write(true).open(&large).unwrap().set_len(1 << 38).unwrap();
    let mut first = Observed::new(&store, args);
    await_open(&first.child, &large);
    first.until("all found", 1);
    // A file that is gone for a moment.
    let victim = root.join("1/1");
    fs::rename(&victim, tree.path("elsewhere")).unwrap();
    fs::File::options().write(true).open(&large).unwrap().set_len(0).unwrap();
    let (mut totals, _) = first.finish();
    assert_eq!((resumed(&mut totals), totals["files"].clone()), (0, 402.into()));
    assert_eq!(totals["failed"], 2);

    fs::rename(tree.path("elsewhere"), &victim).unwrap();
    let (mut totals, hashings) = Observed::new(&store, args).finish();
    assert_eq!((resumed(&mut totals), totals["files"].clone()), (399, 402.into()));
    assert_eq!(totals["failed"], 1, "of the one that still cannot be read");
    assert!(hashings.contains_key(&victim) && hashings.contains_key(&large));

    let output = run(["--store".as_ref(), store.as_os_str(), unreadable.as_os_str()]);
    assert_eq!(output.status.code(), Some(0));
    assert!(stderr(&output).contains("dedup: /proc/1/mem: "), "{}", stderr(&output));
}

#[test]
fn after_an_interrupt_it_goes_on_too() {
    let tree = plain_tree("interrupted");
    let (root, store) = (tree.path("tree"), tree.path("store"));
    let large = tree.path("tree/large");
    fs::File::create(&large).unwrap().set_len(1 << 38).unwrap();
    let mut first = Observed::new(&store, [&root]);
    await_open(&first.child, &large);
    let killed = Command::new("kill").arg("-INT").arg(first.child.id().to_string()).status();
    assert!(killed.unwrap().success());
    let said: Vec<_> = first.stderr.map(Result::unwrap).collect();
    assert_eq!(first.child.wait().unwrap().code(), Some(130));
    assert_eq!(said.last().unwrap(), "dedup: run it again to go on");

    fs::File::options().write(true).open(&large).unwrap().set_len(1000).unwrap();
    let (mut totals, hashings) = Observed::new(&store, [&root]).finish();
    assert_eq!(resumed(&mut totals) + hashings.len() as u64, 401);
    assert_eq!(steady(totals), coreutils(&root));
}

#[test]
fn a_store_is_used_by_one_process_at_a_time() {
    let tree = plain_tree("in-use");
    let (root, store) = (tree.path("tree"), tree.path("store"));
    let large = tree.path("large");
    fs::File::create(&large).unwrap().set_len(1 << 38).unwrap();
    let first = Observed::new(&store, [&large]);
    await_open(&first.child, &large);
    let second = run(["--json".as_ref(), "--store".as_ref(), &*store, &root] as [&Path; 4]);
    assert_eq!(second.status.code(), Some(3));
    assert!(second.stdout.is_empty());
    let named = format!("dedup: {}: another process is using this store\n", store.display());
    assert_eq!(stderr(&second), named);

    first.kill();
    let (mut totals, _) = Observed::new(&store, [&root]).finish();
    assert_eq!(resumed(&mut totals), 0);
    assert_eq!(steady(totals), coreutils(&root));
}

#[test]
fn a_file_that_is_no_store_is_left_as_it_is() {
    let tree = Tree::new("no-store");
    tree.write("text", "not a store, but longer than any header ".repeat(500));
    tree.write("tree/file", "content");
    let before = fs::read(tree.path("text")).unwrap();
    for store in [tree.path("text"), tree.path("tree"), tree.path("no/such/folder/store")] {
        let output = run(["--store".as_ref(), &*store, &tree.path("tree")] as [&Path; 3]);
        assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
        assert!(stderr(&output).contains(store.to_str().unwrap()), "{}", stderr(&output));
        assert!(output.stdout.is_empty());
    }
    assert!(fs::read(tree.path("text")).unwrap() == before);
    // No store is left behind by a run that did not begin.
    let output = run(["--store".as_ref(), &*tree.path("new"), &tree.path("missing")] as [&Path; 3]);
    assert_eq!(output.status.code(), Some(2));
    assert!(!tree.path("new").exists());
}
