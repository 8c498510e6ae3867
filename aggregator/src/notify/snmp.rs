//! SNMP notifications, version 2c or 3, one for each alert: informs, which the receiver acknowledges, or traps, of which nobody
//! knows whether they arrive. `packaging/PICKET-MIB.txt` says what is in them; what it numbers is numbered here too.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_snmp::v3::{AuthoritativeEngine, PersistedAuthoritativeEngine};
use async_snmp::{Auth, Client, Oid, Retry, UsmConfig, Value, VarBind};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use picket_common::alert::Severity;
use picket_common::api::{Change, News};
use picket_common::id::{AgentId, ClusterId, HostId};

use super::{Letter, Progress, again, files};
use crate::clock;
use crate::config::notify::{Snmp, SnmpVersion};
use crate::fleet::Undelivered;

/// Wait for an acknowledgement, and how often an inform is sent again.
const ACKNOWLEDGE: Duration = Duration::from_secs(5);
const AGAIN: u32 = 2;
/// Pause after each trap: a receiver's queue is short, and nobody hears what it drops.
const PAUSE: Duration = Duration::from_millis(2);
/// Longest summary, in bytes: the whole fits into one packet.
const SUMMARY: usize = 400;
/// Where the engines' boots are kept, in the state folder.
const FILE: &str = "snmp-engine.json";

/// Arcs below the MIB's root.
const NOTIFICATIONS: u32 = 0;
const OBJECTS: u32 = 1;
const FIRING: u32 = 1;
const RESOLVED: u32 = 2;
const TEST: u32 = 3;

/// The engines that vouch for SNMPv3 traps (RFC 3414 §1.5.1): how often each was started must never go back, so it is kept.
#[derive(Debug)]
pub(super) struct Engines {
    file: PathBuf,
    /// The one that a receiver without an engine of its own stands for.
    own: Vec<u8>,
    started: Mutex<BTreeMap<Vec<u8>, AuthoritativeEngine>>,
}

impl Engines {
    /// The engines kept in `state_dir`; `store` makes the own one's id.
    pub(super) fn new(state_dir: &std::path::Path, store: uuid::Uuid) -> Self {
        // RFC 3411, SnmpEngineID: enterprise 8072 (whose playground the notifications are in), format 5: octets.
        let own = [&[0x80, 0x00, 0x1f, 0x88, 0x05], &store.as_bytes()[..]].concat();
        Self { file: state_dir.join(FILE), own, started: Mutex::default() }
    }

    /// The id that stands in a receiver's traps.
    pub(super) fn id_for(&self, version: &SnmpVersion) -> Option<String> {
        match version {
            SnmpVersion::V2c { .. } => None,
            SnmpVersion::V3 { engine_id, .. } => Some(hex::encode(engine_id.as_ref().unwrap_or(&self.own))),
        }
    }

    fn engine(&self, id: Option<&Vec<u8>>) -> Result<AuthoritativeEngine, Undelivered> {
        let id = id.unwrap_or(&self.own);
        let mut started = self.started.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(engine) = started.get(id) {
            return Ok(engine.clone());
        }
        let failed = |error: &dyn std::fmt::Display| again(format!("{}: {error}", self.file.display()));
        let boots = kept(&self.file).map_err(|error| failed(&error))?.get(&hex::encode(id)).copied();
        let file = self.file.clone();
        let keep = move |state: &PersistedAuthoritativeEngine| keep(&file, state);
        let engine = match boots {
            None => AuthoritativeEngine::install(id.clone(), keep),
            Some(boots) => {
                PersistedAuthoritativeEngine::new(id.clone(), boots).and_then(|before| AuthoritativeEngine::restart(before, keep))
            }
        };
        let engine = engine.map_err(|error| failed(&error))?;
        started.insert(id.clone(), engine.clone());
        Ok(engine)
    }
}

fn kept(file: &std::path::Path) -> std::io::Result<BTreeMap<String, u32>> {
    match std::fs::read(file) {
        Ok(json) => Ok(serde_json::from_slice(&json)?),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(BTreeMap::new()),
        Err(error) => Err(error),
    }
}

