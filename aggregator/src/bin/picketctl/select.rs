//! Host sets of the command line: words and stdin, resolved with what the aggregator knows. The grammar is `common`'s.

use std::collections::BTreeSet;
use std::io::Read;

use picket_common::api::Host;
use picket_common::ha::HaName;
use picket_common::hostset::{Group, Groups, HostSet, Traits, fold, in_natural_order};
use picket_common::id::HostId;

use crate::client::{Client, typed};
use crate::failure::Failure;

/// Most that is read from stdin: as many of the longest names as a set may have, and then some.
const MAX_STDIN: u64 = 16 << 20;

/// The set that words of the command line make. A word `-` stands for all of stdin.
pub fn read(words: &[String]) -> Result<HostSet, Failure> {
    let mut texts = Vec::new();
    let mut stdin = Some(from_stdin);
    for word in words {
        if word == "-" {
            let read = stdin.take().ok_or_else(|| Failure::Usage("`-` may stand once".into()))?;
            texts.push(read()?);
        } else {
            texts.push(word.clone());
        }
    }
    HostSet::parse(&texts.join(" ")).map_err(|error| Failure::Usage(error.to_string()))
}

fn from_stdin() -> Result<String, Failure> {
    let mut text = String::new();
    let read = std::io::stdin().lock().take(MAX_STDIN).read_to_string(&mut text);
    read.map_err(|error| Failure::Usage(format!("stdin: {error}")))?;
    Ok(text)
}

/// The hosts that words of the command line name, as people count them; at least one.
pub async fn named(client: &Client, words: &[String]) -> Result<Vec<HostId>, Failure> {
    let set = read(words)?;
    let hosts = resolved(&set, &known(client, &set).await?)?;
    if hosts.is_empty() { Err(Failure::Nobody(words.join(" "))) } else { Ok(in_natural_order(&hosts)) }
}

/// Longest set that is sent in a URL.
pub const MAX_QUERY: usize = 2000;

/// The hosts as the aggregator shows them. One that is not there is left to what it is asked; of many, a name that is no host's is
/// a slip, and then nothing is done.
///
/// # Errors
/// [`Failure::Absent`] with the names.
pub async fn rows(client: &Client, hosts: &[HostId]) -> Result<Vec<Host>, Failure> {
    if let [host] = hosts {
        return match client.one(&format!("/v1/hosts/{host}")).await {
            Ok(row) => Ok(vec![typed(row)?]),
            Err(Failure::Problem(_)) => Ok(Vec::new()),
            Err(failure) => Err(failure),
        };
    }
    let wanted: BTreeSet<HostId> = hosts.iter().cloned().collect();
    let set = Some(fold(&wanted)).filter(|set| set.len() <= MAX_QUERY);
    let rows: Vec<Host> = list(client, &[("select", set)]).await?.into_iter().filter(|row| wanted.contains(&row.id)).collect();
    let found: BTreeSet<HostId> = rows.iter().map(|row| row.id.clone()).collect();
    let absent: BTreeSet<HostId> = wanted.difference(&found).cloned().collect();
    if absent.is_empty() { Ok(rows) } else { Err(Failure::Absent(fold(&absent))) }
}

async fn list(client: &Client, query: &[(&str, Option<String>)]) -> Result<Vec<Host>, Failure> {
    client.all("/v1/hosts", query, usize::MAX).await?.into_iter().map(typed).collect()
}

/// The hosts of a set, perhaps none.
pub fn resolved(set: &HostSet, known: &Known) -> Result<BTreeSet<HostId>, Failure> {
    set.resolve(known).map_err(|error| Failure::Usage(error.to_string()))
}

/// What the aggregator says of a set's groups.
#[derive(Default)]
pub struct Known {
    hosts: Vec<Host>,
    absent: BTreeSet<Group>,
}

