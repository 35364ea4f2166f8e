//! Programs with a runtime, as people write their `main`, ended in every way there is: nothing that ran is lost.
//!
//! Each program is this test binary, started again with its name in [`ROLE`].

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use actix_web::{App, HttpServer, web};
use actix_workpool::storage::Redb;
use actix_workpool::{
    ActionKey, FailureKind, JoinError, PoolConfig, Runtime, RuntimeBuilder, ShutdownReport, WorkId,
};

/// Which program this process is to be.
const ROLE: &str = "WORKPOOL_TEST_MAIN";
/// The file that it keeps its jobs in.
const STORE: &str = "WORKPOOL_TEST_STORE";

/// Two jobs that run until the program is ended; in the next one they finish at once.
const STAYS: ActionKey<bool, u32> = ActionKey::new("stays");

fn ids() -> [WorkId; 2] {
    [1, 2].map(|number| WorkId::from_uuid(uuid::Uuid::from_u128(number)))
}

fn builder(store: &Path, ends: bool) -> RuntimeBuilder {
    let builder = Runtime::builder().worker_arbiters(1).pool("p", PoolConfig::default());
    let builder = builder.storage(Redb::open(store).expect("the file is free"));
    builder.action_fn(STAYS, move |_, cx| async move {
        if !ends {
            println!("running");
            std::future::pending::<()>().await;
        }
        Ok(cx.attempt())
    })
}

/// A runtime in which both jobs run.
async fn busy() -> Runtime {
    let store = PathBuf::from(std::env::var_os(STORE).expect("a file is named"));
    let runtime = builder(&store, false).start().await.expect("it starts");
    let pool = runtime.pool("p").expect("it is there");
    for id in ids() {
        pool.enqueue(STAYS.call(true)).id(id).await.expect("it is enqueued");
    }
    runtime
}

const GRACE: Duration = Duration::from_millis(300);

fn say(report: ShutdownReport) {
    println!("report {} {} {}", report.finished, report.returned, report.pending);
}

/// Waits for Ctrl-C, and says when it does so.
async fn interrupted() {
    let mut interrupted = std::pin::pin!(tokio::signal::ctrl_c());
    let mut ready = false;
    let waits = std::future::poll_fn(|cx| {
        let polled = interrupted.as_mut().poll(cx);
        if !std::mem::replace(&mut ready, true) {
            println!("ready");
        }
        polled
    });
    waits.await.unwrap();
}

/// The `main` of every tutorial of actix-web: the server handles signals, and stops the system behind itself.
async fn tutorial() {
    let runtime = busy().await;
    let data = web::Data::new(runtime.clone());
    let server = HttpServer::new(move || {
        println!("ready");
        App::new().app_data(data.clone())
    });
    server.workers(1).bind("127.0.0.1:0").unwrap().run().await.unwrap();
    say(runtime.shutdown(GRACE).await);
}

async fn without_signals() {
    let runtime = busy().await;
    let server = HttpServer::new(App::new).workers(1).disable_signals();
    let server = server.bind("127.0.0.1:0").unwrap().run();
    let handle = server.handle();
    let serving = actix_web::rt::spawn(server);
    interrupted().await;
    handle.stop(true).await;
    serving.await.unwrap().unwrap();
    say(runtime.shutdown(GRACE).await);
}

#[cfg(feature = "actix-web")]
async fn serves(signals: bool) {
    let runtime = busy().await;
    let mut server = HttpServer::new(|| {
        println!("ready");
        App::new()
    })
    .workers(1);
    if !signals {
        server = server.disable_signals();
    }
    let server = server.bind("127.0.0.1:0").unwrap().run();
    say(runtime.serve(server, GRACE).await.unwrap());
}

/// The system stops while the runtime is held outside of it.
fn system_stops() {
    let system = actix::System::new();
    let runtime = system.block_on(busy());
    let here = actix::System::current();
    system.block_on(async {
        actix::spawn(async move {
            interrupted().await;
            here.stop();
        });
    });
    system.run().unwrap();
    // Nothing here is a task of actix or tokio any more.
    say(futures_block_on(runtime.shutdown(GRACE)));
}

