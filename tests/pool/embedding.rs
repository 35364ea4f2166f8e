//! The runtime inside other people's programs: under each kind of `main`, and used from their threads.

use std::cell::RefCell;
use std::io::{Read, Write};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use crate::common::*;
use actix_web::{App, HttpResponse, HttpServer, web};
use actix_workpool::storage::Memory;
use actix_workpool::{
    ActionKey, EnqueueError, JoinError, Mutation, PoolConfig, PoolError, RunNowAnswer, Runtime,
    RuntimeBuilder, Transaction, WorkError, WorkHandle, Workpool,
};
use serde::{Deserialize, Serialize};

const TASK: ActionKey<u64, u64> = ActionKey::new("task");

fn echo(arbiters: usize) -> RuntimeBuilder {
    Runtime::builder().worker_arbiters(arbiters).echo()
}

/// Starts, works and ends, with attempts on the caller's thread and on others.
async fn starts_works_and_ends() {
    for arbiters in [0, 1, 3] {
        let (runtime, pool) = soon(start(echo(arbiters), PoolConfig::default())).await;
        let works = soon(async { pool.enqueue_batch((0..200).map(|n| ECHO.call(n))).await }).await;
        for (n, outcome) in soon(works.unwrap().join()).await.into_iter().enumerate() {
            assert_eq!(outcome, Ok(n as u64));
        }
        soon(runtime.shutdown(secs(1))).await;
        assert!(matches!(pool.enqueue(ECHO.call(1)).await, Err(EnqueueError::Closed)));
    }
}

#[test]
fn it_works_in_an_actix_program() {
    #[actix::main]
    async fn main() {
        starts_works_and_ends().await;
    }
    main();
}

#[test]
fn it_works_in_a_tokio_program_of_many_threads() {
    #[tokio::main(flavor = "multi_thread", worker_threads = 2)]
    async fn main() {
        tokio::spawn(starts_works_and_ends()).await.unwrap();
        starts_works_and_ends().await;
    }
    main();
}

#[test]
fn it_works_in_a_tokio_program_of_one_thread() {
    #[tokio::main(flavor = "current_thread")]
    async fn main() {
        starts_works_and_ends().await;
    }
    main();
}

async fn double(pool: web::Data<Workpool>, n: web::Path<u64>) -> HttpResponse {
    match pool.enqueue(TASK.call(*n)).await {
        Ok(work) => match work.join().await {
            Ok(doubled) => HttpResponse::Ok().body(doubled.to_string()),
            Err(error) => HttpResponse::InternalServerError().body(error.to_string()),
        },
        Err(error) => HttpResponse::ServiceUnavailable().body(error.to_string()),
    }
}

fn get(address: std::net::SocketAddr, path: &str) -> String {
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn it_works_in_an_actix_web_server() {
    #[actix_web::main]
    async fn main() {
        for arbiters in [0, 2] {
            let builder = echo(arbiters).action_fn(TASK, |n, _| async move { Ok(2 * n) });
            let (runtime, pool) = start(builder, PoolConfig::default()).await;
            let data = web::Data::new(pool);
            let app = move || {
                App::new().app_data(data.clone()).route("/double/{n}", web::get().to(double))
            };
            let server =
                HttpServer::new(app).workers(2).disable_signals().bind(("127.0.0.1", 0)).unwrap();
            let address = server.addrs()[0];
            let server = server.run();
            let handle = server.handle();
            let serving = actix_web::rt::spawn(server);
            let ask = |path| soon(tokio::task::spawn_blocking(move || get(address, path)));
            let answer = ask("/double/21").await.unwrap();
            assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("42"), "{answer}");
            soon(runtime.shutdown(secs(1))).await;
            let answer = ask("/double/21").await.unwrap();
            assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
            assert!(answer.ends_with("runtime is shut down"), "{answer}");
            soon(handle.stop(false)).await;
            soon(serving).await.unwrap().unwrap();
        }
    }
    main();
}

/// Blocks on a future on a thread that has neither tokio nor actix.
fn on_a_plain_thread<T: Send + 'static>(
    code: impl FnOnce() -> T + Send + 'static,
) -> std::thread::JoinHandle<T> {
    std::thread::spawn(code)
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(soon(future))
}

/// Waits for a future without any runtime, as a thread of a program that has none.
fn unaided<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Arc::new(Unpark(std::thread::current())).into();
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut std::task::Context::from_waker(&waker)) {
            std::task::Poll::Ready(value) => return value,
            std::task::Poll::Pending => std::thread::park(),
        }
    }
}