/// Durable when it returns.
fn keep(file: &std::path::Path, state: &PersistedAuthoritativeEngine) -> std::io::Result<()> {
    let mut all = kept(file)?;
    all.insert(hex::encode(state.engine_id()), state.engine_boots());
    let draft = file.with_extension("new");
    let mut written = std::fs::File::create(&draft)?;
    serde_json::to_writer(&mut written, &all)?;
    written.sync_all()?;
    std::fs::rename(&draft, file)
}

pub(super) async fn send(way: &Snmp, letter: &Letter<'_>, progress: &mut Progress) -> Result<(), Undelivered> {
    let failed = |error: Box<async_snmp::Error>| again(error.to_string());
    let retry = Retry::fixed(AGAIN, Duration::ZERO).unwrap_or_default();
    let mut client = Client::builder(way.target.as_str(), login(&way.version)?).request_timeout(ACKNOWLEDGE).retry(retry);
    if let (SnmpVersion::V3 { engine_id, .. }, false) = (&way.version, way.inform) {
        client = client.local_authoritative_engine(letter.around.engines.engine(engine_id.as_ref())?);
    }
    let client = client.connect().await.map_err(failed)?;
    for (at, news) in letter.delivery.news.iter().enumerate() {
        let part = at.to_string();
        if progress.is_done(&part) {
            continue;
        }
        let (kind, values) = (way.enterprise.child(NOTIFICATIONS).child(kind(letter, news)), values(&way.enterprise, letter, news));
        if way.inform {
            client.send_inform(&kind, uptime(), values).await.map_err(failed)?;
        } else {
            client.send_trap(&kind, uptime(), values).await.map_err(failed)?;
            tokio::time::sleep(PAUSE).await;
        }
        progress.done(&part);
    }
    Ok(())
}

fn login(version: &SnmpVersion) -> Result<Auth, Undelivered> {
    match version {
        SnmpVersion::V2c { community_file } => {
            let community = files::secret("community_file", community_file)?;
            Ok(Auth::v2c(community.expose().as_bytes().to_vec()))
        }
        SnmpVersion::V3 { username, auth, privacy, .. } => {
            let user = UsmConfig::new(username.clone());
            let secret = files::secret("auth_file", &auth.1)?;
            let user = match privacy {
                None => user.auth(auth.0, secret.expose()),
                Some((protocol, file)) => {
                    let private = files::secret("priv_file", file)?;
                    user.auth_priv(auth.0, secret.expose(), *protocol, private.expose())
                }
            };
            user.map(Auth::from).map_err(|error| again(format!("SNMPv3 user: {error}")))
        }
    }
}

const fn kind(letter: &Letter<'_>, news: &News) -> u32 {
    match (letter.is_test, news.change) {
        (true, _) => TEST,
        (false, Change::Firing | Change::Repeated) => FIRING,
        (false, Change::Resolved) => RESOLVED,
    }
}

/// Hundredths of a second since the machine started; they begin anew after 497 days, as the type has it.
fn uptime() -> u32 {
    let hundredths = clock::now().boottime.as_millis() / 10;
    u32::try_from(hundredths % (u128::from(u32::MAX) + 1)).unwrap_or_default()
}

fn values(root: &Oid, letter: &Letter<'_>, news: &News) -> Vec<VarBind> {
    let alert = &news.alert;
    let summary = alert.summary.get(..alert.summary.floor_char_boundary(SUMMARY)).unwrap_or_default();
    let change = match news.change {
        Change::Firing => 1,
        Change::Repeated => 2,
        Change::Resolved => 3,
    };
    let severity = match alert.severity {
        Severity::Info => 1,
        Severity::Warning => 2,
        Severity::Critical => 3,
    };
    let values = [
        Value::from(alert.id.as_str()),
        Value::from(alert.kind.as_str()),
        Value::from(severity),
        Value::from(alert.zone.as_str()),
        Value::from(alert.cluster.as_ref().map_or("", ClusterId::as_str)),
        Value::from(alert.host.as_ref().map_or("", HostId::as_str)),
        Value::from(alert.agent.as_ref().map_or("", AgentId::as_str)),
        Value::from(summary),
        Value::from(&date_and_time(alert.starts_at)[..]),
        Value::from(change),
        Value::from(letter.around.site.as_str()),
        Value::from(&*letter.delivery.id),
    ];
    let ends = alert.ends_at.filter(|_| news.change == Change::Resolved);
    let numbered = (1..).zip(values).chain(ends.map(|at| (13, Value::from(&date_and_time(at)[..]))));
    numbered.map(|(arc, value)| VarBind::new(root.child(OBJECTS).child(arc).child(0), value)).collect()
}

