//! The actions: what they ask of Picket, and what they print. A host is off when Picket says Down, and not when an order was taken.

use std::time::Duration;

use futures_util::future::{join_all, try_join_all};
use picket_aggregator::client::failure::Failure;
use picket_aggregator::client::operation::until_done;
use picket_aggregator::client::{Call, Client, Method, read, typed};
use picket_common::api::ha::{FenceBody, HaView};
use picket_common::api::{Host, Operation, OperationHost, PowerRequest};
use picket_common::ha::{HaName, HostStatus};
use picket_common::hostset::natural_order;
use picket_common::id::HostId;
use picket_common::power::{PowerOperation, PowerState};
use serde_json::json;

use crate::options::{Action, Options};
use crate::telling::Log;

/// What an order may take, in seconds, where the caller watches the time: it ends this program when it has waited enough, and the
/// fence goes on.
const UNWATCHED: u64 = 600;

/// What a reading of the power may take at most, in seconds.
const READING: u64 = 30;

/// Longest time an order may be given (the API's bound), in seconds.
const LONGEST: u64 = 3600;

/// Pause before an order is sent again whose answer did not come.
const AGAIN: Duration = Duration::from_secs(1);

/// How often it is looked whether a host is Down.
const LOOK: Duration = Duration::from_millis(300);

/// How long after the end of its fence a host may take to be Down.
const UNTIL_DOWN: Duration = Duration::from_secs(15);

/// Code of the problem "a request with this key is being answered".
const UNDER_WAY: &str = "idempotency-key-under-way";

/// Why it failed: in fence-agents' words, and in Picket's.
#[derive(Debug)]
pub struct Failed {
    words: &'static str,
    causes: Vec<String>,
}

const NO_LOGIN: &str = "Unable to connect/login to fencing device";
const LOST: &str = "Connection lost";
const TIMED_OUT: &str = "Connection timed out";
const NOT_ON: &str = "Failed: Timed out waiting to power ON";
const NOT_OFF: &str = "Failed: Timed out waiting to power OFF";
const NO_STATUS: &str = "Failed: Unable to obtain correct plug status or plug is not available";
const NOT_DONE: &str = "Failed: The aggregator did not do it";

impl Failed {
    /// Nothing was asked yet.
    pub fn before_all(failure: Failure) -> Self {
        Self::of(NO_LOGIN, &failure)
    }

    /// `words` unless the failure is one of the connection.
    fn of(words: &'static str, failure: &Failure) -> Self {
        let words = match failure {
            Failure::Unreachable(_) => NO_LOGIN,
            Failure::Problem(problem) if matches!(problem.status, 401 | 403) => NO_LOGIN,
            Failure::NoAnswer(_) => LOST,
            Failure::TimedOut(_) if words == NO_STATUS => TIMED_OUT,
            _ => words,
        };
        Self { words, causes: failure.to_string().lines().map(|line| line.trim().to_owned()).collect() }
    }

    fn because(words: &'static str, cause: String) -> Self {
        Self { words, causes: vec![cause] }
    }

    /// In fence-agents' words.
    pub const fn words(&self) -> &str {
        self.words
    }

    /// Why, a line each.
    pub fn causes(&self) -> impl Iterator<Item = &str> {
        self.causes.iter().map(String::as_str)
    }
}

/// How an order about a host ended well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Done {
    /// It was so already.
    Already,
    /// It is so now.
    Now,
}

impl Done {
    /// Over several hosts: already only if each was.
    fn over(all: &[Self]) -> Self {
        if all.contains(&Self::Now) { Self::Now } else { Self::Already }
    }
}

/// Carries out one action.
pub struct Fencer<'a> {
    /// Picket.
    pub client: &'a Client,
    /// What was asked.
    pub options: &'a Options,
    /// Where it is told.
    pub log: &'a Log,
}

