//! The busiest keys of a pool, for people.

use serde::Serialize;
use utoipa::ToSchema;

use super::big::Big;
use super::key_text::ShownKey;
use super::{Operator, OpsError};
use crate::client::{KeyStatus, Workpool};
use crate::model::Name;

/// The maximum number of keys that are shown.
pub(crate) const MOST_KEYS: usize = 100;

/// The function that keys are redacted for, besides those that are registered: none.
const NO_FUNCTION: Name = Name::from_static("");

/// The busiest keys of a pool.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct KeysView {
    /// Those with the most waiting jobs, at most 100, the busiest first.
    pub keys: Vec<KeyView>,
}

/// A key of a pool, with the number of its jobs.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct KeyView {
    /// The key: as text, or `0x` and hexadecimal digits.
    #[schema(value_type = String)]
    pub key: ShownKey,
    pub running: Big,
    /// Jobs that have a place of the key and wait for a slot or for their time.
    pub ready: Big,
    /// Jobs that wait for others of the key.
    pub waiting: Big,
    /// The end of the rest that a job of the key has asked for.
    pub rests_until: Option<Big>,
}

impl Operator {
    /// Returns the busiest keys of a pool.
    pub async fn keys(&self, pool: Workpool) -> Result<KeysView, OpsError> {
        let keys = self.busiest_keys(pool, MOST_KEYS).await?;
        // Which functions have jobs of a key is not known.
        let registered = self.client().shared.catalog.iter().map(|(name, _)| name);
        let functions: Vec<_> = std::iter::once(NO_FUNCTION).chain(registered).collect();
        let view = |status: &KeyStatus| KeyView {
            key: ShownKey::of_any(status.key(), &functions, &self.redaction),
            running: Big(status.running),
            ready: Big(status.ready),
            waiting: Big(status.waiting),
            rests_until: status.rests_until.map(Big::from),
        };
        Ok(KeysView { keys: keys.iter().map(view).collect() })
    }
}
