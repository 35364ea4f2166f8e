//! The reading half of a storage that stands in front of another one.

/// Everything a [`Storage`](actix_workpool::storage::Storage) can be asked, handed on: `self.read(name, |storage| ..)`
/// asks the storage behind.
macro_rules! reads {
    () => {
        reads! { @
            fn facts(work_ids: &[actix_workpool::WorkId])
                -> Vec<Option<actix_workpool::model::WorkFact>>;
            fn finished(work_ids: &[actix_workpool::WorkId])
                -> Vec<Option<std::sync::Arc<actix_workpool::model::Finished>>>;
            fn read_batch(
                pool: actix_workpool::model::PoolId,
                demand: actix_workpool::model::Demand,
                now: actix_workpool::model::Segment,
            ) -> actix_workpool::model::Batch;
            fn state(pool: actix_workpool::model::PoolId) -> actix_workpool::model::StateRow;
            fn running(pool: actix_workpool::model::PoolId)
                -> Vec<actix_workpool::model::RunningRow>;
            fn running_places(
                pool: Option<actix_workpool::model::PoolId>,
                after: Option<(actix_workpool::model::Segment, actix_workpool::WorkId)>,
                limit: usize,
            ) -> Vec<(actix_workpool::model::Segment, actix_workpool::WorkId)>;
            fn works(
                pool: actix_workpool::model::PoolId,
                after: Option<actix_workpool::WorkId>,
                limit: usize,
            ) -> Vec<actix_workpool::WorkId>;
            fn unregistered(
                pool: actix_workpool::model::PoolId,
                after: Option<actix_workpool::model::Key>,
                limit: usize,
            ) -> Vec<(
                actix_workpool::model::Key,
                std::sync::Arc<actix_workpool::model::Spec>,
            )>;
            fn pending_starts(
                pool: actix_workpool::model::PoolId,
                after: Option<actix_workpool::model::Key>,
                until: actix_workpool::model::Key,
                limit: usize,
            ) -> Vec<(actix_workpool::model::Key, actix_workpool::WorkId)>;
            fn counts(
                pool: actix_workpool::model::PoolId,
                cursors: &actix_workpool::model::Cursors,
            ) -> actix_workpool::model::Counts;
            fn expired(before: actix_workpool::model::Segment, keep: u64, limit: usize)
                -> Vec<actix_workpool::WorkId>;
            fn last_finished(before: Option<u64>, limit: usize)
                -> Vec<(u64, std::sync::Arc<actix_workpool::model::Finished>)>;
            fn get(
                table: actix_workpool::model::Name,
                key: &actix_workpool::model::TableKey,
            ) -> Option<actix_workpool::model::Payload>;
            fn scan(
                table: actix_workpool::model::Name,
                range: &actix_workpool::storage::KeyRange,
                limit: usize,
            ) -> Vec<(
                actix_workpool::model::TableKey,
                actix_workpool::model::Payload,
            )>;
        }
    };
    (@ $(fn $name:ident($($arg:ident: $type:ty),* $(,)?) -> $answer:ty;)*) => {$(
        fn $name(&mut self, $($arg: $type),*) -> Result<$answer, StorageError> {
            self.read(stringify!($name), |storage| storage.$name($($arg),*))
        }
    )*};
}
pub(crate) use reads;