impl Groups for Known {
    fn members(&self, group: &Group) -> Option<Vec<HostId>> {
        let members = self.hosts.iter().filter(|host| group.holds(&traits(host))).map(|host| host.id.clone());
        (!self.absent.contains(group)).then(|| members.collect())
    }
}

fn traits(host: &Host) -> Traits<'_> {
    let Host { zone, cluster, rack, agent, power, labels, ha, host_status, .. } = host;
    let ha = ha.as_ref().map_or(HaName::Disabled, |ha| ha.state);
    Traits { zone, cluster, rack, agent: agent.as_ref(), power: *power, ha, status: *host_status, labels }
}

/// Asks the aggregator for what a set needs to know; a set that names its hosts itself needs nothing.
pub async fn known(client: &Client, set: &HostSet) -> Result<Known, Failure> {
    let groups = set.groups();
    let mut known = Known::default();
    let Some(first) = groups.first() else { return Ok(known) };
    // One group is asked for by itself; several share one list.
    let query = if groups.len() == 1 { filter(first).into_iter().collect() } else { Vec::new() };
    known.hosts = list(client, &query).await?;
    for group in groups {
        if known.members(&group).is_some_and(|members| members.is_empty()) && is_absent(client, &group).await? {
            known.absent.insert(group);
        }
    }
    Ok(known)
}

/// The list's filter that gives the group.
fn filter(group: &Group) -> Option<(&'static str, Option<String>)> {
    match group {
        Group::Zone(id) => Some(("zone", Some(id.to_string()))),
        Group::Cluster(id) => Some(("cluster", Some(id.to_string()))),
        Group::Rack(id) => Some(("rack", Some(id.to_string()))),
        Group::State(state) => Some(("state", Some(state.to_string()))),
        Group::Ha(state) => Some(("ha", Some(state.to_string()))),
        Group::Status(status) => Some(("host_status", Some(status.to_string()))),
        Group::All | Group::Agent(_) | Group::Label { .. } => None,
    }
}

/// Whether there is no such place or agent: then its name is a slip, and not an empty group.
async fn is_absent(client: &Client, group: &Group) -> Result<bool, Failure> {
    let path = match group {
        Group::Zone(id) => format!("/v1/zones/{id}"),
        Group::Cluster(id) => format!("/v1/clusters/{id}"),
        Group::Rack(id) => format!("/v1/racks/{id}"),
        Group::Agent(id) => format!("/v1/agents/{id}"),
        Group::All | Group::State(_) | Group::Ha(_) | Group::Status(_) | Group::Label { .. } => return Ok(false),
    };
    match client.one(&path).await {
        Ok(_) => Ok(false),
        Err(Failure::Problem(problem)) if problem.status == 404 => Ok(true),
        Err(failure) => Err(failure),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn words_are_one_set() {
        let named = |text: &str| read(&words(text)).map(|set| set.expand().unwrap().len());
        assert_eq!(named("r07n[01-03] r08n01 r07n01").unwrap(), 4);
        assert_eq!(named("n[1-5] !n3").unwrap(), 4);
        assert!(named("n[1-").unwrap_err().to_string().contains("character 2"));
    }

    #[tokio::test]
    async fn a_group_that_nobody_knows_is_no_empty_group() {
        let none = r#"{"items": []}"#.to_owned();
        let absent = r#"{"type": "/problems/not-found", "title": "T", "status": 404, "detail": "d", "code": "not-found",
            "request_id": "r", "retryable": false}"#;
        let answers = [Some((200, none.clone())), Some((404, absent.to_owned())), Some((200, none)), Some((200, "{}".to_owned()))];
        let client = crate::testing::client(answers.to_vec()).await;
        let error = named(&client, &words("@rack:r9")).await.unwrap_err();
        assert!(error.to_string().contains("there is no @rack:r9") && error.exit_code() == 2, "{error}");
        let error = named(&client, &words("@rack:r1")).await.unwrap_err();
        assert!(matches!(error, Failure::Nobody(_)) && error.exit_code() == 8, "{error}");
    }
}
