//! The keys of jobs on a dashboard: shown, redacted, asked for, and counted.

use std::time::Duration;

use crate::common::{ms, run_real, secs, soon, start};
use crate::dashboard::{ECHO, FAIL, HANG, HOUR, ask, builder, get, open};
use crate::pages::{page, send};
use actix_workpool::web::{Dashboard, Sensitive, insecure_allow_all, workpool_dashboard};
use actix_workpool::{ActionKey, KeyRule, PoolConfig, Rate, Runtime, WorkError, WorkId, Workpool};
use serde_json::{Value, json};

const LIMITED: ActionKey<(), ()> = ActionKey::new("limited");

/// Keys that would break out of their place if they were not escaped, that are no text, or that are as long as can be,
/// with what is shown of each.
fn hostile() -> Vec<(Vec<u8>, String)> {
    let own = |key: &str| (key.as_bytes().to_vec(), key.to_owned());
    vec![
        own("<script>alert(1)</script>"),
        own("\"><svg/onload=alert(1)>"),
        own("a&key=b#c?d/../e%20+ ü"),
        own(&"long".repeat(64)),
        (b"\xFF\xFE<b>".to_vec(), "0xfffe3c623e".to_owned()),
        (42_u64.to_be_bytes().to_vec(), "0x000000000000002a".to_owned()),
        (b"0x2a".to_vec(), "0x30783261".to_owned()),
        (vec![0xFF; 256], format!("0x{}", "ff".repeat(256))),
    ]
}