#[test]
fn its_handles_work_on_any_thread() {
    run_real(async {
        let (runtime, pool) = start(echo(1), PoolConfig::default()).await;
        let threads: Vec<_> = (0..4_u64)
            .map(|thread| {
                let pool = pool.clone();
                on_a_plain_thread(move || {
                    // Without any executor around.
                    let unheard = pool.do_enqueue(ECHO.call(thread)).unwrap();
                    block_on(async {
                        let work = pool.enqueue(ECHO.call(100 + thread)).await.unwrap();
                        let mut watch = work.watch();
                        while watch.next().await.is_some() {}
                        (unheard.join().await.unwrap(), work.join().await.unwrap())
                    })
                })
            })
            .collect();
        for (thread, handle) in threads.into_iter().enumerate() {
            let joined = tokio::task::spawn_blocking(move || handle.join().unwrap()).await.unwrap();
            assert_eq!(joined, (thread as u64, 100 + thread as u64));
        }
        runtime.shutdown(secs(1)).await;
    });
}

#[test]
fn two_runtimes_in_one_program_do_not_know_each_other() {
    run_real(async {
        let (first, a) = start(echo(1), PoolConfig::default()).await;
        let (second, b) = start(echo(0), PoolConfig::default()).await;
        let work = a.enqueue(ECHO.call(1)).await.unwrap();
        assert_eq!(work.join().await, Ok(1));
        let elsewhere = b.work::<u64>(work.id()).join().await;
        assert_eq!(elsewhere, Err(JoinError::Unknown(work.id())));
        first.shutdown(secs(1)).await;
        assert_eq!(b.enqueue(ECHO.call(2)).await.unwrap().join().await, Ok(2));
        second.shutdown(secs(1)).await;
    });
}

// Ends without a shutdown

thread_local! {
    /// Disconnects its channel when the thread ends.
    static ALIVE: RefCell<Vec<mpsc::Sender<()>>> = const { RefCell::new(Vec::new()) };
}

/// Where threads leave a sign that ends with them.
#[derive(Clone)]
struct Threads(Arc<Mutex<Option<mpsc::Sender<()>>>>);

impl Threads {
    fn new() -> (Threads, mpsc::Receiver<()>) {
        let (sign, ended) = mpsc::channel();
        (Threads(Arc::new(Mutex::new(Some(sign)))), ended)
    }

    fn mark(&self) {
        let sign = self.0.lock().unwrap().clone();
        ALIVE.with_borrow_mut(|alive| alive.extend(sign));
    }

    /// Waits until every thread that was marked has ended.
    async fn ended(&self, ended: mpsc::Receiver<()>) {
        self.0.lock().unwrap().take();
        let wait = move || ended.recv_timeout(Duration::from_secs(20));
        let outcome = tokio::task::spawn_blocking(wait).await.unwrap();
        assert_eq!(outcome, Err(mpsc::RecvTimeoutError::Disconnected), "threads are left");
    }
}

static CONTROL: Mutex<Option<Threads>> = Mutex::new(None);

/// Marks the thread of the store.
#[derive(Serialize, Deserialize)]
struct MarkStore;

impl Mutation for MarkStore {
    const NAME: &'static str = "mark.store";
    type Output = ();

    fn apply(self, _: &mut Transaction<'_>) -> Result<(), WorkError> {
        if let Some(threads) = &*CONTROL.lock().unwrap() {
            threads.mark();
        }
        Ok(())
    }
}

async fn drops_everything(arbiters: usize) {
    let (threads, ended) = Threads::new();
    let (gate, crowd) = (Gate::new(), Crowd::default());
    let (mark, at, inside) = (threads.clone(), gate.clone(), crowd.clone());
    let builder = echo(arbiters).mutation::<MarkStore>().action_fn(TASK, move |_, _| {
        mark.mark();
        let (gate, inside) = (at.clone(), inside.enter());
        async move {
            gate.pass().await;
            drop(inside);
            Ok(0)
        }
    });
    let (runtime, pool) = soon(start(builder, PoolConfig::default())).await;
    let running = pool.enqueue_batch((0..6).map(|n| TASK.call(n))).await.unwrap();
    gate.entered(6).await;
    // One test at a time marks the store's thread.
    *CONTROL.lock().unwrap() = Some(threads.clone());
    pool.enqueue(MarkStore).await.unwrap().join().await.unwrap();
    *CONTROL.lock().unwrap() = None;
    let waiting = pool.enqueue(ECHO.call(1)).run_after(secs(600)).await.unwrap();
    let mut watch = waiting.watch();
    assert!(watch.next().await.is_some());

    drop(runtime);
    assert_eq!(soon(running.handles().next().unwrap().join()).await, Err(JoinError::Closed));
    assert_eq!(soon(waiting.join()).await, Err(JoinError::Closed));
    assert_eq!(soon(watch.next()).await, None);
    assert!(matches!(
        soon(async { pool.enqueue(ECHO.call(1)).await }).await,
        Err(EnqueueError::Closed)
    ));
    assert!(matches!(soon(waiting.cancel()).await, Err(PoolError::Closed)));
    assert!(matches!(soon(pool.diagnostics()).await, Err(PoolError::Closed)));
    let emptied = async {
        while crowd.inside() > 0 {
            tokio::task::yield_now().await;
        }
    };
    let emptied = tokio::time::timeout(secs(10), emptied).await;
    assert!(emptied.is_ok(), "{} attempts still run", crowd.inside());
    // What the program itself runs on stays.
    if arbiters > 0 || !actix::System::is_registered() {
        threads.ended(ended).await;
    }
}

