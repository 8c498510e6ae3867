//! Asking before much is touched: one host is not asked about, a few by y/N, many by typing their number or the name of what they
//! are all of. Without a terminal nobody can be asked, and then nothing is done.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, IsTerminal, Write};

use picket_common::api::{Counts, Host, Summary};
use picket_common::hostset;
use picket_common::id::HostId;

use crate::client::{Client, typed};
use crate::failure::Failure;
use crate::select::rows;

/// More hosts than this take their number to be typed.
const TYPE_THE_COUNT: usize = 10;

/// Longest host set in a question, in characters.
const SHOWN: usize = 60;

/// What about the hosts a person should know before they are touched.
#[derive(Debug, Default, PartialEq, Eq)]
struct Stakes {
    /// Those that people work on.
    maintenance: BTreeSet<HostId>,
    /// The zone, or else the cluster, of which they are all: `cluster c1`, `c1`.
    whole: Option<(String, String)>,
}

fn weighed(hosts: &[Host], summary: &Summary) -> Stakes {
    let zones = whole(hosts.iter().map(|host| &host.zone), &summary.zones);
    let clusters = whole(hosts.iter().map(|host| &host.cluster), &summary.clusters);
    let named = |kind: &str, name: String| (format!("{kind} {name}"), name);
    Stakes {
        maintenance: hosts.iter().filter(|host| host.maintenance).map(|host| host.id.clone()).collect(),
        whole: zones.map(|zone| named("zone", zone)).or_else(|| clusters.map(|cluster| named("cluster", cluster))),
    }
}

/// The first place that has no other hosts than these.
fn whole<'a, K: Ord + ToString + 'a>(places: impl Iterator<Item = &'a K>, all: &BTreeMap<K, Counts>) -> Option<String> {
    let mut touched: BTreeMap<&K, u64> = BTreeMap::new();
    for place in places {
        *touched.entry(place).or_default() += 1;
    }
    let is_whole = |place: &K, touched: u64| {
        all.get(place).is_some_and(|counts| counts.on + counts.off + counts.unknown + counts.disabled <= touched)
    };
    touched.into_iter().find(|(place, touched)| is_whole(place, *touched)).map(|(place, _)| place.to_string())
}

/// What a person is asked, and the answers that mean yes.
#[derive(Debug, PartialEq, Eq)]
struct Question {
    text: String,
    yes: Vec<String>,
}

fn question(what: &str, hosts: &[HostId], whole: Option<&(String, String)>) -> Option<Question> {
    let count = hosts.len();
    if count < 2 {
        return None;
    }
    let set = hostset::fold(&hosts.iter().cloned().collect());
    let shown = if set.chars().count() > SHOWN { set.chars().take(SHOWN).chain(['…']).collect() } else { set };
    let question = |text: String, yes: &[&str]| Question { text, yes: yes.iter().map(|yes| (*yes).to_owned()).collect() };
    Some(match whole {
        Some((place, name)) => question(format!("{what} {count} hosts, all of {place} ({shown})? Type {name}: "), &[name]),
        None if count > TYPE_THE_COUNT => {
            let number = count.to_string();
            question(format!("{what} {count} hosts ({shown})? Type their number: "), &[&number])
        }
        None => question(format!("{what} {count} hosts ({shown})? [y/N] "), &["y", "Y", "yes", "Yes", "YES"]),
    })
}

/// Looks at the hosts, warns of those in maintenance, and asks unless `yes`.
///
/// # Errors
/// [`Failure::Usage`] when the answer is no, or nobody is there to answer; [`Failure::Absent`].
pub async fn confirm(client: &Client, what: &str, hosts: &[HostId], yes: bool) -> Result<(), Failure> {
    let rows = rows(client, hosts).await?;
    let summary: Summary = if hosts.len() > 1 { typed(client.one("/v1/summary").await?)? } else { Summary::default() };
    let stakes = weighed(&rows, &summary);
    if !stakes.maintenance.is_empty() {
        let set = hostset::fold(&stakes.maintenance);
        eprintln!("warning: in maintenance, somebody may be working on it: {set}");
    }
    match question(what, hosts, stakes.whole.as_ref()) {
        Some(question) if !yes => ask(&question.text, &question.yes),
        _ => Ok(()),
    }
}