/// Waits for a future without any runtime.
fn futures_block_on<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = std::sync::Arc::new(Unpark(std::thread::current())).into();
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut std::task::Context::from_waker(&waker)) {
            std::task::Poll::Ready(value) => return value,
            std::task::Poll::Pending => std::thread::park(),
        }
    }
}

fn tokio_main(shuts_down: bool) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let runtime = busy().await;
        interrupted().await;
        if shuts_down {
            say(runtime.shutdown(GRACE).await);
        }
    });
}

/// An action that blocks its thread, three times.
async fn blocks() {
    #[cfg(feature = "metrics")]
    let metrics = metrics_exporter_prometheus::PrometheusBuilder::new().install_recorder().unwrap();
    let builder = Runtime::builder().worker_arbiters(1).pool("p", PoolConfig::default());
    let builder = builder.action_fn(STAYS, |_, cx| async move {
        std::thread::sleep(Duration::from_millis(600));
        Ok(cx.attempt())
    });
    let runtime = builder.start().await.unwrap();
    let pool = runtime.pool("p").unwrap();
    for _ in 0..3 {
        pool.enqueue(STAYS.call(true)).await.unwrap().join().await.unwrap();
    }
    runtime.shutdown(GRACE).await;
    #[cfg(feature = "metrics")]
    for line in metrics.render().lines().filter(|line| line.contains("blocked_threads_total{")) {
        println!("{line}");
    }
}

/// Runs the program that the environment names. Without one this is an empty test.
#[test]
fn program() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let log = tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false);
    log.init();
    match role.as_str() {
        "tutorial" => actix::System::new().block_on(tutorial()),
        "without_signals" => actix::System::new().block_on(without_signals()),
        #[cfg(feature = "actix-web")]
        "serve" => actix::System::new().block_on(serves(true)),
        #[cfg(feature = "actix-web")]
        "serve_without_signals" => actix::System::new().block_on(serves(false)),
        "system_stops" => system_stops(),
        "tokio" => tokio_main(true),
        "dropped" => tokio_main(false),
        "blocks" => actix::System::new().block_on(blocks()),
        "panics" => actix::System::new().block_on(async {
            let _runtime = busy().await;
            interrupted().await;
            panic!("this is the end");
        }),
        "exits" => actix::System::new().block_on(async {
            let _runtime = busy().await;
            interrupted().await;
            std::process::exit(0);
        }),
        other => panic!("{other} is no program"),
    }
}

/// What a program has left.
struct Left {
    status: ExitStatus,
    said: String,
    logged: String,
    /// For each job: in which attempt it ended, or how it failed.
    ended: Vec<Result<u32, FailureKind>>,
}

fn wait(mut child: Child, output: &mut impl Read) -> (ExitStatus, String) {
    let begun = Instant::now();
    let mut said = String::new();
    output.read_to_string(&mut said).unwrap();
    let status = child.wait().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(20), "it takes too long to end");
    (status, said)
}

/// Waits until the process handles that signal. A server starts its workers before that.
fn handles(process: u32, signal: &str) {
    let number = match signal {
        "INT" => 2,
        "TERM" => 15,
        other => panic!("{other} is no signal of these tests"),
    };
    let begun = Instant::now();
    loop {
        // proc_pid_status(5): a mask in hexadecimal, with the lowest bit for signal 1.
        let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
        if u64::from_str_radix(caught.trim(), 16).unwrap() & (1 << (number - 1)) != 0 {
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "{signal} is not handled");
        std::thread::yield_now();
    }
}

