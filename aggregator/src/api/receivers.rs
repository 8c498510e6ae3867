//! Who is told of alerts, how it goes, and trying it. Receivers are of the settings' file: nothing here changes them.

use axum::Json as Shown;
use axum::extract::State;
use picket_common::api::{Page, Receiver, ReceiverTest};
use picket_common::id::ReceiverId;

use super::extract::Id;
use super::problem::ApiError;
use super::who::Who;
use super::{Api, not_found};
use crate::authorise::{Action, authorise};
use crate::fleet::classify::Right;

/// `GET /v1/receivers`: there are few, so they are one page.
pub(super) async fn receivers(State(api): State<Api>, Who(who): Who) -> Result<Shown<Page<Receiver>>, ApiError> {
    authorise(&api.context.view.load(), &who.principal, Action::Site(Right::Read))?;
    Ok(Shown(Page { items: api.notifier.receivers(), next_page_token: None }))
}

/// `GET /v1/receivers/{receiver}`
pub(super) async fn receiver(State(api): State<Api>, Who(who): Who, Id(id): Id<ReceiverId>) -> Result<Shown<Receiver>, ApiError> {
    authorise(&api.context.view.load(), &who.principal, Action::Site(Right::Read))?;
    let found = api.notifier.receivers().into_iter().find(|receiver| receiver.name == id);
    found.map(Shown).ok_or_else(|| not_found("receiver", &id))
}

/// `POST /v1/receivers/{receiver}/test`: sends something that is no alert, once, and waits for what comes of it.
pub(super) async fn test(State(api): State<Api>, Who(who): Who, Id(id): Id<ReceiverId>) -> Result<Shown<ReceiverTest>, ApiError> {
    authorise(&api.context.view.load(), &who.principal, Action::Site(Right::Configure))?;
    who.trail.about(format_args!("receiver/{id}"), "test");
    let sent = api.notifier.test(&id, &who.principal.name).await.ok_or_else(|| not_found("receiver", &id))?;
    let error = sent.err().map(|undelivered| undelivered.why);
    Ok(Shown(ReceiverTest { receiver: id, delivered: error.is_none(), error }))
}