impl Fencer<'_> {
    /// Carries it out: what is printed, and the exit code.
    ///
    /// # Errors
    /// Why not.
    pub async fn act(&self) -> Result<(String, u8), Failed> {
        match self.options.action {
            Action::On => {
                let done = self.all_on().await?;
                tokio::time::sleep(self.options.power_wait).await;
                Ok((said(done, "ON"), 0))
            }
            Action::Off => {
                let done = self.all_off().await?;
                tokio::time::sleep(self.options.power_wait).await;
                Ok((said(done, "OFF"), 0))
            }
            Action::Reboot => {
                self.all_off().await?;
                tokio::time::sleep(self.options.power_wait).await;
                // They were fenced: what comes after cannot undo that, and is told.
                if let Err(failed) = self.all_on().await {
                    failed.causes().chain(["Timed out waiting to power ON"]).for_each(|text| self.log.error(text));
                }
                Ok(("Success: Rebooted\n".to_owned(), 0))
            }
            Action::Status => {
                let states = try_join_all(self.options.hosts.iter().map(|host| self.power(host))).await?;
                let is_off = states.iter().all(|state| *state == PowerState::Off);
                Ok(if is_off { ("Status: OFF\n".to_owned(), 2) } else { ("Status: ON\n".to_owned(), 0) })
            }
            Action::List | Action::ListStatus => self.list().await.map(|text| (text, 0)),
            Action::Monitor => {
                let asked = self.client.all("/v1/hosts", &[], 1).await;
                asked.map(|_| (String::new(), 0)).map_err(|failure| Failed::of(NOT_DONE, &failure))
            }
            Action::Metadata | Action::ValidateAll => Ok((String::new(), 0)),
        }
    }

    async fn list(&self) -> Result<String, Failed> {
        let rows = self.client.all("/v1/hosts", &[], usize::MAX).await;
        let hosts = rows.and_then(|rows| rows.into_iter().map(typed).collect::<Result<Vec<Host>, Failure>>());
        let mut hosts = hosts.map_err(|failure| Failed::of(NOT_DONE, &failure))?;
        hosts.sort_by(|left, right| natural_order(left.id.as_str(), right.id.as_str()));
        let separator = &self.options.separator;
        let line = |host: &Host| match self.options.action {
            Action::ListStatus => format!("{}{separator}{separator}{}\n", host.id, listed(host)),
            _ => format!("{}{separator}\n", host.id),
        };
        Ok(hosts.iter().map(line).collect())
    }

    /// The power, read now.
    async fn power(&self, host: &HostId) -> Result<PowerState, Failed> {
        let part = self.ordered(host, "power", &self.power_body(PowerOperation::Status)).await;
        let part = part.map_err(|failure| Failed::of(NO_STATUS, &failure))?;
        match part.power {
            Some(state @ (PowerState::On | PowerState::Off)) => Ok(state),
            Some(state) => Err(Failed::because(NO_STATUS, format!("{host}: {state}"))),
            None => Err(Failed::because(NO_STATUS, ended(&part))),
        }
    }

    /// Has all hosts fenced, also those beside one that cannot be.
    async fn all_off(&self) -> Result<Done, Failed> {
        let fences = join_all(self.options.hosts.iter().map(|host| self.off(host)));
        let not_off = |time| Failed::because(NOT_OFF, format!("not proven off after {time} s; Picket goes on with the fence"));
        let done = self.in_time(fences, not_off).await?;
        Ok(Done::over(&done.into_iter().collect::<Result<Vec<_>, _>>()?))
    }

    /// What is done within the time that there is.
    async fn in_time<T>(&self, work: impl Future<Output = T>, late: impl Fn(u64) -> Failed) -> Result<T, Failed> {
        match self.options.power_timeout {
            None => Ok(work.await),
            Some(within) => tokio::time::timeout(within, work).await.map_err(|_| late(within.as_secs())),
        }
    }

    /// Has a host fenced: ends well only when Picket says that it is Down.
    async fn off(&self, host: &HostId) -> Result<Done, Failed> {
        let not_off = |failure: Failure| Failed::of(NOT_OFF, &failure);
        let before = self.ha(host).await.map_err(|failure| match &failure {
            Failure::Problem(problem) if problem.status == 404 => Failed::of(NO_STATUS, &failure),
            _ => not_off(failure),
        })?;
        if stays_off(&before) {
            self.log.debug(&format!("{host}: fenced already, and proven off"));
            return Ok(Done::Already);
        }
        let part = self.ordered(host, "fence", &self.fence_body()).await.map_err(not_off)?;
        if !matches!(part.result.as_deref(), Some("changed" | "unchanged")) {
            return Err(Failed::because(NOT_OFF, ended(&part)));
        }
        self.down(host).await
    }

    /// Waits until the host is Down: the fence has ended, so that is a moment.
    async fn down(&self, host: &HostId) -> Result<Done, Failed> {
        let looking = async {
            loop {
                let view = self.ha(host).await;
                match view {
                    Ok(view) if view.host_status == HostStatus::Down => {
                        let is_sent = view.proof.is_none_or(|proof| proof.off_sent);
                        return Ok(if is_sent { Done::Now } else { Done::Already });
                    }
                    Err(failure) if !failure.may_pass() => return Err(Failed::of(NOT_OFF, &failure)),
                    Ok(_) | Err(_) => tokio::time::sleep(LOOK).await,
                }
            }
        };
        let not_down = || Failed::because(NOT_OFF, format!("{host}: its fence ended, and Picket does not say that it is down"));
        tokio::time::timeout(UNTIL_DOWN, looking).await.unwrap_or_else(|_| Err(not_down()))
    }

    async fn all_on(&self) -> Result<Done, Failed> {
        let mut left = self.options.retry_on;
        loop {
            let switching = join_all(self.options.hosts.iter().map(|host| self.on(host)));
            let not_on = |time| Failed::because(NOT_ON, format!("not on after {time} s"));
            let switched = self.in_time(switching, not_on).await?;
            match switched.into_iter().collect::<Result<Vec<_>, _>>() {
                Ok(done) => return Ok(Done::over(&done)),
                Err(failed) if left == 0 => return Err(failed),
                Err(failed) => failed.causes().for_each(|cause| self.log.warning(&format!("{cause}; trying again"))),
            }
            left -= 1;
        }
    }

    /// Switches a host on; one that was fenced is released first.
    async fn on(&self, host: &HostId) -> Result<Done, Failed> {
        let not_on = |failure: Failure| Failed::of(NOT_ON, &failure);
        let view = self.ha(host).await.map_err(|failure| match &failure {
            Failure::Problem(problem) if problem.status == 404 => Failed::of(NO_STATUS, &failure),
            _ => not_on(failure),
        })?;
        if view.ha.is_some_and(|ha| ha.state == HaName::Fenced) {
            let body = FenceBody { overrides: Vec::new(), ..self.fence_body() };
            let part = self.ordered(host, "fence/release", &body).await.map_err(not_on)?;
            self.log.debug(&format!("release: {}", ended(&part)));
            if !matches!(part.result.as_deref(), Some("changed" | "unchanged")) {
                return Err(Failed::because(NOT_ON, ended(&part)));
            }
        }
        let part = self.ordered(host, "power", &self.power_body(PowerOperation::On)).await.map_err(not_on)?;
        match part.result.as_deref() {
            Some("changed") => Ok(Done::Now),
            Some("unchanged") => Ok(Done::Already),
            _ => Err(Failed::because(NOT_ON, ended(&part))),
        }
    }

    async fn ha(&self, host: &HostId) -> Result<HaView, Failure> {
        let path = format!("/v1/hosts/{host}/ha");
        let call = Call { timeout: Some(self.options.answer_timeout), ..Call::new(Method::GET, &path) };
        typed(read(self.client.ask(call).await?).await?)
    }

    /// Time an order may take, in seconds.
    fn order_timeout(&self) -> u64 {
        self.options.power_timeout.map_or(UNWATCHED, |time| time.as_secs().clamp(1, LONGEST))
    }

    fn fence_body(&self) -> FenceBody {
        FenceBody {
            reason: Some(self.options.reason.clone()),
            overrides: self.options.overrides.clone(),
            force: false,
            timeout: Some(self.order_timeout()),
        }
    }

    fn power_body(&self, operation: PowerOperation) -> PowerRequest {
        let reason = Some(self.options.reason.clone());
        let most = if operation == PowerOperation::Status { READING } else { LONGEST };
        PowerRequest { operation, timeout: Some(self.order_timeout().min(most)), reason, dry_run: false, on_if_off: false }
    }

    /// Gives an order and follows it to its end. One whose answer does not come is sent again under the same key: it is done once.
    async fn ordered(&self, host: &HostId, route: &str, body: &impl serde::Serialize) -> Result<OperationHost, Failure> {
        let path = format!("/v1/hosts/{host}/{route}");
        let body = json!(body).to_string();
        let key = [("idempotency-key", uuid::Uuid::new_v4().to_string())];
        let patience = Duration::from_secs(self.order_timeout());
        let accepting = async {
            let mut may_be_heard = false;
            loop {
                let timeout = Some(self.options.answer_timeout);
                let call = Call { headers: &key, body: Some(body.clone().into()), timeout, ..Call::new(Method::POST, &path) };
                let answered = async { read(self.client.ask(call).await?).await };
                match answered.await {
                    // Who cannot be reached at all is told at once: a cluster manager has other devices to try.
                    Err(failure @ Failure::Unreachable(_)) if !may_be_heard => return Err(failure),
                    Err(failure) if may_pass(&failure) => self.log.debug(&format!("{host}: {}; asking again", failure.line())),
                    ended => return ended,
                }
                may_be_heard = true;
                tokio::time::sleep(AGAIN).await;
            }
        };
        let never = || Failure::NoAnswer(format!("no answer within {} s", patience.as_secs()));
        let accepted = tokio::time::timeout(patience, accepting).await.unwrap_or_else(|_| Err(never()))?;
        self.log.debug(&format!("{host}: {route}: operation {}", accepted["id"].as_str().unwrap_or_default()));
        let done = until_done(self.client, accepted, None, &|_| {}).await?;
        let operation: Operation = typed(done)?;
        let nobody = || Failure::NoAnswer("the operation names no host".into());
        operation.hosts.into_iter().next().ok_or_else(nobody)
    }
}

