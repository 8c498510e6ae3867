//! Waiting for a condition with a limit: the only way the tests wait.
//!
//! Never a fixed sleep before a check: the check itself is repeated until it holds or time is up.

use anyhow::{Context, Result};
use std::time::{Duration, Instant};

/// Between two tries: short against what is waited for, long against a busy loop.
const PAUSE: Duration = Duration::from_millis(20);
/// Between two tries for a moment that is over within milliseconds.
const SHORT_PAUSE: Duration = Duration::from_micros(200);

/// Tries `probe` until it gives `Ok`, and gives that. At the time limit, gives the last try's error.
///
/// # Errors
/// The last error of `probe`, with the limit as its context.
pub fn eventually<T>(timeout: Duration, probe: impl FnMut() -> Result<T>) -> Result<T> {
    repeated(timeout, PAUSE, probe)
}

/// [`eventually`], for a moment that is over within milliseconds.
///
/// # Errors
/// The last error of `probe`, with the limit as its context.
pub fn eventually_soon<T>(timeout: Duration, probe: impl FnMut() -> Result<T>) -> Result<T> {
    repeated(timeout, SHORT_PAUSE, probe)
}

fn repeated<T>(timeout: Duration, pause: Duration, mut probe: impl FnMut() -> Result<T>) -> Result<T> {
    let end = now() + timeout;
    loop {
        match probe() {
            Ok(found) => return Ok(found),
            Err(error) if now() >= end => return Err(error).with_context(|| format!("not within {timeout:?}")),
            Err(_) => std::thread::sleep(pause),
        }
    }
}

/// Tries `probe` again and again for as long as `time`: it holds now, and all the while.
///
/// # Errors
/// The first error of `probe`.
pub fn all_the_while(time: Duration, mut probe: impl FnMut() -> Result<()>) -> Result<()> {
    let end = now() + time;
    loop {
        probe()?;
        if now() >= end {
            return Ok(());
        }
        std::thread::sleep(PAUSE);
    }
}

/// [`eventually`] for a `probe` that awaits. A try that hangs is cut off at the time limit.
///
/// # Errors
/// The last error of `probe`, with the limit as its context.
pub async fn eventually_async<T>(timeout: Duration, mut probe: impl AsyncFnMut() -> Result<T>) -> Result<T> {
    let end = now() + timeout;
    loop {
        let left = end.saturating_duration_since(now()).max(PAUSE);
        match tokio::time::timeout(left, probe()).await.unwrap_or_else(|_| Err(anyhow::anyhow!("no answer"))) {
            Ok(found) => return Ok(found),
            Err(error) if now() >= end => return Err(error).with_context(|| format!("not within {timeout:?}")),
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the harness waits in real time, outside the daemons' clock")]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::{bail, ensure};

    const SOON: Duration = Duration::from_millis(60);

    #[test]
    fn gives_what_the_probe_finds_at_last() {
        let mut tries = 0;
        let found = eventually(Duration::from_secs(10), || {
            tries += 1;
            ensure!(tries == 3, "not yet");
            Ok(tries)
        });
        assert_eq!(found.unwrap(), 3);
    }

    #[test]
    fn gives_the_last_error_at_the_limit() {
        let error = eventually(SOON, || -> Result<()> { bail!("still off") }).unwrap_err();
        assert_eq!(format!("{error:#}"), "not within 60ms: still off");
    }

    #[test]
    fn what_does_not_last_is_told() {
        let mut left = 3;
        let lasting = all_the_while(Duration::from_secs(10), || {
            left -= 1;
            ensure!(left > 0, "over");
            Ok(())
        });
        assert_eq!((lasting.unwrap_err().to_string(), left), ("over".to_owned(), 0));
        assert!(all_the_while(SOON, || Ok(())).is_ok());
    }

    #[tokio::test]
    async fn awaits_and_cuts_off_a_hanging_try() {
        let mut tries = 0;
        let found = eventually_async(Duration::from_secs(10), async || {
            tries += 1;
            ensure!(tries == 3, "not yet");
            Ok(tries)
        });
        assert_eq!(found.await.unwrap(), 3);
        let error = eventually_async(SOON, async || std::future::pending::<Result<()>>().await).await.unwrap_err();
        assert_eq!(format!("{error:#}"), "not within 60ms: no answer");
    }
}