/// Only one of these tests runs at a time.
static DROPPING: Mutex<()> = Mutex::new(());

#[test]
fn a_runtime_that_is_dropped_in_an_actix_program_leaves_no_threads_and_closed_handles() {
    let _alone = DROPPING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    run_real(drops_everything(2));
}

#[test]
fn a_runtime_that_is_dropped_on_the_callers_own_thread_drops_what_runs() {
    let _alone = DROPPING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    run_real(drops_everything(0));
}

#[test]
fn a_runtime_that_is_dropped_in_a_tokio_program_leaves_no_threads_and_closed_handles() {
    let _alone = DROPPING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    block_on(drops_everything(2));
    block_on(drops_everything(0));
}

#[test]
fn threads_end_after_a_shutdown_when_the_runtime_is_dropped() {
    let _alone = DROPPING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    run_real(async {
        let (threads, ended) = Threads::new();
        let mark = threads.clone();
        let builder = echo(2).action_fn(TASK, move |n, _| {
            mark.mark();
            async move { Ok(n) }
        });
        let (runtime, pool) = start(builder, PoolConfig::default()).await;
        pool.enqueue_batch((0..50).map(|n| TASK.call(n))).await.unwrap().join().await;
        runtime.shutdown(secs(1)).await;
        drop(runtime);
        threads.ended(ended).await;
    });
}

/// Starts a runtime in a system on a thread of its own, and stops that system.
fn stopped(arbiters: usize) -> (Runtime, Workpool, WorkHandle<u64>) {
    let (give, given) = mpsc::channel();
    let program = on_a_plain_thread(move || {
        let system = actix::System::new();
        system.block_on(async {
            let (runtime, pool) = start(echo(arbiters), PoolConfig::default()).await;
            let work = pool.enqueue(ECHO.call(1)).run_after(secs(600)).await.unwrap();
            give.send((runtime, pool, work)).unwrap();
        });
        actix::System::current().stop();
        system.run().unwrap();
    });
    program.join().unwrap();
    given.recv().unwrap()
}

#[test]
fn a_runtime_outlives_the_actix_system_that_it_was_started_in() {
    let (runtime, pool, work) = stopped(1);
    block_on(async {
        assert_eq!(pool.enqueue(ECHO.call(2)).await.unwrap().join().await, Ok(2));
        assert_eq!(work.run_now().await.unwrap(), RunNowAnswer::Moved);
        assert_eq!(work.join().await, Ok(1));
    });
    // Also outside of any runtime of tokio.
    let report = unaided(runtime.shutdown(secs(1)));
    assert_eq!(report.pending, 0);
}

#[test]
fn when_the_system_stops_that_everything_runs_on_handles_say_closed() {
    let (runtime, pool, work) = stopped(0);
    block_on(async {
        assert_eq!(work.join().await, Err(JoinError::Closed));
        assert!(matches!(pool.enqueue(ECHO.call(1)).await, Err(EnqueueError::Closed)));
        assert!(matches!(pool.diagnostics().await, Err(PoolError::Closed)));
        assert!(matches!(pool.cancel_all().await, Err(PoolError::Closed)));
    });
    drop(runtime);
}

/// Polls a start once and drops it, as a `select!` may.
async fn abandoned_start(builder: RuntimeBuilder) {
    let mut starting = Box::pin(builder.pool("p", PoolConfig::default()).start());
    let polled =
        std::future::poll_fn(|cx| std::task::Poll::Ready(starting.as_mut().poll(cx).is_ready()));
    assert!(!polled.await, "it takes more than one poll");
    drop(starting);
}

#[test]
fn a_start_that_is_abandoned_does_no_harm_and_leaves_the_store_free() {
    let abandon_and_start = |arbiters| async move {
        let tables = Memory::new();
        abandoned_start(echo(arbiters).storage(tables.clone())).await;
        let builder = || echo(arbiters).storage(tables.clone()).pool("p", PoolConfig::default());
        let runtime = start_again(builder).await;
        let pool = runtime.pool("p").unwrap();
        assert_eq!(pool.enqueue(ECHO.call(1)).await.unwrap().join().await, Ok(1));
        runtime.shutdown(secs(1)).await;
    };
    run_real(abandon_and_start(2));
    block_on(abandon_and_start(2));
}
