//! Two pools over one store: a mutation takes an order, writes it down and enqueues its mail, all or nothing.
//!
//! ```text
//! $ cargo run --example pools
//! order 1: placed
//! order 2: placed
//! order 3: tea is out of stock
//! mail: 2 waiting, 0 running, 0 slots
//! mail: 0 waiting, 0 running, 4 slots
//! order 1: tea, confirmed
//! order 2: tea, confirmed
//! orders: 3 succeeded, 1 failed
//! mail: 2 succeeded, 0 failed
//! ```

use std::time::Duration;

use actix_workpool::{
    Action, ActionContext, Completion, CompletionResult, JoinError, Mutation, OnComplete,
    PoolConfig, Query, Reader, Runtime, Transaction, WorkError,
};
use serde::{Deserialize, Serialize};

/// Item → how many are there. Written by [`Restock`] and [`PlaceOrder`].
const STOCK: &str = "stock";

/// Number → [`Order`]. Written by [`PlaceOrder`] and [`Confirmed`], read by [`Orders`].
const ORDERS: &str = "orders";

#[derive(Serialize, Deserialize)]
struct Order {
    item: String,
    confirmed: bool,
}

#[derive(Serialize, Deserialize)]
struct Restock {
    item: String,
    pieces: u32,
}

impl Mutation for Restock {
    const NAME: &'static str = "shop.restock";
    type Output = ();

    fn apply(self, tx: &mut Transaction<'_>) -> Result<(), WorkError> {
        let pieces = tx.get::<u32>(STOCK, &self.item)?.unwrap_or(0) + self.pieces;
        Ok(tx.put(STOCK, &self.item, &pieces)?)
    }
}

#[derive(Serialize, Deserialize)]
struct PlaceOrder {
    number: u64,
    item: String,
}

impl Mutation for PlaceOrder {
    const NAME: &'static str = "shop.place_order";
    type Output = ();

    fn apply(self, tx: &mut Transaction<'_>) -> Result<(), WorkError> {
        let PlaceOrder { number, item } = self;
        tx.put(ORDERS, number, &Order { item: item.clone(), confirmed: false })?;
        tx.pool("mail")?
            .enqueue(SendConfirmation { number })
            .on_complete::<Confirmed>(number)
            .submit()?;
        // When this fails, neither the order nor the mail is there.
        let left = match tx.get::<u32>(STOCK, &item)? {
            Some(pieces @ 1..) => pieces - 1,
            _ => return Err(WorkError::non_retryable(format!("{item} is out of stock"))),
        };
        Ok(tx.put(STOCK, &item, &left)?)
    }
}

#[derive(Serialize, Deserialize)]
struct SendConfirmation {
    number: u64,
}

impl Action for SendConfirmation {
    const NAME: &'static str = "mail.send_confirmation";
    type Output = ();

    async fn run(self, _: ActionContext) -> Result<(), WorkError> {
        tokio::time::sleep(Duration::from_millis(20)).await;
        Ok(())
    }
}

/// Marks the order in the commit that completes its mail.
struct Confirmed;

impl OnComplete for Confirmed {
    const NAME: &'static str = "shop.confirmed";
    type Context = u64;
    type Output = ();

    fn apply(tx: &mut Transaction<'_>, done: Completion<u64, ()>) -> Result<(), WorkError> {
        if let Some(mut order) = tx.get::<Order>(ORDERS, done.context)? {
            order.confirmed = matches!(done.result, CompletionResult::Success(()));
            tx.put(ORDERS, done.context, &order)?;
        }
        Ok(())
    }
}

#[derive(Serialize, Deserialize)]
struct Orders;

impl Query for Orders {
    const NAME: &'static str = "shop.orders";
    type Output = Vec<(u64, Order)>;

    fn read(self, reader: &mut Reader<'_>) -> Result<Self::Output, WorkError> {
        let rows = reader.scan(ORDERS)?.into_iter();
        Ok(rows.filter_map(|(key, order)| Some((key.as_u64()?, order))).collect())
    }
}

#[actix::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let runtime = Runtime::builder()
        .mutation::<Restock>()
        .mutation::<PlaceOrder>()
        .action::<SendConfirmation>()
        .on_complete::<Confirmed>()
        .query::<Orders>()
        .pool("orders", PoolConfig::default())
        .pool("mail", PoolConfig::default().max_parallelism(1).paused(true))
        .start()
        .await?;
    let (orders, mail) = (runtime.pool("orders")?, runtime.pool("mail")?);

    orders.enqueue(Restock { item: "tea".into(), pieces: 2 }).await?.join().await?;
    for number in 1..=3 {
        let order = orders.enqueue(PlaceOrder { number, item: "tea".into() }).await?;
        match order.join().await {
            Ok(()) => println!("order {number}: placed"),
            Err(JoinError::Failed { failure, .. }) => println!("order {number}: {failure}"),
            Err(error) => return Err(error.into()),
        }
    }

    // The mail is down for maintenance: what is enqueued waits.
    let now = mail.diagnostics().await?;
    println!(
        "mail: {} waiting, {} running, {} slots",
        now.waiting, now.running, now.spare_capacity
    );

    mail.update(PoolConfig::default().max_parallelism(4)).await?;
    mail.resume().await?;
    mail.idle().await?;
    let now = mail.diagnostics().await?;
    println!(
        "mail: {} waiting, {} running, {} slots",
        now.waiting, now.running, now.spare_capacity
    );

    for (number, order) in runtime.query(Orders).await? {
        let state = if order.confirmed { "confirmed" } else { "not confirmed" };
        println!("order {number}: {}, {state}", order.item);
    }
    for pool in [orders, mail] {
        let report = pool.diagnostics().await?.report;
        println!("{}: {} succeeded, {} failed", pool.name(), report.succeeded, report.failed);
    }
    runtime.shutdown(Duration::from_secs(5)).await;
    Ok(())
}
