//! Waiting for a condition with a limit: the only way the agent's own tests wait.

use std::time::Duration;

use crate::clock::boottime;

/// Far above what anything here takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(20);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(10);

/// Waits until `condition` holds; `what` names it when it never does.
pub fn eventually(what: &str, condition: impl Fn() -> bool) {
    let end = boottime() + LIMIT;
    while !condition() {
        assert!(boottime() < end, "not within {LIMIT:?}: {what}");
        std::thread::sleep(PAUSE);
    }
}

/// [`eventually`], and others may go on meanwhile.
pub async fn eventually_async(what: &str, condition: impl Fn() -> bool) {
    let end = boottime() + LIMIT;
    while !condition() {
        assert!(boottime() < end, "not within {LIMIT:?}: {what}");
        tokio::time::sleep(PAUSE).await;
    }
}
