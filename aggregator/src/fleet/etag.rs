//! Entity tags (RFC 9110 §8.8.3) of what can be changed, and what a request demands of them (§13.1). A tag covers settings and
//! gates, never what was observed: a host that is switched off is still the host that was read.

use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::classify::{Class, Deed, Target, classify};
use super::request::{Gate, Rejection, Request};
use super::view::{ApiTokenRow, ClusterRow, HaSet, HostRow, RackRow, SilenceRow, SiteSettings, View, ZoneRow};

/// A strong entity tag, quotes included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ETag(String);

impl ETag {
    /// Of what `settings` hold: 128 bits of their SHA-256.
    fn of(settings: &impl Serialize) -> Self {
        // Rows always have a JSON form.
        let bytes = serde_json::to_vec(settings).unwrap_or_default();
        let digest = hex::encode(Sha256::digest(&bytes));
        Self(format!("\"{}\"", digest.get(..32).unwrap_or_default()))
    }

    /// As it stands in a header.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Of a zone.
    #[must_use]
    pub fn zone(view: &View, row: &ZoneRow) -> Self {
        Self::of(&(row, ha(view, Gate::Zone(row.id.clone()))))
    }

    /// Of a cluster.
    #[must_use]
    pub fn cluster(view: &View, row: &ClusterRow) -> Self {
        Self::of(&(row, ha(view, Gate::Cluster(row.id.clone()))))
    }

    /// Of a rack; who guards it comes from joins.
    #[must_use]
    pub fn rack(row: &RackRow) -> Self {
        let RackRow { id, zone, agent: _, epoch: _ } = row;
        Self::of(&(id, zone))
    }

    /// Of a host; its enablement counts other gates too.
    #[must_use]
    pub fn host(view: &View, row: &HostRow) -> Self {
        let HostRow { id, zone, cluster, rack, oobm, enablement: _, bmc, maintenance, poll_interval, action_timeout, labels } = row;
        let ha = ha(view, Gate::Host(id.clone()));
        Self::of(&(id, zone, cluster, rack, oobm, bmc, maintenance, poll_interval, action_timeout, labels, ha))
    }

    /// Of the settings that the API sets; those of the file are changed in the file.
    #[must_use]
    pub fn settings(settings: &SiteSettings) -> Self {
        let SiteSettings { file: _, api } = settings;
        Self::of(api)
    }

    /// Of an API token.
    #[must_use]
    pub fn token(row: &ApiTokenRow) -> Self {
        Self::of(row)
    }

    /// Of a silence: one that has ended is another than it was.
    #[must_use]
    pub fn silence(row: &SilenceRow) -> Self {
        Self::of(row)
    }

    /// Of what a request is about, as it is now; none when there is no such thing, or it is nothing that is edited.
    fn current(view: &View, target: &Target<'_>) -> Option<Self> {
        match target {
            Target::Zone(id) => view.zones.get(*id).map(|row| Self::zone(view, row)),
            Target::Cluster(id, _) => view.clusters.get(*id).map(|row| Self::cluster(view, row)),
            Target::Rack(id, _) => view.racks.get(*id).map(|row| Self::rack(row)),
            Target::Host(id, ..) => view.hosts.get(*id).map(|row| Self::host(view, row)),
            Target::Token(id) => view.api_token(id).map(|row| Self::token(row)),
            Target::Settings => Some(Self::settings(&view.settings)),
            Target::Silence(id) => view.silences.get(*id).map(|row| Self::silence(row)),
            Target::Site | Target::Hosts(_) | Target::Imported(_) | Target::Operation(_) | Target::Alert(_) => None,
        }
    }
}

/// What is set of host-HA; a pause comes and goes like an operation.
fn ha(view: &View, at: Gate) -> Option<HaSet> {
    view.ha.get(&at).map(|set| HaSet { pause: None, ..(**set).clone() })
}

/// Which tags an asker accepts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tags {
    /// `*`: any, as long as there is one.
    Any,
    /// One of these.
    These(Vec<ETag>),
}

