//! An actor that spawns work from its handlers and hears of the outcome in a message.
//!
//! ```text
//! $ cargo run --example spawn_from_actor
//! sunset.jpg: 320×240
//! notes.txt: failed, not an image
//! forest.jpg: 320×240
//! 2 thumbnails
//! ```

use std::time::Duration;

use actix::prelude::*;
use actix_workpool::{
    Action, ActionContext, Completed, CompletionResult, EnqueueError, PoolConfig, Runtime,
    WorkError, Workpool,
};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

/// Makes a thumbnail: what the actor must not wait for.
#[derive(Serialize, Deserialize)]
struct MakeThumbnail {
    name: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Thumbnail {
    name: String,
    width: u32,
    height: u32,
}

impl Action for MakeThumbnail {
    const NAME: &'static str = "thumbnail.make";
    type Output = Thumbnail;

    async fn run(self, _: ActionContext) -> Result<Thumbnail, WorkError> {
        if !self.name.ends_with(".jpg") {
            return Err(WorkError::non_retryable(format!("{}: failed, not an image", self.name)));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        Ok(Thumbnail { name: self.name, width: 320, height: 240 })
    }
}

/// Asks the album to take pictures in. Answers at once, with how many it will hear of.
#[derive(Message)]
#[rtype(result = "Result<usize, EnqueueError>")]
struct Import(Vec<&'static str>);

/// Keeps thumbnails. A handle on a pool is a field like any other.
struct Album {
    pool: Workpool,
    thumbnails: Vec<Thumbnail>,
    awaited: usize,
    /// Told how many thumbnails there are when all are made.
    complete: Option<oneshot::Sender<usize>>,
}

impl Actor for Album {
    type Context = Context<Self>;
}

impl Handler<Import> for Album {
    type Result = Result<usize, EnqueueError>;

    fn handle(&mut self, Import(names): Import, ctx: &mut Self::Context) -> Self::Result {
        for name in names {
            self.pool
                .enqueue(MakeThumbnail { name: name.to_owned() })
                .notify(ctx.address().recipient())
                .do_enqueue()?;
            self.awaited += 1;
        }
        Ok(self.awaited)
    }
}

/// The message names the function, so that one actor can spawn several and tell them apart.
impl Handler<Completed<MakeThumbnail, Thumbnail>> for Album {
    type Result = ();

    fn handle(&mut self, done: Completed<MakeThumbnail, Thumbnail>, _: &mut Self::Context) {
        match done.result {
            CompletionResult::Success(thumbnail) => {
                println!("{}: {}×{}", thumbnail.name, thumbnail.width, thumbnail.height);
                self.thumbnails.push(thumbnail);
            }
            CompletionResult::Failed(failure) => println!("{failure}"),
            CompletionResult::Canceled => println!("{}: canceled", done.work_id),
        }
        self.awaited -= 1;
        if self.awaited == 0
            && let Some(complete) = self.complete.take()
        {
            // Main may have gone; the album does not mind.
            let _ = complete.send(self.thumbnails.len());
        }
    }
}

#[actix::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let runtime = Runtime::builder()
        .action::<MakeThumbnail>()
        // One at a time, so that they complete in the order of the enqueues.
        .pool("thumbnails", PoolConfig::default().max_parallelism(1))
        .start()
        .await?;
    let (complete, completed) = oneshot::channel();
    let pool = runtime.pool("thumbnails")?;
    let album = Album { pool, thumbnails: Vec::new(), awaited: 0, complete: Some(complete) };
    let album = album.start();

    album.send(Import(vec!["sunset.jpg", "notes.txt", "forest.jpg"])).await??;
    println!("{} thumbnails", completed.await?);
    runtime.shutdown(Duration::from_secs(5)).await;
    Ok(())
}
