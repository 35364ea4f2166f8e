//! The dashboard and the example `web` behind real sockets: clients that go, at any moment, and a service that is killed.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use actix_web::dev::ServerHandle;
use actix_web::{App, HttpServer};
use actix_workpool::web::{insecure_allow_all, workpool_dashboard};
use actix_workpool::{ActionKey, PoolConfig, Runtime, WorkError};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(30);

/// Links hold under any prefix.
const PREFIX: &str = "/a/deep/workpool";

/// How often a real server is asked again.
const PAUSE: Duration = Duration::from_millis(20);

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// One who listens to events and has taken all that was sent, so that the end of the connection is a polite one; `None`
/// if there is no place.
fn listen(address: SocketAddr) -> Option<TcpStream> {
    let mut stream = connect(address);
    let request = format!("GET {PREFIX}/api/events HTTP/1.1\r\nhost: localhost\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let (mut seen, mut part) = (Vec::new(), [0; 4096]);
    loop {
        let length = stream.read(&mut part).expect("it answers");
        assert!(length > 0, "closed: {}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&part[..length]);
        match seen.get(9..12) {
            Some(b"503") => return None,
            Some(b"200") if seen.ends_with(b"\n\n\r\n") => return Some(stream),
            _ => {}
        }
    }
}

/// A dashboard of a runtime, open to everybody, in a server on a thread of its own.
struct Served {
    address: SocketAddr,
    handle: ServerHandle,
    thread: JoinHandle<()>,
}

impl Served {
    fn start(runtime: impl AsyncFnOnce() -> Runtime + Send + 'static) -> Served {
        let (sender, started) = mpsc::channel();
        let serve = async move || {
            let runtime = runtime().await;
            let dashboard = workpool_dashboard(runtime.clone(), insecure_allow_all());
            let server = HttpServer::new(move || App::new().service(dashboard.scope(PREFIX)))
                .workers(1)
                .shutdown_timeout(0)
                .disable_signals()
                .bind("127.0.0.1:0")
                .unwrap();
            let address = server.addrs()[0];
            let serving = server.run();
            sender.send((address, serving.handle())).unwrap();
            serving.await.unwrap();
            runtime.shutdown(Duration::ZERO).await;
        };
        let thread = std::thread::spawn(move || actix::System::new().block_on(serve()));
        let (address, handle) = started.recv_timeout(PATIENCE).expect("it starts");
        Served { address, handle, thread }
    }

    fn stop(self) {
        actix::System::new().block_on(self.handle.stop(false));
        self.thread.join().unwrap();
    }
}

#[test]
fn who_has_gone_soon_leaves_his_place_to_others() {
    let served = Served::start(async || {
        Runtime::builder().pool("p", PoolConfig::default()).start().await.unwrap()
    });
    let mut listening = Vec::new();
    while let Some(stream) = listen(served.address) {
        listening.push(stream);
        assert!(listening.len() <= 32);
    }
    assert_eq!(listening.len(), 32);

    let went = Instant::now();
    listening.clear();
    while listening.len() < 32 {
        match listen(served.address) {
            Some(stream) => listening.push(stream),
            None => std::thread::sleep(PAUSE),
        }
        let waited = went.elapsed();
        assert!(waited < Duration::from_secs(7), "{} places after {waited:?}", listening.len());
    }
    println!("all places free after {:?}", went.elapsed());
    served.stop();
}

/// Names that would run, or break out of their place, if they were not escaped.
const HOSTILE: [&str; 12] = [
    "<script>alert(1)</script>",
    "<img/src=x/onerror=alert(1)>",
    "\"><svg/onload=alert(1)>",
    "'\"--></style></script><script>alert(1)</script>",
    "javascript:alert(1)",
    "\" autofocus onfocus=\"alert(1)",
    "</title></textarea></pre></td></table><iframe srcdoc='<script>parent.alert(1)</script>'>",
    "<base href=//example.com/>",
    "<meta http-equiv=refresh content='0;url=javascript:alert(1)'>",
    "{{constructor.constructor('alert(1)')()}}",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "../..//%2e%2e/?a=b&c#d",
];

/// A runtime whose pools, functions, keys and arguments have those names, with a job in each state.
async fn hostile() -> Runtime {
    let mut builder = Runtime::builder();
    for name in HOSTILE {
        builder = builder.pool(name, PoolConfig::default().max_parallelism(1)).action_fn(
            ActionKey::<Value, Value>::new(name),
            move |args, cx| async move {
                if args["fails"] == true {
                    return Err(WorkError::non_retryable(name));
                }
                if args["hangs"] == true {
                    cx.progress_note(1, Some(4), name);
                    cx.canceled().await;
                }
                Ok(args)
            },
        );
    }
    let runtime = builder.start().await.unwrap();
    for name in HOSTILE {
        let pool = runtime.pool(name).unwrap();
        let key = ActionKey::<Value, Value>::new(name);
        let args = json!({ name: name });
        pool.enqueue(key.call(args.clone())).await.unwrap().join().await.unwrap();
        let failing = pool.enqueue(key.call(json!({ "fails": true }))).await.unwrap();
        failing.join().await.unwrap_err();
        pool.enqueue(key.call(json!({ "hangs": true }))).key(name).await.unwrap();
        let later = Duration::from_secs(3600);
        pool.enqueue(key.call(args)).key(name).run_after(later).await.unwrap();
    }
    runtime
}

#[test]
#[ignore = "needs a browser, and what `npm ci --prefix tests/browser` brings; .ci/run has both"]
fn hostile_names_are_text_in_a_browser() {
    let served = Served::start(hostile);
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let status = std::process::Command::new("node")
        .arg(root.join("tests/browser/names.mjs"))
        .arg(format!("http://{}{PREFIX}", served.address))
        .arg(root.join("target/browser"))
        .status()
        .expect("node is there");
    served.stop();
    assert!(status.success(), "{status}");
}

/// The example as its users run it.
#[cfg(all(unix, feature = "metrics", feature = "redb"))]
mod example {
    use std::collections::BTreeMap;
    use std::io::{BufRead, BufReader, ErrorKind};
    use std::path::{Path, PathBuf};
    use std::process::{Child, ChildStdout, Command, Stdio};
    use std::sync::Mutex;

    use super::*;
    use base64::prelude::{BASE64_STANDARD, Engine};

    struct Service {
        child: Child,
        stdout: BufReader<ChildStdout>,
        address: SocketAddr,
    }

    impl Drop for Service {
        fn drop(&mut self) {
            self.kill();
        }
    }

    impl Service {
        /// `rest_ms` is how long it rests after each hundred words.
        fn start(file: &Path, rest_ms: u64) -> Service {
            let mut folder = std::env::current_exe().unwrap();
            folder.pop();
            folder.pop();
            let mut child = Command::new(folder.join("examples/web"))
                .args(["--bind", "127.0.0.1:0", "--admin-password", "secret"])
                .args(["--rest-ms", &rest_ms.to_string(), "--store"])
                .arg(file)
                .stdout(Stdio::piped())
                .spawn()
                .expect("the example is built");
            let stdout = BufReader::new(child.stdout.take().unwrap());
            let mut service = Service { child, stdout, address: ([0; 4], 0).into() };
            let mut line = String::new();
            service.stdout.read_line(&mut line).unwrap();
            let address = line.split('/').nth(2).and_then(|address| address.parse().ok());
            service.address = address.unwrap_or_else(|| panic!("not started: {line}"));
            service
        }

        /// As `kill -9` does.
        fn kill(&mut self) {
            self.child.kill().unwrap();
            self.child.wait().unwrap();
        }

        fn get(&self, path: &str) -> Value {
            let login = BASE64_STANDARD.encode("admin:secret");
            let mut stream = connect(self.address);
            let request = format!(
                "GET /workpool{path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Basic {login}\r\n\
                connection: close\r\n\r\n"
            );
            stream.write_all(request.as_bytes()).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            assert!(answer.starts_with("HTTP/1.1 200 "), "{path}: {answer}");
            serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
        }

        /// All texts that it has in a state.
        fn listed(&self, state: &str) -> Vec<Value> {
            let (mut works, mut cursor) = (Vec::new(), String::new());
            loop {
                let path = format!("/api/works?pool=texts&state={state}&limit=200&cursor={cursor}");
                let mut page = self.get(&path);
                works.append(page["works"].as_array_mut().unwrap());
                match page["next"].as_str() {
                    Some(next) => cursor = next.to_owned(),
                    None => return works,
                }
            }
        }

        /// By name: the id of the text, and how many words were counted, once all have finished well.
        fn counted(&self) -> BTreeMap<String, (String, u64)> {
            let begun = Instant::now();
            while !(self.listed("pending").is_empty() && self.listed("running").is_empty()) {
                assert!(begun.elapsed() < PATIENCE, "texts are left");
                std::thread::sleep(PAUSE);
            }
            let mut counted = BTreeMap::new();
            for work in self.listed("finished") {
                assert_eq!(work["outcome"], "success", "{work}");
                let id = work["id"].as_str().unwrap().to_owned();
                let work = self.get(&format!("/api/works/{id}"));
                let result = work["output"]["json"].as_str().unwrap();
                let result: Value = serde_json::from_str(result).unwrap();
                let seen = result["most_frequent"].as_array().unwrap();
                let name =
                    seen.iter().map(|seen| seen[0].as_str().unwrap()).find(|it| *it != "word");
                let name = name.unwrap_or_else(|| panic!("a part of a text: {work}")).to_owned();
                let words = result["words"].as_u64().unwrap();
                let twice = counted.insert(name, (id, words));
                assert!(twice.is_none(), "{twice:?} is there twice");
            }
            counted
        }
    }

    /// A request that uploads a text.
    fn upload(text: &str) -> Vec<u8> {
        let head = format!(
            "POST /texts HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n",
            text.len()
        );
        [head.as_bytes(), text.as_bytes()].concat()
    }

    /// The same in pieces, of which the last one is empty.
    fn upload_in_pieces(text: &str) -> Vec<u8> {
        let mut request =
            b"POST /texts HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n"
                .to_vec();
        for piece in text.as_bytes().chunks(16) {
            request.extend(format!("{:x}\r\n", piece.len()).bytes());
            request.extend(piece);
            request.extend(b"\r\n");
        }
        request.extend(b"0\r\n\r\n");
        request
    }

    /// The id of what was taken; `None` if the service has gone before it answered.
    fn acknowledged(stream: &mut TcpStream) -> Option<String> {
        let (mut answer, mut part) = (Vec::new(), [0; 1024]);
        while !answer.ends_with(b"}") {
            match stream.read(&mut part) {
                Ok(0) => return None,
                Ok(length) => answer.extend_from_slice(&part[..length]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("no answer: {error}"),
            }
        }
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 202 "), "{answer}");
        let body: Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
        Some(body["id"].as_str().unwrap().to_owned())
    }

    /// A text with so many words more than its name.
    fn text(name: &str, words: usize) -> String {
        format!("{name}{}", " word".repeat(words))
    }

    /// A folder of its own for each test, empty.
    fn folder(test: &str) -> PathBuf {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("web-service-{test}"));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        folder
    }

    #[test]
    fn a_text_whose_client_goes_is_there_as_a_whole_or_not_at_all() {
        let file = folder("cut").join("works.redb");
        let mut service = Service::start(&file, 60_000);
        // What may be there, and what must be.
        let (mut possible, mut taken) = (Vec::new(), Vec::new());
        let mut whole = 0;
        for in_pieces in [false, true] {
            let request = |name: &str| match in_pieces {
                false => upload(&text(name, 20)),
                true => upload_in_pieces(&text(name, 20)),
            };
            let head = request("x").windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
            let length = request(&format!("cut-{in_pieces}-000")).len();
            for cut in (1..=length).step_by(7).chain([head, head + 1, length - 1, length]) {
                let name = format!("cut-{in_pieces}-{cut:03}");
                let request = request(&name);
                let mut stream = connect(service.address);
                stream.write_all(&request[..cut]).unwrap();
                if cut == length {
                    whole += 1;
                    possible.push(name);
                }
            }
            // Those that wait for the answer, and go without having read it to its end.
            for n in 0..4 {
                let name = format!("answered-{in_pieces}-{n}");
                let mut stream = connect(service.address);
                stream.write_all(&request(&name)).unwrap();
                let mut status = [0; 13];
                stream.read_exact(&mut status).unwrap();
                assert_eq!(&status, b"HTTP/1.1 202 ");
                taken.push(name);
            }
        }
        assert!(whole >= 2);
        service.kill();
        drop(service);

        let counted = Service::start(&file, 0).counted();
        for name in &taken {
            assert!(counted.contains_key(name), "{name} was taken, and is not there");
        }
        for (name, (_, words)) in &counted {
            assert!(taken.contains(name) || possible.contains(name), "{name} was never sent");
            assert_eq!(*words, 21, "{name}");
        }
    }

    #[test]
    fn what_was_acknowledged_is_counted_after_a_kill() {
        const CLIENTS: usize = 4;
        let folder = folder("killed");
        for kill_after in [1, 20, 100] {
            let file = folder.join(format!("{kill_after}.redb"));
            let mut service = Service::start(&file, 2);
            let address = service.address;
            let known = Mutex::new(BTreeMap::new());
            let (sender, answers) = mpsc::channel();
            std::thread::scope(|scope| {
                for client in 0..CLIENTS {
                    let (known, sender) = (&known, sender.clone());
                    scope.spawn(move || {
                        for n in 0.. {
                            let (name, words) = (format!("client-{client}-{n}"), n % 300);
                            let Ok(mut stream) = TcpStream::connect(address) else { return };
                            stream.set_read_timeout(Some(PATIENCE)).unwrap();
                            if stream.write_all(&upload(&text(&name, words))).is_err() {
                                return;
                            }
                            let Some(id) = acknowledged(&mut stream) else { return };
                            known.lock().unwrap().insert(name, (id, words as u64 + 1));
                            let _ = sender.send(());
                        }
                    });
                }
                for _ in 0..kill_after {
                    answers.recv_timeout(PATIENCE).expect("texts are taken");
                }
                service.kill();
            });
            drop(service);

            let known = known.into_inner().unwrap();
            let counted = Service::start(&file, 0).counted();
            for (name, taken) in &known {
                assert_eq!(counted.get(name), Some(taken), "{name}");
            }
            // Of each client one may have been on its way.
            assert!(counted.len() <= known.len() + CLIENTS, "{} of {}", counted.len(), known.len());
        }
    }
}