impl Tags {
    /// From a header's value; a weak tag equals no strong one (RFC 9110 §8.8.3.2), so it is left out.
    ///
    /// # Errors
    /// When it is no list of entity tags.
    pub fn parse(text: &str) -> Result<Self, NoTags> {
        let text = text.trim();
        if text == "*" {
            return Ok(Self::Any);
        }
        let mut tags = Vec::new();
        for tag in text.split(',').map(str::trim).filter(|tag| !tag.is_empty()) {
            let strong = tag.strip_prefix("W/").unwrap_or(tag);
            let inner = strong.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).ok_or(NoTags)?;
            if inner.contains('"') || inner.len() > 128 || tags.len() >= 64 {
                return Err(NoTags);
            }
            if strong.len() == tag.len() {
                tags.push(ETag(strong.to_owned()));
            }
        }
        Ok(Self::These(tags))
    }

    fn hold(&self, current: &ETag) -> bool {
        match self {
            Self::Any => true,
            Self::These(tags) => tags.contains(current),
        }
    }
}

/// Why a header is no list of entity tags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected `*` or entity tags as they were given, with their quotes")]
pub struct NoTags;

/// What an asker demands of the resource before it is changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Precondition {
    /// Nothing: the asker says what is to be, whatever is (imports, joins, the daemon itself).
    #[default]
    None,
    /// As the headers `If-Match` and `If-None-Match` say.
    Headers {
        /// It must be one of these.
        matches: Option<Tags>,
        /// It must be none of these.
        none_matches: Option<Tags>,
    },
}

