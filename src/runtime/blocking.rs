//! The threads of blocking actions.

/// The threads of blocking actions. After a drop each one ends with its current action; the drop does not wait.
pub(super) struct BlockingThreads(Option<tokio::runtime::Runtime>);

impl BlockingThreads {
    pub fn new(threads: usize) -> std::io::Result<BlockingThreads> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .thread_name("workpool-blocking")
            .max_blocking_threads(threads)
            .build()?;
        Ok(BlockingThreads(Some(runtime)))
    }

    pub fn handle(&self) -> Option<tokio::runtime::Handle> {
        self.0.as_ref().map(|runtime| runtime.handle().clone())
    }
}

impl Drop for BlockingThreads {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
