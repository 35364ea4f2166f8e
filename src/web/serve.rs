//! Running a server and a runtime that end together.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use actix_web::dev::Server;

use crate::runtime::{Runtime, ShutdownReport};

impl Runtime {
    /// Runs the server until it ends or the process gets Ctrl-C (`SIGINT`) or `SIGTERM`; then lets requests finish, and
    /// [shuts down](Runtime::shutdown) with `grace`. A `main` needs nothing else:
    ///
    /// ```no_run
    /// use std::time::Duration;
    ///
    /// use actix_web::{App, HttpServer, web};
    /// use actix_workpool::{PoolConfig, Runtime};
    ///
    /// #[actix_web::main]
    /// async fn main() -> Result<(), Box<dyn std::error::Error>> {
    ///     let runtime = Runtime::builder().pool("mail", PoolConfig::default()).start().await?;
    ///     let data = web::Data::new(runtime.clone());
    ///     let server = HttpServer::new(move || App::new().app_data(data.clone()));
    ///     let server = server.bind("127.0.0.1:8080")?.run();
    ///     let report = runtime.serve(server, Duration::from_secs(10)).await?;
    ///     println!("{} jobs wait for the next start", report.pending);
    ///     Ok(())
    /// }
    /// ```
    ///
    /// The server can handle signals itself, as it does by default, or leave them to this method
    /// (`HttpServer::disable_signals`); then requests also finish after `SIGINT`.
    ///
    /// # Errors
    /// Returns the server's error, after the runtime has been shut down.
    pub async fn serve(&self, server: Server, grace: Duration) -> io::Result<ShutdownReport> {
        let handle = server.handle();
        let (mut server, mut told) = (pin!(server), pin!(told_to_end()));
        // Signals first, so that they are handled before the first request.
        let served = poll_fn(|cx| match told.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(None),
            Poll::Pending => server.as_mut().poll(cx).map(Some),
        });
        let served = match served.await {
            Some(served) => served,
            None => {
                // The command is sent at once, and `server` ends when it has stopped.
                drop(handle.stop(true));
                server.await
            }
        };
        let report = self.shutdown(grace).await;
        served.map(|()| report)
    }
}

/// Waits for a signal that ends the service. A signal that cannot be listened to never comes.
async fn told_to_end() {
    let mut interrupted = pin!(tokio::signal::ctrl_c());
    #[cfg(unix)]
    let mut terminated = {
        use tokio::signal::unix::{SignalKind, signal};
        signal(SignalKind::terminate()).ok()
    };
    poll_fn(|cx| {
        #[cfg(unix)]
        if let Some(terminated) = &mut terminated
            && terminated.poll_recv(cx).is_ready()
        {
            return Poll::Ready(());
        }
        match interrupted.as_mut().poll(cx) {
            Poll::Ready(Ok(())) => Poll::Ready(()),
            _ => Poll::Pending,
        }
    })
    .await;
}
