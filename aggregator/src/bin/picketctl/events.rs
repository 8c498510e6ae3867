//! `events tail`: follows the event stream (WHATWG HTML §9.2) and takes it up again where it broke off.

use std::time::Duration;

use futures_util::StreamExt;
use picket_common::api::{CloudEvent, EventWhat};
use reqwest::Method;

use crate::Ended;
use crate::cli::EventCommand;
use crate::client::{Call, Client, escaped, problem};
use crate::failure::Failure;
use crate::output::{Output, plain, print};
use crate::sight;

/// Heartbeats come every 15 s: a stream that is silent for longer than three of them is dead.
const SILENCE: Duration = Duration::from_secs(50);

/// First pause before another try; doubled up to [`LONGEST_PAUSE`].
const PAUSE: Duration = Duration::from_millis(500);

const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// Longest event taken, in bytes: one line of JSON has about 500.
const MAX_EVENT: usize = 1 << 20;

/// Where one is in following.
struct Tail {
    last_id: Option<String>,
    left: Option<u64>,
    table: bool,
    lines: Lines,
}

/// `events …`.
pub async fn events(client: &Client, out: &Output, command: EventCommand) -> Ended {
    let EventCommand::Tail { host, kind, count } = command;
    let mut path = String::from("/v1/events?");
    for (name, value) in [("host", host.map(|host| host.to_string())), ("kind", kind)] {
        path += &value.map(|value| format!("{name}={}&", escaped(&value))).unwrap_or_default();
    }
    let mut tail = Tail { last_id: None, left: count, table: out.is_table(), lines: Lines::default() };
    let mut pause = PAUSE;
    let mut connected_once = false;
    while tail.left != Some(0) {
        match follow(client, path.trim_end_matches(['?', '&']), &mut tail, &mut connected_once).await {
            // Nobody is there at all, or says no: that is an answer.
            Err(failure @ (Failure::Problem(_) | Failure::Local(_) | Failure::Usage(_))) => return Err(failure),
            Err(failure) if !connected_once => return Err(failure),
            Ok(()) if tail.left == Some(0) => break,
            Ok(()) => pause = PAUSE,
            Err(failure) => eprintln!("picketctl: {failure}; trying again"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    Ok(0)
}

/// Follows until the stream ends.
async fn follow(client: &Client, path: &str, tail: &mut Tail, connected: &mut bool) -> Result<(), Failure> {
    let mut headers = vec![("accept", "text/event-stream".to_owned())];
    headers.extend(tail.last_id.clone().map(|id| ("last-event-id", id)));
    let call = Call { headers: &headers, timeout: None, ..Call::new(Method::GET, path) };
    let response = tokio::time::timeout(SILENCE, client.send(call)).await;
    let response = response.map_err(|_| Failure::Unreachable("no answer".into()))??;
    if !response.status().is_success() {
        return Err(problem(response).await);
    }
    *connected = true;
    tail.lines = Lines::default();
    let mut chunks = response.bytes_stream();
    while tail.left != Some(0) {
        let chunk = tokio::time::timeout(SILENCE, chunks.next()).await;
        match chunk.map_err(|_| Failure::Unreachable("the event stream went silent".into()))? {
            None => return Ok(()),
            Some(Err(error)) => return Err(Failure::Unreachable(error.to_string())),
            Some(Ok(bytes)) => tail.take(&bytes)?,
        }
    }
    Ok(())
}

impl Tail {
    fn take(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        for event in self.lines.take(bytes)? {
            if self.left == Some(0) {
                return Ok(());
            }
            if event.kind == "resync" {
                eprintln!("picketctl: some events were missed; read the state anew (`picketctl hosts list`)");
                continue;
            }
            self.last_id = event.id.or(self.last_id.take());
            let line = if self.table { for_people(&event.data) } else { event.data };
            print(&format!("{line}\n"))?;
            self.left = self.left.map(|left| left.saturating_sub(1));
        }
        Ok(())
    }
}

/// One line for people; what is not understood is shown as it is.
fn for_people(data: &str) -> String {
    let Ok(event) = serde_json::from_str::<CloudEvent>(data) else { return plain(data) };
    let text = match &event.data.what {
        EventWhat::History(what) => {
            let detail = sight::detail(what).map(|detail| format!("  {detail}")).unwrap_or_default();
            format!("{}{detail}", sight::what(what))
        }
        EventWhat::Alert(alert) => {
            let state = if alert.ends_at.is_some() { "resolved" } else { "firing" };
            format!("alert {} {state}  {}", alert.kind, alert.summary)
        }
        EventWhat::Presence { connected: true } => "agent connected".to_owned(),
        EventWhat::Presence { connected: false } => "agent lost".to_owned(),
    };
    let kind = event.kind.strip_prefix("io.picket.").and_then(|kind| kind.rsplit_once(".v")).map_or(&*event.kind, |(kind, _)| kind);
    plain(&format!("{}  {:<12} {kind:<18} {text}", sight::seconds(event.time), event.subject))
}

/// One event of the stream.
#[derive(Debug, Default, PartialEq, Eq)]
struct Event {
    id: Option<String>,
    kind: String,
    data: String,
}

/// Bytes → events, whatever the pieces they come in.
#[derive(Default)]
struct Lines {
    rest: Vec<u8>,
    event: Event,
}

impl Lines {
    fn take(&mut self, bytes: &[u8]) -> Result<Vec<Event>, Failure> {
        self.rest.extend_from_slice(bytes);
        let mut events = Vec::new();
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            events.extend(self.line(line.trim_end_matches(['\r', '\n'])));
        }
        if self.rest.len() + self.event.data.len() > MAX_EVENT {
            return Err(Failure::Unreachable("an event is longer than a megabyte".into()));
        }
        Ok(events)
    }

    fn line(&mut self, line: &str) -> Option<Event> {
        if line.is_empty() {
            let event = std::mem::take(&mut self.event);
            return (!event.data.is_empty()).then_some(event);
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => self.event.id = Some(value.to_owned()),
            "event" => value.clone_into(&mut self.event.kind),
            "data" => {
                if !self.event.data.is_empty() {
                    self.event.data.push('\n');
                }
                self.event.data.push_str(value);
            }
            // Comments have an empty name; other fields mean nothing here.
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_put_together_from_any_pieces() {
        let stream =
            ": heartbeat\n\nid: 1\nevent: a\ndata: {\"x\":1}\n\nid:2\r\nevent:b\r\ndata:l1\r\ndata: l2\r\n\r\nevent: none\n\n";
        for size in [1, 2, 7, 1000] {
            let mut lines = Lines::default();
            let events: Vec<_> = stream.as_bytes().chunks(size).flat_map(|chunk| lines.take(chunk).unwrap()).collect();
            let wanted = [
                Event { id: Some("1".into()), kind: "a".into(), data: "{\"x\":1}".into() },
                Event { id: Some("2".into()), kind: "b".into(), data: "l1\nl2".into() },
            ];
            assert_eq!(events, wanted, "in pieces of {size}");
        }
        assert!(Lines::default().take(&vec![b'x'; MAX_EVENT + 1]).is_err());
    }

    #[test]
    fn events_for_people() {
        let data = r#"{"specversion":"1.0","id":"a:1:2","source":"/z1/c1/h1","type":"io.picket.power.changed.v1","subject":"h1",
            "time":"2026-01-01T00:00:00Z","datacontenttype":"application/json",
            "data":{"host":"h1","zone":"z1","cluster":"c1","kind":"power","old":"on","new":"off","cause":"poll"}}"#;
        assert_eq!(for_people(data), "2026-01-01T00:00:00Z  h1           power.changed      power on → off  seen by polling");
        assert_eq!(for_people("\u{1b}x"), "\u{fffd}x");
    }
}
