//! Synchronization types: locks, counters, maps and channels.
//!
//! With `--cfg shuttle` they come from the shuttle crate, whose scheduler tries another thread interleaving in each run
//! (`threads.rs`). Without it they are the real types, at no cost.

#[cfg(not(shuttle))]
mod real {
    pub(crate) use std::sync::{Mutex, MutexGuard, RwLock, atomic};

    pub(crate) use dashmap::mapref::entry::Entry as MapEntry;
    pub(crate) use tokio::sync::{Notify, oneshot, watch};
    pub(crate) use tokio_stream::wrappers::WatchStream;

    pub(crate) type Map<K, V> = dashmap::DashMap<K, V, hashbrown::DefaultHashBuilder>;
}

#[cfg(shuttle)]
mod scheduled {
    use std::pin::Pin;
    use std::task::{Context, Poll, ready};

    pub(crate) use shuttle::sync::{Mutex, MutexGuard, RwLock, atomic};
    /// A map with one lock, where the real one has several.
    pub(crate) use shuttle_dashmap::DashMap as Map;
    pub(crate) use shuttle_dashmap::mapref::entry::Entry as MapEntry;
    pub(crate) use shuttle_tokio::sync::{Notify, oneshot, watch};

    type Changed<T> = (bool, watch::Receiver<T>);

    /// The values of a `watch` as a stream, the first one at once, like tokio-stream's type.
    pub(crate) struct WatchStream<T>(Pin<Box<dyn Future<Output = Changed<T>> + Send>>);

    impl<T: Clone + Send + Sync + 'static> WatchStream<T> {
        pub fn new(receiver: watch::Receiver<T>) -> WatchStream<T> {
            WatchStream(Box::pin(async move { (true, receiver) }))
        }

        async fn change(mut receiver: watch::Receiver<T>) -> Changed<T> {
            let changed = receiver.changed().await.is_ok();
            (changed, receiver)
        }
    }

    impl<T: Clone + Send + Sync + 'static> tokio_stream::Stream for WatchStream<T> {
        type Item = T;

        fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
            let (changed, mut receiver) = ready!(self.0.as_mut().poll(cx));
            let value = changed.then(|| receiver.borrow_and_update().clone());
            self.0 = Box::pin(WatchStream::change(receiver));
            Poll::Ready(value)
        }
    }
}

#[cfg(not(shuttle))]
pub(crate) use real::*;
#[cfg(shuttle)]
pub(crate) use scheduled::*;
