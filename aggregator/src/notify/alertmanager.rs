//! Prometheus' Alertmanager, API v2: each alert with its labels, told again while it fires, for Alertmanager lets go of what it is
//! not reminded of. Its own grouping, silences and receivers apply from there on.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use picket_common::api::{Change, News};
use reqwest::header::HeaderMap;
use serde::Serialize;

use super::http::Post;
use super::{Letter, never};
use crate::clock;
use crate::config::notify::Alertmanager;
use crate::fleet::Undelivered;

const PATH: [&str; 3] = ["api", "v2", "alerts"];

/// A `postableAlert`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Postable<'a> {
    labels: BTreeMap<&'a str, &'a str>,
    annotations: BTreeMap<&'static str, String>,
    starts_at: Timestamp,
    ends_at: Timestamp,
    #[serde(rename = "generatorURL")]
    generator_url: String,
}

pub(super) async fn send(way: &Alertmanager, letter: &Letter<'_>) -> Result<(), Undelivered> {
    let mut url = way.url.clone();
    url.path_segments_mut().map_err(|()| never("the URL has no path"))?.pop_if_empty().extend(PATH);
    let alive = SignedDuration::try_from(way.ends_after).unwrap_or(SignedDuration::MAX);
    let forgotten = clock::now().wall.saturating_add(alive).unwrap_or(Timestamp::MAX);
    let alerts: Vec<Postable<'_>> = letter.delivery.news.iter().map(|news| postable(letter, news, forgotten)).collect();
    let body = serde_json::to_vec(&alerts).map_err(|error| never(error.to_string()))?;
    let (token_file, ca_file) = (way.token_file.as_deref(), way.ca_file.as_deref());
    Post { url, headers: HeaderMap::new(), body, token_file, ca_file }.send().await
}

fn postable<'a>(letter: &Letter<'a>, news: &'a News, forgotten: Timestamp) -> Postable<'a> {
    let alert = &news.alert;
    let mut labels: BTreeMap<&str, &str> = alert.labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    labels.extend([("alertname", alert.kind.as_str()), ("site", letter.around.site.as_str())]);
    if letter.is_test {
        labels.extend([("alertname", "picket-test"), ("receiver", letter.delivery.receiver.as_str())]);
    }
    let mut annotations = BTreeMap::from([("summary", alert.summary.clone()), ("alert_id", alert.id.clone())]);
    if let Some(by) = &alert.acked_by {
        annotations.insert("acked_by", by.clone());
    }
    let ends_at = match news.change {
        _ if letter.is_test => soon(alert.starts_at),
        Change::Firing | Change::Repeated => forgotten,
        Change::Resolved => alert.ends_at.unwrap_or(alert.starts_at),
    };
    Postable { labels, annotations, starts_at: alert.starts_at, ends_at, generator_url: letter.link(alert) }
}

/// A test fires for a minute.
fn soon(at: Timestamp) -> Timestamp {
    at.saturating_add(SignedDuration::from_mins(1)).unwrap_or(at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::tests::{around, delivery};

    #[test]
    fn an_alert_as_alertmanager_takes_it() {
        let (around, delivery) = (around(), delivery(&[(Change::Firing, "h1"), (Change::Resolved, "h2")]));
        let letter = Letter { delivery: &delivery, around: &around, is_test: false };
        let forgotten: Timestamp = "2027-01-15T08:10:00Z".parse().unwrap();
        let told: Vec<_> = delivery.news.iter().map(|news| postable(&letter, news, forgotten)).collect();
        let wanted = serde_json::json!([
            {
                "labels": {"alertname": "bmc-lost", "kind": "bmc-lost", "severity": "warning", "zone": "z1", "cluster": "c1",
                    "rack": "r1", "host": "h1", "site": "test"},
                "annotations": {"summary": "the BMC of h1 does not answer", "alert_id": "bmc-lost.h1"},
                "startsAt": "2027-01-15T08:00:00Z",
                "endsAt": "2027-01-15T08:10:00Z",
                "generatorURL": "https://picket.example:8443/v1/alerts/bmc-lost.h1",
            },
            {
                "labels": {"alertname": "bmc-lost", "kind": "bmc-lost", "severity": "warning", "zone": "z1", "cluster": "c1",
                    "rack": "r1", "host": "h2", "site": "test"},
                "annotations": {"summary": "the BMC of h2 does not answer", "alert_id": "bmc-lost.h2"},
                "startsAt": "2027-01-15T08:00:00Z",
                "endsAt": "2027-01-15T08:05:00Z",
                "generatorURL": "https://picket.example:8443/v1/alerts/bmc-lost.h2",
            },
        ]);
        assert_eq!(serde_json::to_value(&told).unwrap(), wanted);
    }
}
