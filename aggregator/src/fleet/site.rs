//! The site's settings at run time: the file's, and what the API set over them. A change is in force at once.

use picket_common::api::{Field, SettingsPatch};
use picket_common::clock::Now;
use picket_common::driver::{self, OptionKind};
use picket_common::id::AgentId;
use picket_common::wire::Generation;
use picket_common::wire::assign::{Assign, MAX_IN_FLIGHT, SiteSettings as ToldSettings};

use super::bmc::invalid;
use super::request::{Answer, Rejection};
use super::settings::check_seconds;
use super::view::{HostRow, Row, Settings, SettingsRow, SiteSettings};
use super::{Effect, Fleet, Told, effective};

impl Fleet {
    /// Changes what the API set; it is kept in the store.
    pub(super) fn patch_settings(&mut self, patch: SettingsPatch, now: Now) -> Result<Answer, Rejection> {
        let before = self.view.settings.api.clone();
        let api = Settings {
            sync_interval: patch.sync_interval.over(before.sync_interval),
            action_timeout: patch.action_timeout.over(before.action_timeout),
            sync_poolsize: small("sync_poolsize", patch.sync_poolsize)?.over(before.sync_poolsize),
            ipmitool_interface: patch.ipmitool_interface.over(before.ipmitool_interface),
            ipmitool_retries: small("ipmitool.retries", patch.ipmitool_retries)?.over(before.ipmitool_retries),
        };
        check(&api)?;
        if api != self.view.settings.api {
            let json = serde_json::to_string(&api).map_err(|error| invalid("settings", error.to_string()))?;
            self.options_may_change(&api)?;
            self.draft.put(Row::Settings(SettingsRow { json }));
            self.change_site(SiteSettings { api, ..self.view.settings.clone() }, now);
        }
        Ok(Answer::Done { created: false })
    }

    /// To an agent other settings of a BMC end a password change, and nobody would learn how.
    fn options_may_change(&self, api: &Settings) -> Result<(), Rejection> {
        let options = |settings: &Settings| (settings.ipmitool_interface.clone(), settings.ipmitool_retries);
        if options(api) == options(&self.view.settings.api) {
            return Ok(());
        }
        let takes_options =
            |host: &&HostRow| effective::bmc(&self.view, host).is_some_and(|bmc| bmc.driver.value == driver::IPMITOOL.name);
        let hosts = self.view.pending.keys().filter_map(|host| self.view.hosts.get(host)).map(|row| &**row);
        hosts.filter(takes_options).try_for_each(|host| self.no_password_change(&host.id))
    }

    /// The aggregator's file was read again.
    pub(super) fn configured(&mut self, file: Settings, now: Now) {
        if file != self.view.settings.file {
            self.change_site(SiteSettings { file, ..self.view.settings.clone() }, now);
        }
    }

    fn change_site(&mut self, settings: SiteSettings, now: Now) {
        let hosts: Vec<_> = self.view.hosts.keys().cloned().collect();
        let assigned = self.assigned_to(hosts.iter());
        let poolsize = |settings: &SiteSettings| effective::site(settings, |one| one.sync_poolsize);
        let is_told = poolsize(&settings) != poolsize(&self.view.settings);
        self.view.settings = settings;
        self.retell_all(assigned, now);
        if is_told {
            self.settings_version += 1;
            let hear = self.links.iter().filter(|(_, link)| link.session.is_some()).map(|(agent, _)| agent.clone());
            for agent in hear.collect::<Vec<_>>() {
                self.tell_settings(&agent);
            }
        }
    }

    /// Tells an agent the settings of the site that agents follow.
    pub(super) fn tell_settings(&mut self, agent: &AgentId) {
        let most = effective::site(&self.view.settings, |one| one.sync_poolsize).unwrap_or(MAX_IN_FLIGHT);
        let version = Generation { store: self.life, counter: self.settings_version };
        let told = Assign::Settings(ToldSettings { version, max_in_flight: most.clamp(1, MAX_IN_FLIGHT) });
        self.draft.assigns.push(Effect::Tell(agent.clone(), Told::Assign(vec![told])));
    }
}

fn small(field: &'static str, number: Field<u64>) -> Result<Field<u32>, Rejection> {
    match number {
        Field::Keep => Ok(Field::Keep),
        Field::Unset => Ok(Field::Unset),
        Field::Set(number) => {
            u32::try_from(number).map(Field::Set).map_err(|_| invalid(field, format!("{number} is far too many")))
        }
    }
}

/// Whether settings of one source are within their bounds.
///
/// # Errors
/// [`Rejection::Invalid`] naming the setting.
pub fn check(settings: &Settings) -> Result<(), Rejection> {
    check_seconds("sync_interval", settings.sync_interval)?;
    check_seconds("action_timeout", settings.action_timeout)?;
    if let Some(most) = settings.sync_poolsize.filter(|most| !(1..=MAX_IN_FLIGHT).contains(most)) {
        return Err(invalid("sync_poolsize", format!("{most} is not within 1 to {MAX_IN_FLIGHT}")));
    }
    let interface = settings.ipmitool_interface.clone();
    check_option("ipmitool.interface", "interface", interface)?;
    check_option("ipmitool.retries", "retries", settings.ipmitool_retries.map(|retries| retries.to_string()))
}

