//! Imports point down, and nowhere go round in a circle: what ARCHITECTURE.md says of the layers is so.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// A folder imports only from rows below its own. Folders of one row are strangers.
const LAYERS: &[&[&str]] = &[
    &["testing"],
    &["guide"],
    &["web"],
    &["ops"],
    &["runtime"],
    &["actors"],
    &["observe"],
    &["store"],
    &["functions"],
    &["client"],
    &["protocol"],
    &["shared"],
    &["engine", "storage"],
    &["model"],
];

struct File {
    path: PathBuf,
    folder: String,
    /// Without comments, and without tests.
    code: String,
}

fn files() -> Vec<File> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => walk(&path, found),
                false if path.extension().is_some_and(|it| it == "rs") => found.push(path),
                false => {}
            }
        }
    }
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    walk(&src, &mut paths);
    paths.sort();
    let is_test = |path: &Path| path.components().any(|part| part.as_os_str() == "tests");
    let files = paths.into_iter().filter(|path| !is_test(path) && !path.ends_with("tests.rs"));
    let file = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        let text = text.split("#[cfg(test)]\nmod ").next().unwrap();
        let text = text.split("#[cfg(all(test").next().unwrap();
        let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        let code = lines.collect::<Vec<_>>().join("\n");
        let path = path.strip_prefix(&src).unwrap().to_owned();
        let folder = path.components().next().unwrap().as_os_str().to_str().unwrap().to_owned();
        File { path, folder, code }
    };
    files.map(file).collect()
}

/// The words that follow `prefix`, as `model` in `crate::model::Name` or `crate::{model, store}`.
fn words_after(code: &str, prefix: &str) -> BTreeSet<String> {
    let word = |text: &str| -> String {
        text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
    };
    let mut found = BTreeSet::new();
    for (place, _) in code.match_indices(prefix) {
        let rest = &code[place + prefix.len()..];
        match rest.strip_prefix('{') {
            None => drop(found.insert(word(rest))),
            Some(group) => {
                let (mut depth, mut item) = (0, String::new());
                for c in group.chars() {
                    match c {
                        ',' | '}' if depth == 0 => {
                            found.insert(word(&item));
                            item.clear();
                            if c == '}' {
                                break;
                            }
                            continue;
                        }
                        '{' => depth += 1,
                        '}' => depth -= 1,
                        _ => {}
                    }
                    item.push(c);
                }
            }
        }
    }
    found
}

fn layer(folder: &str) -> Option<usize> {
    LAYERS.iter().position(|row| row.contains(&folder))
}

/// Imports that do not point down.
fn upward(files: &[File]) -> Vec<String> {
    let mut wrong = Vec::new();
    for file in files.iter().filter(|file| file.folder != "lib.rs") {
        let Some(own) = layer(&file.folder) else {
            wrong.push(format!("{} is in no layer", file.path.display()));
            continue;
        };
        for target in words_after(&file.code, "crate::") {
            if layer(&target).is_some_and(|other| other <= own && target != file.folder) {
                wrong.push(format!("{} imports crate::{target}", file.path.display()));
            }
        }
    }
    wrong
}

#[test]
fn imports_point_down() {
    assert_eq!(upward(&files()), [""; 0]);
}

#[test]
fn an_upward_import_is_found() {
    let file = |path: &str, code: &str| File {
        path: path.into(),
        folder: path.split('/').next().unwrap().into(),
        code: code.into(),
    };
    let files = [
        file("model/ids.rs", "use crate::engine::Launch;"),
        file("engine/step.rs", "use crate::{model::Name, storage::Storage};"),
        file("store/mod.rs", "use crate::storage::Storage;\nfn f() { crate::model::g() }"),
        file("loose.rs", ""),
    ];
    let wrong = upward(&files);
    assert_eq!(
        wrong,
        [
            "model/ids.rs imports crate::engine",
            "engine/step.rs imports crate::storage",
            "loose.rs is in no layer",
        ]
    );
}

/// The files of one folder that import each other in a circle, its `mod.rs` aside.
fn circles(folder: &[&File]) -> Vec<String> {
    let stem = |file: &File| file.path.file_stem().unwrap().to_str().unwrap().to_owned();
    let mut homes: BTreeMap<String, String> = BTreeMap::new();
    for front in folder.iter().filter(|file| stem(file) == "mod") {
        for file in folder {
            for name in words_after(&front.code, &format!("use {}::", stem(file))) {
                homes.insert(name, stem(file));
            }
        }
    }
    let mut imports: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for file in folder.iter().filter(|file| stem(file) != "mod") {
        let names = words_after(&file.code, "super::").into_iter();
        let targets = names.map(|name| homes.get(&name).cloned().unwrap_or(name));
        let own = stem(file);
        let targets = targets.filter(|target| *target != own && *target != "mod");
        imports.insert(own.clone(), targets.collect());
    }
    let reaches = |from: &String, to: &String| {
        let (mut seen, mut next) = (BTreeSet::new(), vec![from]);
        while let Some(file) = next.pop() {
            for target in imports.get(file).into_iter().flatten() {
                if target == to {
                    return true;
                }
                if seen.insert(target) {
                    next.push(target);
                }
            }
        }
        false
    };
    let round = imports.keys().filter(|file| reaches(file, file));
    round.map(|file| format!("{file} in {}", folder[0].path.parent().unwrap().display())).collect()
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    let files = files();
    let mut folders: BTreeMap<&Path, Vec<&File>> = BTreeMap::new();
    for file in &files {
        folders.entry(file.path.parent().unwrap()).or_default().push(file);
    }
    let found: Vec<_> = folders.values().flat_map(|folder| circles(folder)).collect();
    assert_eq!(found, [""; 0]);
}

#[test]
fn each_outside_crate_has_its_home() {
    let homes: &[(&str, &[&str])] = &[
        ("actix::", &["actors"]),
        ("actix_web::", &["web"]),
        ("redb::", &["storage"]),
        ("jiff::", &["model"]),
        ("maud::", &["web"]),
        ("metrics::", &["observe", "actors", "runtime", "store", "lib.rs"]),
        ("feature = \"actix-web\"", &["web", "lib.rs"]),
    ];
    let strangers = ["tokio", "actix", "fastrand", "Instant", "SystemTime::now", "tracing::info"];
    for File { path, folder, code } in files() {
        for (word, allowed) in homes {
            let used = code.match_indices(word).any(|(place, _)| {
                !code[..place].ends_with(|c: char| c.is_alphanumeric() || c == '_')
            });
            assert!(
                !used || allowed.contains(&&*folder),
                "{} names {word}, which belongs to {allowed:?}",
                path.display()
            );
        }
        if folder == "engine" || folder == "model" {
            for word in strangers {
                assert!(!code.contains(word), "{} names {word}", path.display());
            }
        }
    }
}
