//! Operations from the asker's side: followed to their end.

use std::time::Duration;

use picket_common::api::{Operation, OperationHost};
use serde_json::Value;

use super::failure::{Failure, NONE_SUCCEEDED, REFUSED, UNKNOWN};
use super::{Client, typed};
use crate::clock;

/// How often an operation is looked at while it is waited for.
const LOOK: Duration = Duration::from_millis(200);

/// How long after its deadline a result may still come: the aggregator itself gives up a minute after it.
const GRACE: Duration = Duration::from_secs(75);

/// Waits until an operation is done. An aggregator that does not answer meanwhile is asked again: it may be starting anew. What is
/// seen on the way, without the hosts' parts, goes to `seen`.
///
/// # Errors
/// [`Failure::TimedOut`] with the id, when `timeout` or the operation's own deadline and grace are over.
pub async fn until_done(
    client: &Client,
    first: Value,
    timeout: Option<Duration>,
    seen: &impl Fn(&Value),
) -> Result<Value, Failure> {
    let operation: Operation = typed(first.clone())?;
    if operation.done {
        return Ok(first);
    }
    let left = operation.deadline.duration_since(clock::now().wall);
    let patience = timeout.unwrap_or_else(|| Duration::try_from(left).unwrap_or_default().saturating_add(GRACE));
    let path = format!("/v1/operations/{}", operation.id);
    let counts = format!("{path}?hosts=none");
    let looking = async {
        let mut ticks = tokio::time::interval(LOOK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut done = false;
        loop {
            ticks.tick().await;
            match client.one(if done { &path } else { &counts }).await {
                Ok(whole) if done => return Ok(whole),
                Ok(look) => {
                    seen(&look);
                    done = look["done"] == true;
                }
                Err(failure) if !failure.may_pass() => return Err(failure),
                Err(_) => {}
            }
        }
    };
    let timed_out = || {
        let id = operation.id;
        Failure::TimedOut(format!("operation {id} is not done after {} s; `picketctl op wait {id}` goes on", patience.as_secs()))
    };
    tokio::time::timeout(patience, looking).await.unwrap_or_else(|_| Err(timed_out()))
}

/// The exit code that says how a host's part ended.
#[must_use]
pub fn result_code(host: &OperationHost) -> u8 {
    match host.result.as_deref() {
        Some("changed" | "unchanged" | "read") => 0,
        Some("refused") => REFUSED,
        Some("unknown") | None => UNKNOWN,
        Some(_) => NONE_SUCCEEDED,
    }
}