/// Whether a default for an option of `ipmitool` is a value that its driver takes.
fn check_option(field: &'static str, name: &str, value: Option<String>) -> Result<(), Rejection> {
    let option = driver::IPMITOOL.options.iter().find(|option| option.name == name);
    let (Some(value), Some(option)) = (value, option) else { return Ok(()) };
    let wanted = match option.kind {
        OptionKind::Number(least, most) if !value.parse().is_ok_and(|n: u32| (least..=most).contains(&n)) => {
            format!("within {least} to {most}")
        }
        OptionKind::OneOf(words) if !words.contains(&value.as_str()) => format!("one of {}", words.join(", ")),
        _ => return Ok(()),
    };
    let shown: String = value.chars().take(32).collect();
    Err(invalid(field, format!("{shown:?} is not {wanted}")))
}

#[cfg(test)]
mod tests {
    use picket_common::wire::assign::Delta;

    use super::super::testing::*;
    use super::super::{Event, Request, Telling};
    use super::*;

    fn patch(edit: impl FnOnce(&mut SettingsPatch)) -> Request {
        let mut patch = SettingsPatch::default();
        edit(&mut patch);
        Request::PatchSettings(patch)
    }

    fn delta(world: &World) -> Delta {
        match &world.assigns("r1")[..] {
            [Assign::Delta(delta)] => delta.clone(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_poll_interval_is_in_force_at_once_and_survives() {
        let mut world = World::running(2);
        world.ask(patch(|patch| patch.sync_interval = Field::Set(3))).unwrap();
        let told = delta(&world);
        assert_eq!(told.upsert.iter().map(|host| host.poll_interval_ms).collect::<Vec<_>>(), [3000, 3000]);
        let revision = |world: &World| world.fleet.view().hosts.values().next().unwrap().bmc.as_ref().unwrap().revision;
        let before = revision(&world);
        world.ask(patch(|patch| patch.sync_interval = Field::Set(3))).unwrap();
        assert_eq!((world.records, world.effects.len()), (0, 0), "again changes nothing");
        world.restart();
        assert_eq!(world.fleet.view().settings.api.sync_interval, Some(3));
        world.hello("r1", 2, 1);
        world.settle("r1", 2);
        let settings = Settings { sync_interval: Some(7), ..Settings::default() };
        world.apply(Event::Configured(Box::new(settings), Telling::default()));
        assert!(world.assigns("r1").is_empty(), "what the API set goes before the file");
        world.ask(patch(|patch| patch.sync_interval = Field::Unset)).unwrap();
        assert_eq!(delta(&world).upsert[0].poll_interval_ms, 7000);
        assert_eq!(revision(&world), before, "the BMC is the same");
    }

    #[test]
    fn options_reach_the_hosts_of_their_driver() {
        let mut world = World::running(2);
        let mut bmc = ipmi("10.0.0.2");
        bmc.driver = Field::Set("ipmitool".into());
        world.ask(Request::PutHost(id("h2"), spec("c1", "r1", Some(bmc)))).unwrap();
        world.ask(patch(|patch| patch.ipmitool_interface = Field::Set("lan".into()))).unwrap();
        let told = delta(&world);
        assert_eq!(told.upsert.len(), 1);
        assert_eq!(told.upsert[0].bmc.as_ref().unwrap().options, [("interface".to_owned(), "lan".to_owned())]);
    }

    #[test]
    fn agents_hear_the_pool_size_when_they_come_and_when_it_changes() {
        let mut world = World::running(1);
        let told = |world: &World| world.site_settings("r1").iter().map(|told| told.max_in_flight).collect::<Vec<_>>();
        world.ask(patch(|patch| patch.sync_poolsize = Field::Set(50))).unwrap();
        assert_eq!(told(&world), [50]);
        let version = world.site_settings("r1")[0].version.counter;
        world.hello("r1", 2, 1);
        assert_eq!(told(&world), [50]);
        world.ask(patch(|patch| patch.sync_poolsize = Field::Unset)).unwrap();
        assert_eq!(told(&world), [MAX_IN_FLIGHT], "the agent's own file alone bounds it");
        assert!(world.site_settings("r1")[0].version.counter > version);
        world.gone("r1", 2);
        world.ask(patch(|patch| patch.sync_poolsize = Field::Set(7))).unwrap();
        assert!(told(&world).is_empty());
    }

    #[test]
    fn bounds() {
        let mut world = World::of(0);
        for (wanted, request) in [
            ("sync_interval", patch(|patch| patch.sync_interval = Field::Set(0))),
            ("action_timeout", patch(|patch| patch.action_timeout = Field::Set(3601))),
            ("sync_poolsize", patch(|patch| patch.sync_poolsize = Field::Set(0))),
            ("sync_poolsize", patch(|patch| patch.sync_poolsize = Field::Set(1 << 40))),
            ("ipmitool.interface", patch(|patch| patch.ipmitool_interface = Field::Set("serial".into()))),
            ("ipmitool.retries", patch(|patch| patch.ipmitool_retries = Field::Set(11))),
        ] {
            match world.ask(request) {
                Err(Rejection::Invalid { field, .. }) => assert_eq!(field, wanted),
                other => panic!("{wanted}: {other:?}"),
            }
        }
    }
}