fn may_pass(failure: &Failure) -> bool {
    failure.may_pass() || matches!(failure, Failure::Problem(problem) if problem.code == UNDER_WAY)
}

/// Whether a host is proven off and nobody may switch it on: one that was released may be about to come back.
fn stays_off(view: &HaView) -> bool {
    let is_kept = view.ha.as_ref().is_some_and(|ha| ha.state == HaName::Fenced && ha.reason.is_none());
    view.host_status == HostStatus::Down && is_kept
}

/// `Success: Powered OFF`.
fn said(done: Done, word: &str) -> String {
    match done {
        Done::Already => format!("Success: Already {word}\n"),
        Done::Now => format!("Success: Powered {word}\n"),
    }
}

/// What a list says of a host's power: what is old is not known.
fn listed(host: &Host) -> &'static str {
    match host.power {
        PowerState::On if !host.stale => "ON",
        PowerState::Off if !host.stale => "OFF",
        _ => "UNKNOWN",
    }
}

/// How a host's part of an operation ended, in one line: the driver's own error is not left out.
fn ended(part: &OperationHost) -> String {
    let mut text = format!("{}: {}", part.host, part.result.as_deref().unwrap_or("not done"));
    for cause in [&part.refusal, &part.detail].into_iter().flatten() {
        text += &format!(": {cause}");
    }
    if let Some(error) = part.bmc_error.as_ref().map(ToString::to_string).filter(|error| !text.contains(error)) {
        text += &format!(": {error}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_hosts_were_so_already_only_if_each_was() {
        use Done::{Already, Now};
        for (all, wanted) in [(&[Already][..], Already), (&[Already, Now], Now), (&[Now], Now)] {
            assert_eq!(Done::over(all), wanted);
        }
        assert_eq!(said(Already, "OFF"), "Success: Already OFF\n");
    }

    #[test]
    fn a_host_that_may_come_back_is_fenced_again() {
        for (state, reason, status, wanted) in [
            ("fenced", None, "down", true),
            ("fenced", Some("released"), "down", false),
            ("fenced", Some("restarting"), "down", false),
            ("fenced", Some("returned"), "disconnected", false),
            ("fenced", None, "unknown", false),
            ("available", None, "up", false),
        ] {
            let view = json!({"state": state, "since": "2026-01-01T00:00:00Z", "why": "w", "quarantined": false, "reason": reason,
                "host_status": status, "acked": false, "explain": [], "would_end": [], "settings": {}});
            assert_eq!(stays_off(&typed(view).unwrap()), wanted, "{state} {reason:?} {status}");
        }
    }

    #[test]
    fn causes_stay_beside_the_words() {
        let part = json!({"host": "h1", "state": "done", "result": "failed", "detail": "no answer",
            "bmc_error": {"driver": "ipmi", "class": "connection", "code": "timeout", "text": "no answer in 5 s"}});
        let part: OperationHost = serde_json::from_value(part).unwrap();
        assert_eq!(ended(&part), "h1: failed: no answer: ipmi: no answer in 5 s (timeout)");
        for (failure, words) in [
            (Failure::Unreachable("refused".into()), NO_LOGIN),
            (Failure::NoAnswer("cut off".into()), LOST),
            (Failure::TimedOut("late".into()), NOT_OFF),
        ] {
            assert_eq!(Failed::of(NOT_OFF, &failure).words(), words);
        }
    }
}
