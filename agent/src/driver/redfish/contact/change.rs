//! Changes by PATCH: the identify light and the boot override. A PATCH goes out once; it goes out again only when the BMC says
//! that nothing was done because of its ETag.

use std::time::Duration;

use picket_common::command::{BootDevice, Persistence};
use serde_json::Value;

use super::super::failure::{Failure, Progress};
use super::super::http::Reply;
use super::super::login;
use super::{Contact, Trouble, bad_answer};
use crate::bmc::{Answer, ErrorClass};
use crate::redfish::details::Details;
use crate::redfish::etag;
use crate::redfish::fault::{Exchange, Fault, Verdict, verdict};
use crate::redfish::link::Path;
use crate::redfish::request::Request;

/// How often a boot override is read back until it shows, and how long it is waited for in between: BMCs that accept (202)
/// before they do take a second or two.
const READ_BACKS: u8 = 5;
const READ_BACK_PAUSE: Duration = Duration::from_millis(600);

/// The ETags that a resource came with.
#[derive(Debug, Default)]
pub(super) struct Tags {
    pub header: Option<String>,
    pub body: Option<String>,
}

impl Contact {
    /// Lights the identify light or puts it out. Redfish knows no timer: a light that was lit stays lit until it is put out.
    pub(super) async fn identify(&mut self, lit: bool, progress: &Progress) -> Result<Answer, Trouble> {
        let (mut path, mut details, mut tags) = self.details(progress).await?;
        if let (None, Some(chassis)) = (&details.light, details.chassis.take()) {
            (path, details, tags) = self.details_at(chassis, "reading the chassis", progress).await?;
        }
        let Some(light) = details.light else {
            return Err(Failure::not_supported("neither the system nor its chassis has an indicator to light").into());
        };
        let what = if lit { "lighting the indicator" } else { "putting the indicator out" };
        let reply = self.patch(path, &light.change(lit), tags, progress).await?;
        self.accept(&reply, what)?;
        Ok(Answer::Done)
    }

    /// Chooses what the host boots from, and reads it back.
    pub(super) async fn set_boot_device(
        &mut self,
        device: BootDevice,
        persistence: Persistence,
        progress: &Progress,
    ) -> Result<Answer, Trouble> {
        let (path, details, tags) = self.details(progress).await?;
        let Some(boot) = details.boot else {
            return Err(Failure::not_supported("the system has no boot override").into());
        };
        let wanted = boot.choose(device, persistence).map_err(|error| Failure::not_supported(error.to_string()))?;
        let reply = self.patch(path, &wanted.change(), tags, progress).await?;
        self.accept(&reply, &format!("boot override {wanted}"))?;
        let mut shown = String::new();
        for _ in 0..READ_BACKS {
            let boot = match self.details(progress).await {
                Ok((_, details, _)) => details.boot,
                Err(Trouble::Failed(failure) | Trouble::LoggedOut(failure) | Trouble::NotNow(_, failure)) => {
                    let text = format!("boot override {wanted}: accepted, but it cannot be read back: {}", failure.text);
                    let failure = Failure { maybe_sent: true, ..Failure::new(failure.class, "not-read-back", text) };
                    return Err(failure.into());
                }
            };
            if boot.as_ref().is_some_and(|boot| boot.does(wanted)) {
                return Ok(Answer::Done);
            }
            shown = boot.map_or_else(|| "none".to_owned(), |boot| boot.shown());
            tokio::time::sleep(READ_BACK_PAUSE).await;
        }
        let text = format!("the BMC acknowledged the boot override {wanted}, but shows {shown}");
        Err(Failure::new(ErrorClass::Refused, "not-taken", text).into())
    }

    /// The system beyond its power.
    pub(super) async fn details(&mut self, progress: &Progress) -> Result<(Path, Details, Tags), Trouble> {
        let (_, reply) = self.read_system(progress).await?;
        let Some(path) = self.system.clone() else {
            return Err(Failure::protocol("no-system", "no system was found").into());
        };
        let details = Details::read(&reply.body, &self.line.origin).map_err(|error| bad_answer(&error))?;
        let tags = Tags { header: reply.etag, body: details.etag.clone() };
        Ok((path, details, tags))
    }

    async fn details_at(&self, path: Path, step: &'static str, progress: &Progress) -> Result<(Path, Details, Tags), Trouble> {
        let (path, reply) = self.get(path, &self.who(), step, progress).await?;
        self.expect_good(&reply, step)?;
        let details = Details::read(&reply.body, &self.line.origin).map_err(|error| bad_answer(&error))?;
        let tags = Tags { header: reply.etag, body: details.etag.clone() };
        Ok((path, details, tags))
    }

    /// A PATCH up the ladder of ETags.
    pub(super) async fn patch(&mut self, path: Path, body: &Value, tags: Tags, progress: &Progress) -> Result<Reply, Failure> {
        let mut rungs = etag::ladder(tags.header.as_deref(), tags.body.as_deref()).into_iter().peekable();
        let request = Request::patch(path, body);
        loop {
            let rung = rungs.next();
            let (if_match, quirk) = rung.map_or((None, ""), |rung| (rung.if_match, rung.quirk));
            progress.begin("waiting for the answer to the change");
            progress.still_wanted()?;
            progress.set_order_out(true);
            let sent = login::post(&self.line, Request { if_match, ..request.clone() }, &self.who()).await;
            progress.set_order_out(false);
            let reply = sent?;
            if matches!(reply.status, 412 | 428) && rungs.peek().is_some() {
                continue;
            }
            if reply.status < 300 && !quirk.is_empty() {
                self.etag_quirk = Some(quirk);
            }
            return Ok(reply);
        }
    }

    /// Whether a change that may be made again was accepted.
    fn accept(&self, reply: &Reply, what: &str) -> Result<(), Trouble> {
        let fault = Fault::read_of(reply.status, &reply.body);
        let told = self.told(what, reply.status, &fault);
        let code = format!("http-{}", reply.status);
        match verdict(Exchange::Change, reply.status, &fault, &self.quirks) {
            Verdict::Good => Ok(()),
            Verdict::NotLoggedIn => Err(Trouble::LoggedOut(Failure::new(ErrorClass::Auth, "login-refused", told))),
            Verdict::NotNow => Err(Trouble::NotNow(reply.retry_after, Failure::new(ErrorClass::Refused, code, told))),
            Verdict::NotHere if matches!(reply.status, 405 | 501) => Err(Failure::not_supported(told).into()),
            Verdict::NotHere | Verdict::NotInThisState | Verdict::OtherTag => {
                Err(Failure::new(ErrorClass::Refused, code, told).into())
            }
            Verdict::Failed { class, maybe_done } => {
                Err(Failure { maybe_sent: maybe_done, ..Failure::new(class, code, told) }.into())
            }
        }
    }
}