impl Precondition {
    /// Whether `request` may change what is there now.
    ///
    /// # Errors
    /// [`Rejection::PreconditionRequired`], [`Rejection::PreconditionFailed`].
    pub(super) fn check(&self, view: &View, request: &Request) -> Result<(), Rejection> {
        let Self::Headers { matches, none_matches } = self else { return Ok(()) };
        let Class { target, deed, .. } = classify(request);
        if !matches!(deed, Deed::Put | Deed::Change) {
            return Ok(());
        }
        let failed = |text: String| Err(Rejection::PreconditionFailed(text));
        match (ETag::current(view, &target), matches) {
            (Some(current), _) if none_matches.as_ref().is_some_and(|tags| tags.hold(&current)) => {
                failed(format!("{target} is there already"))
            }
            (Some(_), None) => Err(Rejection::PreconditionRequired(target.to_string())),
            (Some(current), Some(tags)) if !tags.hold(&current) => {
                failed(format!("{target} was changed since it was read; it is {} now", current.as_str()))
            }
            (None, Some(_)) if deed == Deed::Put => failed(format!("{target} is not there (any more)")),
            (Some(_) | None, _) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use picket_common::api::{RackBody, ZoneBody};

    use super::super::request::{HostChange, SilenceSpec, Until};
    use super::super::testing::*;
    use super::super::{Request, Terms};
    use super::*;

    fn headers(if_match: Option<&str>, if_none_match: Option<&str>) -> Precondition {
        let tags = |text: Option<&str>| text.map(|text| Tags::parse(text).unwrap());
        Precondition::Headers { matches: tags(if_match), none_matches: tags(if_none_match) }
    }

    fn code(world: &mut World, request: Request, precondition: Precondition) -> &'static str {
        match world.ask_under(request, Terms { precondition, ..Terms::default() }) {
            Ok(_) => "ok",
            Err(Rejection::PreconditionRequired(_)) => "required",
            Err(Rejection::PreconditionFailed(_)) => "failed",
            Err(Rejection::NotFound { .. }) => "not-found",
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn what_is_there_is_changed_only_by_who_has_seen_it() {
        let put = |zone: &str| Request::PutZone(id(zone), ZoneBody {});
        let patch = || Request::PatchHost(id("h1"), HostChange { maintenance: Some(true), ..HostChange::default() });
        let stale = "\"00000000000000000000000000000000\"";
        type Row = (fn(&str) -> Request, &'static str, Option<&'static str>, Option<&'static str>, &'static str);
        let table: [Row; 14] = [
            (put, "z9", None, None, "ok"),
            (put, "z1", None, None, "required"),
            (put, "z1", None, Some("*"), "failed"),
            (put, "z8", None, Some("*"), "ok"),
            (put, "z1", Some("*"), None, "ok"),
            (put, "z7", Some("*"), None, "failed"),
            (put, "z1", Some(stale), None, "failed"),
            (put, "z1", Some("THE TAG"), None, "ok"),
            (put, "z1", Some("W/THE TAG"), None, "failed"),
            (|_| Request::DeleteHost(id("h9")), "z1", None, None, "not-found"),
            (|_| Request::DeleteHost(id("h9")), "z1", Some(stale), None, "not-found"),
            (|_| Request::DeleteHost(id("h1")), "z1", None, None, "required"),
            (|_| Request::PutRack(id("r1"), RackBody { zone: id("z1") }), "z1", None, None, "required"),
            (|_| Request::SetOobm(Gate::Host(id("h1")), false), "z1", None, None, "ok"),
        ];
        for (request, zone, if_match, if_none_match, wanted) in table {
            let mut world = World::running(1);
            let tag = ETag::zone(&world.fleet.view(), &world.fleet.view().zones[&id::<picket_common::id::ZoneId>("z1")]);
            let if_match = if_match.map(|text| text.replace("THE TAG", tag.as_str()));
            let request = request(zone);
            let name = format!("{request:?} {if_match:?} {if_none_match:?}");
            assert_eq!(code(&mut world, request, headers(if_match.as_deref(), if_none_match)), wanted, "{name}");
        }
        let mut world = World::running(1);
        assert_eq!(code(&mut world, patch(), headers(None, None)), "required");
        assert_eq!(code(&mut world, patch(), Precondition::None), "ok");
    }

    #[test]
    fn a_hosts_tag_is_that_of_its_settings() {
        let mut world = World::running(2);
        let tag = |world: &World| ETag::host(&world.fleet.view(), &world.host("h1"));
        let before = tag(&world);
        world.report("r1", vec![world.power_report("h1", picket_common::power::PowerState::On)]);
        world.ask(Request::SetOobm(Gate::Cluster(id("c1")), false)).unwrap();
        world.gone("r1", 1);
        assert_eq!(tag(&world), before, "what is observed, and gates of others, are no settings of the host");
        world.enable("h1", false);
        let closed = tag(&world);
        assert_ne!(closed, before);
        let change = HostChange { maintenance: Some(true), ..HostChange::default() };
        world.ask(Request::PatchHost(id("h1"), change)).unwrap();
        assert_ne!(tag(&world), closed);
    }

    #[test]
    fn a_silence_is_ended_by_who_has_seen_it() {
        let mut world = World::running(1);
        let until = Until::After(std::time::Duration::from_secs(60));
        let spec = SilenceSpec::new("s1".into(), vec!["host=h1".parse().unwrap()], None, until, None);
        world.ask(Request::AddSilence(spec)).unwrap();
        let tag = |world: &World| ETag::silence(&world.fleet.view().silences["s1"]).as_str().to_owned();
        let (before, end) = (tag(&world), |id: &str| Request::EndSilence(id.into()));
        assert_eq!(code(&mut world, end("s9"), headers(None, None)), "not-found");
        assert_eq!(code(&mut world, end("s1"), headers(None, None)), "required");
        assert_eq!(code(&mut world, end("s1"), headers(Some("\"x\""), None)), "failed");
        assert_eq!(code(&mut world, end("s1"), headers(Some(&before), None)), "ok");
        assert_ne!(tag(&world), before, "it has ended: that is another one");
        assert_eq!(code(&mut world, end("s1"), headers(Some(&before), None)), "failed");
    }

    #[test]
    fn headers_are_read_strictly() {
        assert_eq!(Tags::parse(" * "), Ok(Tags::Any));
        let two = Tags::parse("\"a\" , W/\"b\",\"c\"").unwrap();
        assert_eq!(two, Tags::These(vec![ETag("\"a\"".into()), ETag("\"c\"".into())]));
        for bad in ["a", "\"a", "\"a\" \"b\"", "w/\"a\"", &format!("\"{}\"", "x".repeat(129))] {
            assert_eq!(Tags::parse(bad), Err(NoTags), "{bad}");
        }
    }
}