/// Starts a program, ends it with a signal while both jobs run, and looks what the file says.
fn ended(role: &str, signal: &str) -> Left {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("mains");
    std::fs::create_dir_all(&folder).unwrap();
    let store = folder.join(format!("{role}-{signal}-{}.redb", std::process::id()));
    let _ = std::fs::remove_file(&store);
    let errors = folder.join(format!("{role}-{signal}-{}.log", std::process::id()));
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "mains::program", "--nocapture"])
        .env(ROLE, role)
        .env(STORE, &store)
        .env_remove("RUST_LOG")
        .stdout(Stdio::piped())
        .stderr(std::fs::File::create(&errors).unwrap())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut waits = vec!["running", "running", "ready"];
    while !waits.is_empty() {
        let mut line = String::new();
        assert!(output.read_line(&mut line).unwrap() > 0, "{role} ends before its jobs run");
        if let Some(seen) = waits.iter().position(|what| line.contains(what)) {
            waits.remove(seen);
        }
    }
    handles(child.id(), signal);
    let told = Command::new("kill").arg(format!("-{signal}")).arg(child.id().to_string()).status();
    assert!(told.unwrap().success());
    let (status, said) = wait(child, &mut output);
    let ended = actix::System::new().block_on(async {
        let runtime = builder(&store, true).start().await.unwrap();
        let pool = runtime.pool("p").unwrap();
        let mut ended = Vec::new();
        for id in ids() {
            ended.push(match pool.work::<u32>(id).join().await {
                Ok(attempt) => Ok(attempt),
                Err(JoinError::Failed { failure, .. }) => Err(failure.kind),
                Err(other) => panic!("{role}: {other}"),
            });
        }
        runtime.shutdown(Duration::from_secs(5)).await;
        ended
    });
    let logged = std::fs::read_to_string(&errors).unwrap();
    let _ = (std::fs::remove_file(&store), std::fs::remove_file(&errors));
    Left { status, said, logged, ended }
}

/// Both jobs were returned, and run in the next program as if they had not before.
fn nothing_is_lost(role: &str, signal: &str) -> Left {
    let left = ended(role, signal);
    let Left { said, logged, ended, .. } = &left;
    assert_eq!(*ended, [Ok(1), Ok(1)], "{role} {signal}: {said}\n{logged}");
    left
}

fn shuts_down(role: &str, signal: &str) {
    let Left { status, said, logged, .. } = nothing_is_lost(role, signal);
    assert!(status.success(), "{role} {signal}: {status}, {said}\n{logged}");
    assert!(said.contains("report 0 2 2"), "{role} {signal}: {said}\n{logged}");
}

#[test]
fn a_server_that_handles_signals_and_then_a_shutdown() {
    shuts_down("tutorial", "INT");
    shuts_down("tutorial", "TERM");
}

#[test]
fn a_server_without_signals_and_then_a_shutdown() {
    shuts_down("without_signals", "INT");
}

#[cfg(feature = "actix-web")]
#[test]
fn serve_does_all_of_it() {
    for signal in ["INT", "TERM"] {
        shuts_down("serve", signal);
        shuts_down("serve_without_signals", signal);
    }
}

#[test]
fn a_system_that_is_stopped_and_then_a_shutdown_outside_of_it() {
    shuts_down("system_stops", "INT");
}

#[test]
fn a_plain_tokio_main() {
    shuts_down("tokio", "INT");
}

#[test]
fn a_runtime_that_is_dropped_returns_its_jobs_and_says_so() {
    for role in ["dropped", "panics"] {
        let Left { logged, .. } = nothing_is_lost(role, "INT");
        let warns = |line: &str| line.contains("WARN") && line.contains("without a shutdown");
        let warning = logged.lines().find(|line| warns(line));
        let warning = warning.unwrap_or_else(|| panic!("{role}: {logged}"));
        assert!(warning.contains("returned=2"), "{role}: {warning}");
    }
}

#[test]
fn what_runs_when_the_process_exits_is_lost() {
    let Left { ended, said, logged, .. } = ended("exits", "INT");
    let lost = Err(FailureKind::Lost);
    assert_eq!(ended, [lost, lost], "{said}\n{logged}");
}

#[test]
fn an_action_that_blocks_its_thread_is_told_of_once_and_counted() {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "mains::program", "--nocapture"])
        .env(ROLE, "blocks")
        .env_remove("RUST_LOG")
        .output()
        .unwrap();
    let (said, logged) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}\n{logged}");
    let warned = |line: &&str| line.contains("WARN") && line.contains("blocks its thread");
    let warnings: Vec<_> = logged.lines().filter(warned).collect();
    assert_eq!(warnings.len(), 1, "once in a minute: {logged}");
    assert!(warnings[0].contains("function=stays"), "{warnings:?}");
    let blocked = warnings[0].split("blocked_ms=").nth(1).unwrap().trim();
    assert!((200..1_000).contains(&blocked.parse().unwrap()), "{warnings:?}");
    if cfg!(feature = "metrics") {
        let counted = "workpool_blocked_threads_total{fn=\"stays\"} 3";
        assert!(said.contains(counted), "{said}");
    }
}