/// RFC 2579, DateAndTime, in UTC.
fn date_and_time(at: Timestamp) -> [u8; 11] {
    let time = at.to_zoned(TimeZone::UTC).datetime();
    let small = |number: i8| number.unsigned_abs();
    let [high, low] = time.year().unsigned_abs().to_be_bytes();
    let tenths = u8::try_from(time.subsec_nanosecond() / 100_000_000).unwrap_or_default();
    let (hour, minute, second) = (small(time.hour()), small(time.minute()), small(time.second()));
    [high, low, small(time.month()), small(time.day()), hour, minute, second, tenths, b'+', 0, 0]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::tests::{around, delivery};

    #[test]
    fn what_a_notification_holds() {
        let (around, delivery) = (around(), delivery(&[(Change::Firing, "h1"), (Change::Resolved, "h2")]));
        let letter = Letter { delivery: &delivery, around: &around, is_test: false };
        let root = Oid::from_slice(&[1, 3, 6, 1, 4, 1, 9]);
        let told: Vec<Vec<String>> = delivery
            .news
            .iter()
            .map(|news| values(&root, &letter, news).iter().map(|bound| format!("{} {}", bound.oid, bound.value)).collect())
            .collect();
        assert_eq!(told[0].len(), 12);
        assert_eq!(told[1].len(), 13, "what ended says when");
        assert_eq!(told[0][0], "1.3.6.1.4.1.9.1.1.0 bmc-lost.h1");
        assert_eq!(told[1][5], "1.3.6.1.4.1.9.1.6.0 h2");
        let kinds: Vec<u32> = delivery.news.iter().map(|news| kind(&letter, news)).collect();
        assert_eq!(kinds, [FIRING, RESOLVED]);
        let long = News {
            alert: picket_common::api::Alert { summary: "é".repeat(5_000), ..delivery.news[0].alert.clone() },
            ..delivery.news[0].clone()
        };
        let size: usize = values(&root, &letter, &long).iter().map(|bound| bound.value.to_string().len()).sum();
        assert!(size < 1_000, "{size}");
    }

    #[test]
    fn times_are_as_in_smi() {
        let at: Timestamp = "2027-01-15T08:05:06.789Z".parse().unwrap();
        assert_eq!(date_and_time(at), [0x07, 0xeb, 1, 15, 8, 5, 6, 7, b'+', 0, 0]);
    }

    #[test]
    fn an_engine_never_starts_twice_alike() {
        let folder = tempfile::tempdir().unwrap();
        let boots = |id: Option<Vec<u8>>| {
            let engines = Engines::new(folder.path(), uuid::Uuid::from_u128(7));
            let engine = engines.engine(id.as_ref()).unwrap();
            assert_eq!(engines.engine(id.as_ref()).unwrap().engine_boots(), engine.engine_boots(), "once in each process");
            engine.engine_boots()
        };
        let other = || Some(vec![1, 2, 3, 4, 5]);
        assert_eq!([boots(None), boots(None), boots(other()), boots(None), boots(other())], [1, 2, 1, 3, 2]);
        std::fs::write(folder.path().join(FILE), "{").unwrap();
        let engines = Engines::new(folder.path(), uuid::Uuid::from_u128(7));
        assert!(engines.engine(None).is_err(), "what is not known is not made up");
    }
}