/// Asks; the answer must be one of `yes`.
///
/// # Errors
/// As [`confirm`].
pub fn ask(text: &str, yes: &[String]) -> Result<(), Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::Usage(
            "this touches more than one host and nobody can be asked: say --yes, or look with --dry-run".into(),
        ));
    }
    let local = |error: std::io::Error| Failure::Local(format!("the terminal: {error}"));
    eprint!("{text}");
    std::io::stderr().flush().map_err(local)?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer).map_err(local)?;
    if yes.iter().any(|yes| yes == answer.trim()) { Ok(()) } else { Err(Failure::Usage("not confirmed; nothing was done".into())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(set: &str) -> Vec<HostId> {
        hostset::in_natural_order(&set.parse::<hostset::HostSet>().unwrap().expand().unwrap())
    }

    #[test]
    fn the_more_the_harder_to_say_yes() {
        let asked = |set: &str, whole: Option<(&str, &str)>| {
            let whole = whole.map(|(place, name)| (place.to_owned(), name.to_owned()));
            question("Power off", &hosts(set), whole.as_ref()).map(|question| (question.text, question.yes.concat()))
        };
        assert_eq!(asked("n1", Some(("cluster c1", "c1"))), None);
        for (set, whole, text, yes) in [
            ("n[1-2]", None, "Power off 2 hosts (n[1-2])? [y/N] ", "yYyesYesYES"),
            ("n[1-10]", None, "Power off 10 hosts (n[1-10])? [y/N] ", "yYyesYesYES"),
            ("n[1-11]", None, "Power off 11 hosts (n[1-11])? Type their number: ", "11"),
            ("n[1-2]", Some(("cluster c1", "c1")), "Power off 2 hosts, all of cluster c1 (n[1-2])? Type c1: ", "c1"),
        ] {
            assert_eq!(asked(set, whole), Some((text.to_owned(), yes.to_owned())), "{set}");
        }
        let (text, _) = asked("a,b,c,d,e,f,g,h,i,j,k,l,m,o,p,q,r,s,t,u,v,w,x,y,z,aa,bb,cc,dd,ee,ff", None).unwrap();
        assert!(text.contains(",…)") || text.contains('…'), "{text}");
    }

    #[test]
    fn a_whole_cluster_or_zone_is_seen() {
        let host = |id: &str, cluster: &str, maintenance: bool| -> Host {
            typed(serde_json::json!({"id": id, "zone": "z1", "cluster": cluster, "rack": "r1", "agent": null, "power": "on",
                "power_since": "2026-01-01T00:00:00Z", "management": null, "management_since": null, "fresh_at": null, "stale": false,
                "oobm_enabled": true, "maintenance": maintenance, "bmc": null, "poll_interval": 10, "action_timeout": 60, "labels": {}}))
            .unwrap()
        };
        let hosts = [host("a1", "a", false), host("a2", "a", true), host("b1", "b", false)];
        let counts = |on| Counts { on, off: 1, ..Counts::default() };
        let mut summary = Summary::default();
        for (cluster, on) in [("a", 2), ("b", 1), ("c", 0)] {
            summary.clusters.insert(cluster.parse().unwrap(), counts(on));
        }
        summary.zones.insert("z1".parse().unwrap(), counts(3));
        let whole = |summary: &Summary| weighed(&hosts, summary).whole.map(|(place, _)| place);
        assert_eq!(weighed(&hosts, &summary).maintenance, std::iter::once("a2".parse().unwrap()).collect());
        assert_eq!(whole(&summary), None);
        summary.clusters.insert("a".parse().unwrap(), counts(1));
        assert_eq!(whole(&summary).as_deref(), Some("cluster a"));
        summary.zones.insert("z1".parse().unwrap(), counts(2));
        assert_eq!(whole(&summary).as_deref(), Some("zone z1"));
    }
}