async fn keyed(pool: &Workpool, key: impl Into<Vec<u8>>) -> WorkId {
    pool.enqueue(ECHO.call(json!(1))).key(key).run_after(HOUR).await.unwrap().id()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// The text for a query, as the pages encode it.
fn encoded(text: &str) -> String {
    let encode = |byte: u8| match byte {
        b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        _ if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(encode).collect()
}

async fn json_of(dashboard: &Dashboard, path: &str) -> Value {
    let answer = ask(dashboard, get(path)).await;
    assert_eq!(answer.status, 200, "{path}: {}", answer.text);
    answer.json()
}

async fn ids(dashboard: &Dashboard, query: &str) -> Vec<String> {
    let listed = json_of(dashboard, &format!("/api/works?{query}")).await;
    let works = listed["works"].as_array().unwrap();
    works.iter().map(|work| work["id"].as_str().unwrap().to_owned()).collect()
}

/// The links of a page that lead to lists of jobs of a key.
fn links(page: &str) -> Vec<String> {
    let links = page.split("href=\"").skip(1).filter_map(|link| link.split('"').next());
    let of_key = links.filter(|link| link.contains("works?") && link.contains("&amp;key="));
    of_key.map(|link| link.replace("&amp;", "&")).collect()
}

#[test]
fn keys_are_shown_as_text_wherever_their_jobs_are() {
    run_real(async {
        let (runtime, pool, dashboard) = open(PoolConfig::default().paused(true)).await;
        for (key, shown) in hostile() {
            let id = pool.enqueue(ECHO.call(json!(1))).key(key).await.unwrap().id().to_string();
            let query = format!("pool=p&key={}", encoded(&shown));
            let listed = json_of(&dashboard, &format!("/api/works?{query}")).await;
            assert_eq!(listed["works"].as_array().unwrap().len(), 1, "{shown}: {listed}");
            assert_eq!(
                (&listed["works"][0]["id"], &listed["works"][0]["key"]),
                (&json!(id), &json!(shown))
            );
            let detail = json_of(&dashboard, &format!("/api/works/{id}")).await;
            assert_eq!(detail["key"], json!(shown));

            let list = page(&dashboard, &format!("/works?{query}")).await;
            assert!(list.contains(&format!("<code title=\"{}\">", escaped(&shown))), "{list}");
            assert!(
                list.contains(&format!(
                    "name=\"key\" placeholder=\"any\" autocomplete=\"off\" value=\"{}\"",
                    escaped(&shown)
                )),
                "{list}"
            );
            let job = page(&dashboard, &format!("/works/{id}")).await;
            assert!(job.contains(&format!("<code>{}</code>", escaped(&shown))), "{job}");
            let keys = page(&dashboard, "/pools/p/keys").await;
            assert!(keys.contains(&format!("<code title=\"{}\">", escaped(&shown))), "{keys}");
            for page in [&list, &job, &keys] {
                assert!(!page.contains("<script>alert") && !page.contains("<svg/onload"), "{page}");
            }
            // Each link leads to the jobs of the key, and to no others.
            let own = format!("&key={}", encoded(&shown));
            for (up, count, page_of) in [("../", 1, &job), ("../../", 2, &keys)] {
                let links: Vec<_> =
                    links(page_of).into_iter().filter(|link| link.ends_with(&own)).collect();
                assert_eq!(links.len(), count, "{shown}: {links:?}");
                let path = links[0].strip_prefix(up).expect("it leads to the list");
                assert_eq!(path, format!("works?state=pending&{query}"));
            }
            assert_eq!(ids(&dashboard, &query).await, [id]);
        }
        // A long key is cut in tables.
        let long = "long".repeat(64);
        let list = page(&dashboard, "/works?pool=p").await;
        assert!(
            !list.contains(&format!(">{long}<")) && list.contains("longlong…longlong"),
            "{list}"
        );
        // Jobs without keys are in no list of a key, and lists without keys have no column of them.
        let plain = pool.enqueue(ECHO.call(json!(2))).run_after(HOUR).await.unwrap().id();
        assert_eq!(ids(&dashboard, "key=none").await, Vec::<String>::new());
        assert!(json_of(&dashboard, &format!("/api/works/{plain}")).await["key"].is_null());
        pool.resume().await.unwrap();
        pool.enqueue(FAIL.call("no".into())).await.unwrap().join().await.unwrap_err();
        let failed = page(&dashboard, "/works?outcome=failed").await;
        assert!(
            !failed.contains("Key</th>") && !failed.contains("name=\"key\" placeholder"),
            "{failed}"
        );
        soon(runtime.shutdown(Duration::ZERO)).await;
    });
}

#[test]
fn jobs_are_asked_for_by_their_key_a_page_at_a_time() {
    run_real(async {
        let (runtime, pool, dashboard) = open(PoolConfig::default()).await;
        let mut own = Vec::new();
        for _ in 0..5 {
            own.push(keyed(&pool, "user-42").await.to_string());
            keyed(&pool, "user-43").await;
        }
        assert_eq!(ids(&dashboard, "key=user-42").await, own);
        let mut at = "/works?key=user-42&limit=2".to_owned();
        let mut seen = Vec::new();
        loop {
            let list = page(&dashboard, &at).await;
            let boxes = list.split("name=\"id\" value=\"").skip(1);
            seen.extend(boxes.map(|rest| rest[..36].to_owned()));
            let Some((_, next)) = list.split_once("rel=\"next\" href=\"") else { break };
            let next = next.split('"').next().unwrap().replace("&amp;", "&");
            assert!(next.contains("&key=user-42&"), "{next}");
            at = format!("/{next}");
        }
        assert_eq!(seen, own);

        // After an action on selected jobs the list is that of the key again.
        let form = format!("action=cancel&state=pending&key=user-42&id={}", own[0]);
        let answer = send(&dashboard, "/works/selected", &form).await;
        let back = answer.header("location");
        assert!(back.contains("&key=user-42&") && back.ends_with("did=cancel&done=1"), "{back}");
        // Actions on all of a pool are not offered where only some are listed.
        for (query, offered) in
            [("pool=p", true), ("pool=p&key=user-42", false), ("pool=p&priority=0", false)]
        {
            let list = page(&dashboard, &format!("/works?{query}")).await;
            assert_eq!(list.contains("Cancel all…"), offered, "{query}");
        }

        let runs = pool.enqueue(HANG.call("on".into())).key("user-44").await.unwrap();
        while ids(&dashboard, "state=running&key=user-44").await.is_empty() {
            tokio::time::sleep(ms(1)).await;
        }
        assert_eq!(ids(&dashboard, "state=running&key=user-42").await, Vec::<String>::new());
        let shown = page(&dashboard, "/works?state=running&key=user-44").await;
        assert!(shown.contains(&runs.id().to_string()), "{shown}");
        for query in ["state=finished&key=user-42", "outcome=failed&key=user-42"] {
            for path in ["/api/works", "/works"] {
                let answer = ask(&dashboard, get(&format!("{path}?{query}"))).await;
                assert_eq!(answer.status, 400, "{query}");
                let said = "the keys of finished jobs are not kept";
                assert!(answer.text.contains(said), "{query}: {}", answer.text);
            }
        }
        for too_long in ["x".repeat(257), format!("0x{}", "00".repeat(257))] {
            let answer = ask(&dashboard, get(&format!("/api/works?key={too_long}"))).await;
            assert_eq!((answer.status.as_u16(), &*answer.code()), (400, "invalid_value"));
        }
        soon(runtime.shutdown(Duration::ZERO)).await;
    });
}

#[test]
fn redacted_keys_are_nowhere_to_be_seen_and_still_found() {
    run_real(async {
        let (runtime, pool, open) = open(PoolConfig::default()).await;
        let redacting = workpool_dashboard(runtime.clone(), insecure_allow_all())
            .redact(|what: Sensitive, _, _| format!("<{what:?}>"));
        // Only keys of one function are secret. Which functions the jobs of a key have is not known in a list of keys.
        let some = workpool_dashboard(runtime.clone(), insecure_allow_all()).redact(
            |what: Sensitive, function, text| match (what, function.as_str()) {
                (Sensitive::Key, "echo") => "(hidden)".to_owned(),
                _ => text.to_owned(),
            },
        );
        let waits = keyed(&pool, "hunter2").await;
        let runs = pool.enqueue(HANG.call("on".into())).key("hunter2").await.unwrap();
        while ids(&open, "state=running").await.is_empty() {
            tokio::time::sleep(ms(1)).await;
        }
        for path in [
            "/api/works".to_owned(),
            "/works".into(),
            "/api/works?state=running".into(),
            "/works?state=running".into(),
            format!("/api/works/{waits}"),
            format!("/works/{waits}"),
            format!("/works/{}", runs.id()),
            "/api/pools/p/keys".into(),
            "/pools/p/keys".into(),
        ] {
            let shown = ask(&open, get(&path)).await.text;
            assert!(shown.contains("hunter2"), "{path}: {shown}");
            let hidden = ask(&redacting, get(&path)).await.text;
            let instead = if path.starts_with("/api") { "<Key>" } else { "&lt;Key&gt;" };
            assert!(!hidden.contains("hunter2") && hidden.contains(instead), "{path}: {hidden}");
            let is_own = path.contains("state=running") || path.ends_with(&runs.id().to_string());
            let hidden = ask(&some, get(&path)).await.text;
            assert_eq!(hidden.contains("hunter2"), is_own, "{path}: {hidden}");
            assert_eq!(hidden.contains("(hidden)"), !is_own, "{path}: {hidden}");
        }
        for dashboard in [&redacting, &some] {
            assert_eq!(links(&page(dashboard, "/pools/p/keys").await), Vec::<String>::new());
            assert_eq!(ids(dashboard, "key=hunter2").await, [waits.to_string()]);
            assert_eq!(ids(dashboard, "key=%3CKey%3E").await, Vec::<String>::new());
        }
        soon(runtime.shutdown(Duration::ZERO)).await;
    });
}

#[test]
fn the_busiest_keys_are_listed_with_their_jobs() {
    run_real(async {
        let config = PoolConfig::default().per_key(KeyRule::ordered());
        let limited = |(): (), _| async { Err(WorkError::limit_key(HOUR)) };
        let (runtime, pool) = start(builder().action_fn(LIMITED, limited), config).await;
        let dashboard = workpool_dashboard(runtime.clone(), insecure_allow_all());
        let none = page(&dashboard, "/pools/p/keys").await;
        assert!(none.contains("No job with a key runs or may start."), "{none}");
        assert_eq!(json_of(&dashboard, "/api/pools/p/keys").await, json!({ "keys": [] }));
        assert!(page(&dashboard, "/pools/p").await.contains("href=\"../pools/p/keys\""));

        pool.enqueue(LIMITED.call(())).key("rests").await.unwrap();
        for _ in 0..3 {
            pool.enqueue(HANG.call("on".into())).key("busy").await.unwrap();
        }
        let key = async |place: usize| {
            json_of(&dashboard, "/api/pools/p/keys").await["keys"][place].clone()
        };
        let is_there = soon(async {
            while key(0).await["running"] != "1" || key(1).await["rests_until"].is_null() {
                tokio::time::sleep(ms(5)).await;
            }
        });
        is_there.await;
        let busy = json!({ "key": "busy", "running": "1", "ready": "0", "waiting": "2", "rests_until": null });
        assert_eq!(key(0).await, busy);
        let rests = key(1).await;
        assert_eq!(
            (&rests["key"], &rests["running"], &rests["ready"]),
            (&json!("rests"), &json!("0"), &json!("1"))
        );
        let shown = page(&dashboard, "/pools/p/keys").await;
        assert!(shown.find("busy") < shown.find("rests"), "{shown}");
        assert!(shown.contains("until <time") && !shown.contains("There may be more."), "{shown}");

        // A job behind another one leads to it; one that is limited says so.
        let running = ids(&dashboard, "state=running&key=busy").await.remove(0);
        let behind = ids(&dashboard, "key=busy").await.remove(0);
        let detail = json_of(&dashboard, &format!("/api/works/{behind}")).await;
        assert_eq!(detail["explain"]["why"], "behind_key", "{detail}");
        assert_eq!(detail["explain"]["details"]["running"], running.as_str());
        let shown = page(&dashboard, &format!("/works/{behind}")).await;
        let said =
            format!("Waits for others of its key: job <a href=\"{running}\">{running}</a> runs");
        assert!(shown.contains(&said), "{shown}");
        let limited = ids(&dashboard, "key=rests").await.remove(0);
        let detail = json_of(&dashboard, &format!("/api/works/{limited}")).await;
        assert_eq!(detail["explain"]["why"], "key_limited", "{detail}");
        assert!(
            page(&dashboard, &format!("/works/{limited}"))
                .await
                .contains("Waits for the rate of its key")
        );

        // At most a hundred, and those with the most.
        for number in 0..120 {
            keyed(&pool, format!("one-{number}")).await;
        }
        let all = json_of(&dashboard, "/api/pools/p/keys").await;
        assert_eq!(all["keys"].as_array().unwrap().len(), 100);
        assert_eq!(all["keys"][0]["key"], "busy");
        let shown = page(&dashboard, "/pools/p/keys").await;
        assert!(
            shown.contains("There may be more.") && shown.matches("<tr>").count() == 101,
            "{shown}"
        );
        for path in ["/api/pools/other/keys", "/pools/other/keys"] {
            assert_eq!(ask(&dashboard, get(path)).await.status, 404, "{path}");
        }
        soon(runtime.shutdown(secs(0))).await;
    });
}

#[test]
fn the_configuration_has_the_rule_of_each_key_in_words() {
    run_real(async {
        for (rule, words) in [
            (KeyRule::default(), None),
            (KeyRule::ordered(), Some("per key: 1 at a time, in order<")),
            (
                KeyRule::ordered().rate(Rate::per_minute(60)),
                Some("per key: 1 at a time, in order; 60 per minute<"),
            ),
            (KeyRule::default().parallelism(2_000), Some("per key: 2,000 at a time<")),
            (
                KeyRule::default().rate(Rate::per_second(2).burst(3)),
                Some("per key: 2 per second, 3 at once<"),
            ),
        ] {
            let (runtime, _, dashboard): (Runtime, _, _) =
                open(PoolConfig::default().per_key(rule)).await;
            let config = page(&dashboard, "/config").await;
            assert_eq!(config.contains("per key"), words.is_some(), "{config}");
            assert!(config.contains(words.unwrap_or_default()), "{words:?}: {config}");
            let shown = json_of(&dashboard, "/api/config").await["pools"][0]["per_key"].clone();
            assert_eq!(shown["ordered"], rule.is_ordered());
            assert_eq!(shown["parallelism"], json!(rule.max_parallelism()));
            soon(runtime.shutdown(Duration::ZERO)).await;
        }
    });
}
