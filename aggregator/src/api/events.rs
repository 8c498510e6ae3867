//! `GET /v1/events`: what happens, as server-sent events (WHATWG HTML §9.2). One who reads too slowly is told to resync, and
//! holds nobody up.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Sse;
use axum::response::sse::{Event, KeepAlive};
use futures_util::stream::{Stream, unfold};
use picket_common::api::CloudEvent;
use picket_common::id::HostId;
use tokio::sync::OwnedSemaphorePermit;

use super::Api;
use super::extract::Params;
use super::problem::ApiError;
use super::who::{Caller, Who};
use crate::authorise::{principal, sees_event};
use crate::clock;
use crate::context::{Next, Subscription};

/// Time between two comments while nothing happens, so that a dead connection is noticed.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// How often a silent stream looks whether its token is still good.
const LOOK: Duration = Duration::from_secs(1);

/// One subscriber.
struct Subscriber {
    api: Api,
    who: Caller,
    subscription: Subscription,
    filter: Filter,
    _place: OwnedSemaphorePermit,
}

/// Which events are wanted.
struct Filter {
    host: Option<HostId>,
    kind: Option<String>,
}

impl Subscriber {
    /// Whether its token is still good: what is revoked hears nothing more.
    fn is_known(&self) -> bool {
        principal(&self.api.context.view.load(), &self.who.token_sha256, clock::now().wall).is_ok()
    }

    fn wants(&self, event: &CloudEvent) -> bool {
        self.filter.wants(event) && sees_event(&self.api.context.view.load(), &self.who.principal.scope, &event.data)
    }
}

impl Filter {
    /// `kind` is a type, whole (`io.picket.power.changed.v1`) or without what all have in common (`power.changed`).
    fn wants(&self, event: &CloudEvent) -> bool {
        let short = event.kind.strip_prefix("io.picket.").and_then(|kind| kind.rsplit_once(".v")).map(|(kind, _)| kind);
        self.host.as_ref().is_none_or(|host| event.data.host.as_ref() == Some(host))
            && self.kind.as_deref().is_none_or(|kind| kind == event.kind || Some(kind) == short)
    }
}

pub(super) async fn events(
    State(api): State<Api>,
    Who(who): Who,
    headers: HeaderMap,
    params: Params,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, ApiError> {
    let params = params.only(&["host", "kind"])?;
    let filter = Filter { host: params.parse("host")?, kind: params.value("kind").map(str::to_owned) };
    let place = std::sync::Arc::clone(&api.limits.subscribers).try_acquire_owned().map_err(|_| ApiError::TooMany(30))?;
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok());
    let subscription = api.context.events.subscribe(last);
    let stream = unfold(Subscriber { api, who, subscription, filter, _place: place }, next);
    Ok(Sse::new(stream).keep_alive(KeepAlive::new().interval(HEARTBEAT).text("heartbeat")))
}

async fn next(mut subscriber: Subscriber) -> Option<(Result<Event, Infallible>, Subscriber)> {
    loop {
        let heard = tokio::time::timeout(LOOK, subscriber.subscription.next()).await;
        if !subscriber.is_known() {
            return None;
        }
        let Ok(heard) = heard else { continue };
        let event = match heard {
            Next::Event(published) if subscriber.wants(&published.event) => {
                let json = String::from_utf8_lossy(&published.json);
                Event::default().id(one_line(&published.event.id)).event(one_line(&published.event.kind)).data(json)
            }
            Next::Event(_) => continue,
            Next::Resync => Event::default().event("resync").data("{}"),
            Next::Closed => return None,
        };
        return Some((Ok(event), subscriber));
    }
}

/// An id or name of an event must not hold a line break: the library would panic.
fn one_line(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}
