//! `GET /v1/events`: what happens, as server-sent events (WHATWG HTML §9.2). An event's `id` is where the stream is taken up again,
//! over restarts too; one who comes back too late, or reads too slowly, is told to resync, and holds nobody up.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Sse;
use axum::response::sse::Event;
use futures_util::stream::{Stream, unfold};
use picket_common::api::CloudEvent;
use picket_common::id::{ClusterId, HostId, ZoneId};
use tokio::sync::OwnedSemaphorePermit;

use super::Api;
use super::extract::Params;
use super::problem::ApiError;
use super::who::{Caller, Who};
use crate::authorise::{principal, sees_event};
use crate::clock;
use crate::context::{From, Next, Subscription};

/// Time between two comments while nothing happens, so that a dead connection is noticed.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// Most kinds a filter names.
const MAX_KINDS: usize = 32;

/// How often a silent stream looks whether its token is still good.
const LOOK: Duration = Duration::from_secs(1);

/// One subscriber.
struct Subscriber {
    api: Api,
    who: Caller,
    subscription: Subscription,
    filter: Filter,
    /// Where to take it up again: the last event that was passed, wanted or not.
    cursor: Option<String>,
    /// When something was last sent, on the monotonic clock.
    sent_at: Duration,
    _place: OwnedSemaphorePermit,
}

/// Which events are wanted: those that match all of these.
struct Filter {
    host: Option<HostId>,
    cluster: Option<ClusterId>,
    zone: Option<ZoneId>,
    /// Types, whole (`io.picket.power.changed.v1`) or without what all have in common (`power.changed`); none = all.
    kinds: Vec<String>,
}

impl Filter {
    fn of(params: &Params) -> Result<Self, ApiError> {
        let kinds: Vec<_> = params.value("kind").into_iter().flat_map(|kinds| kinds.split(',')).map(str::to_owned).collect();
        if kinds.len() > MAX_KINDS {
            return Err(ApiError::invalid("kind", format!("names more than {MAX_KINDS} kinds")));
        }
        Ok(Self { host: params.parse("host")?, cluster: params.parse("cluster")?, zone: params.parse("zone")?, kinds })
    }

    fn wants(&self, event: &CloudEvent) -> bool {
        let short = event.kind.strip_prefix("io.picket.").and_then(|kind| kind.rsplit_once(".v")).map(|(kind, _)| kind);
        let data = &event.data;
        self.host.as_ref().is_none_or(|host| data.host.as_ref() == Some(host))
            && self.cluster.as_ref().is_none_or(|cluster| data.cluster.as_ref() == Some(cluster))
            && self.zone.as_ref().is_none_or(|zone| data.zone.as_ref() == Some(zone))
            && (self.kinds.is_empty() || self.kinds.iter().any(|kind| *kind == event.kind || Some(kind.as_str()) == short))
    }
}

/// Where a stream begins: the header that browsers and `picketctl` send when they come back, or what the URL says.
fn beginning(headers: &HeaderMap, params: &Params) -> Result<From, ApiError> {
    if let Some(last) = headers.get("last-event-id").and_then(|id| id.to_str().ok()).filter(|id| !id.is_empty()) {
        return Ok(From::Cursor(last.to_owned()));
    }
    match params.value("since") {
        None => Ok(From::Now),
        Some(since) if since.contains('T') => params.parse("since").map(|time| time.map_or(From::Now, From::Since)),
        Some(cursor) => Ok(From::Cursor(cursor.to_owned())),
    }
}

pub(super) async fn events(
    State(api): State<Api>,
    Who(who): Who,
    headers: HeaderMap,
    params: Params,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, ApiError> {
    let params = params.only(&["host", "cluster", "zone", "kind", "since"])?;
    let (filter, from) = (Filter::of(&params)?, beginning(&headers, &params)?);
    let place = std::sync::Arc::clone(&api.limits.subscribers).try_acquire_owned().map_err(|_| ApiError::TooMany(30))?;
    let subscription = api.context.events.subscribe(from).await;
    let sent_at = clock::now().boottime;
    let subscriber = Subscriber { api, who, subscription, filter, cursor: None, sent_at, _place: place };
    Ok(Sse::new(unfold(subscriber, next)))
}

impl Subscriber {
    /// Whether its token is still good: what is revoked hears nothing more.
    fn is_known(&self) -> bool {
        principal(&self.api.context.view.load(), &self.who.token_sha256, clock::now().wall).is_ok()
    }

    fn wants(&self, event: &CloudEvent) -> bool {
        self.filter.wants(event) && sees_event(&self.api.context.view.load(), &self.who.principal.scope, &event.data)
    }

    /// What is sent for what was heard, if anything.
    fn told(&mut self, heard: Next) -> Option<Event> {
        match heard {
            Next::Event(published) => {
                let cursor = published.cursor();
                let wanted = self.wants(&published.event);
                self.cursor = Some(cursor.clone());
                let event = || Event::default().id(cursor).event(one_line(&published.event.kind));
                wanted.then(|| event().data(String::from_utf8_lossy(&published.json)))
            }
            Next::Resync => Some(Event::default().event("resync").data("{}")),
            Next::Failed => None,
        }
    }

    /// A comment, so that a dead connection is noticed; with the place reached, so that a stream of few events is not taken up
    /// again at one long gone (WHATWG HTML §9.2.6: an id without data tells nothing else).
    fn heartbeat(&self) -> Event {
        let event = Event::default().comment("heartbeat");
        self.cursor.as_ref().map_or(event.clone(), |cursor| event.id(cursor))
    }
}

async fn next(mut subscriber: Subscriber) -> Option<(Result<Event, Infallible>, Subscriber)> {
    loop {
        let heard = tokio::time::timeout(LOOK, subscriber.subscription.next()).await;
        let now = clock::now().boottime;
        let event = match heard {
            _ if !subscriber.is_known() => return None,
            // Whoever comes back begins where it was.
            Ok(Next::Failed) => return None,
            Ok(heard) => subscriber.told(heard),
            Err(_) => (now.saturating_sub(subscriber.sent_at) >= HEARTBEAT).then(|| subscriber.heartbeat()),
        };
        if let Some(event) = event {
            subscriber.sent_at = now;
            return Some((Ok(event), subscriber));
        }
    }
}

/// A name of an event must not hold a line break: the library would panic.
fn one_line(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}
