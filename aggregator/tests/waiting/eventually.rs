//! Waiting for what nobody says: the only loop of these tests that looks again.

use std::time::Duration;

/// Far above what any step takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks: short against what is waited for, long against a busy loop.
const PAUSE: Duration = Duration::from_millis(10);

/// Looks until `seek` finds something.
pub async fn eventually<T>(what: &str, mut seek: impl AsyncFnMut() -> Option<T>) -> T {
    let looking = async {
        loop {
            if let Some(found) = seek().await {
                return found;
            }
            tokio::time::sleep(PAUSE).await;
        }
    };
    tokio::time::timeout(PATIENCE, looking).await.unwrap_or_else(|_| panic!("{what}: not within {PATIENCE:?}"))
}
