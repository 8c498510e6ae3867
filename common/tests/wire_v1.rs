//! Version 1's bytes, frozen: every message encodes to the bytes of `corpus/v1.hex`, and they decode to it. A difference here
//! means that agents and aggregators of two releases no longer understand each other: it needs version 2, beside this one.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod hostile;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::str::FromStr;

use picket_common::command::{Action, BmcError, BootDevice, ErrorClass, Outcome, Persistence, Refusal};
use picket_common::facts::{Capability, Facts};
use picket_common::id::{AgentId, HostId, OperationId};
use picket_common::power::{Cause, Management, PowerOperation, PowerState};
use picket_common::seal::{Belongs, Sealed, key_pair, open};
use picket_common::secret::Secret;
use picket_common::wire::assign::{Assign, BmcAssignment, Delta, HostAssignment, Part, SiteSettings};
use picket_common::wire::codec::{self, Message, SigningKey, VerifyingKey};
use picket_common::wire::down::{ChangePassword, Command, PowerCommand, Reply};
use picket_common::wire::report::{
    FactsReport, Gone, Heartbeat, Hello, InForce, ManagementReport, OperationReport, PasswordReport, PowerReport, Progress, Report,
    Reports, Snapshot, Up,
};
use picket_common::wire::{Generation, Incarnation, Session, Time};
use uuid::Uuid;

const HOST: &str = "r07n01";
const ADDRESS: &str = "10.0.0.1";
const LOGIN: &str = "admin";
const PASSWORD: &str = "s3cret";

/// The stored bytes by name: a line is a name, a blank, and hex; `#` starts a comment.
fn corpus() -> BTreeMap<&'static str, Vec<u8>> {
    let lines = include_str!("corpus/v1.hex").lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| line.split_once(' ').unwrap()).map(|(name, bytes)| (name, hex::decode(bytes).unwrap())).collect()
}

fn stored(name: &str) -> Vec<u8> {
    corpus().remove(name).unwrap_or_default()
}

fn id<T: FromStr<Err: Debug>>(text: &str) -> T {
    text.parse().unwrap()
}

fn agent() -> AgentId {
    id("r07")
}

fn key() -> SigningKey {
    SigningKey::from_seed(&Secret::new([7; 32])).unwrap()
}

fn trusted() -> [VerifyingKey; 1] {
    [key().verifying_key()]
}

fn frozen_up<M: Message + PartialEq + Debug>(name: &str, message: &M) {
    let frame = codec::encode(message).unwrap();
    assert_eq!(hex::encode(&frame), hex::encode(stored(name)), "{name}");
    assert_eq!(codec::decode::<M>(&frame).unwrap(), *message, "{name}");
}

fn frozen_down<M: Message + PartialEq + Debug>(name: &str, message: &M) {
    let frame = codec::sign(&key(), &agent(), message).unwrap();
    assert_eq!(hex::encode(&frame), hex::encode(stored(name)), "{name}");
    assert_eq!(codec::verify::<M>(&trusted(), &agent(), &frame).unwrap(), *message, "{name}");
}

const BOOT: Incarnation = Incarnation(Uuid::from_u128(0x0199_0000_0000_4000_8000_0000_0000_0001));
const SESSION: Session = Session(Uuid::from_u128(0x0199_0000_0000_4000_8000_0000_0000_0002));
const OPERATION: OperationId = OperationId(Uuid::from_u128(0x0199_0000_0000_7000_8000_0000_0000_0003));
const AT: Time = Time(1_790_000_000_123_456);
const BEFORE_1970: Time = Time(-1);

const fn generation(counter: u64) -> Generation {
    Generation { store: Uuid::from_u128(0x0199_0000_0000_4000_8000_0000_0000_0004), counter }
}

fn error(class: ErrorClass) -> BmcError {
    BmcError { driver: "ipmi".into(), class, code: "timeout".into(), text: "no answer".into() }
}

fn reports(reports: Vec<Report>) -> Up {
    Up::Reports(Reports { boot: BOOT, oldest: 1, first: 300, reports })
}

#[test]
fn power_reports() {
    let report = |old, new, cause, error| {
        Report::Power(PowerReport { host: id(HOST), enablement: 5, old, new, cause, observed_at: AT, error })
    };
    let causes = [Cause::Poll, Cause::Command(OPERATION), Cause::Enablement];
    let mut all: Vec<_> = PowerState::ALL.map(|state| report(state, PowerState::Unknown, Cause::Poll, None)).into();
    all.extend(PowerState::ALL.map(|state| report(PowerState::Unknown, state, Cause::Poll, None)));
    all.extend(causes.map(|cause| report(PowerState::On, PowerState::Off, cause, None)));
    all.push(report(PowerState::On, PowerState::Unknown, Cause::Poll, Some(error(ErrorClass::Connection))));
    frozen_up("up-reports-power", &reports(all));
}

#[test]
fn management_reports() {
    use ErrorClass::{Auth, Connection, Deadline, Protocol, Refused, Setting};
    use Management::{AuthBlocked, Degraded, Lost, Reachable};
    let report = |new, error| {
        Report::Management(ManagementReport { host: id(HOST), enablement: u64::MAX, new, observed_at: BEFORE_1970, error })
    };
    let mut all: Vec<_> = [Reachable, Degraded, AuthBlocked, Lost].map(|state| report(state, None)).into();
    all.extend([Connection, Auth, Setting, Refused, Protocol, Deadline].map(|class| report(Degraded, Some(error(class)))));
    frozen_up("up-reports-management", &reports(all));
}

#[test]
fn operation_reports() {
    let report = |progress| Report::Operation(OperationReport { operation: OPERATION, host: id(HOST), at: AT, progress });
    let done = |outcome| report(Progress::Done(outcome));
    let mut all = vec![report(Progress::Admitted)];
    all.extend([Outcome::Changed, Outcome::Unchanged].map(done));
    all.extend(PowerState::ALL.map(|state| done(Outcome::Read(state))));
    // Those of host-HA came later, at the end.
    all.extend(Refusal::ALL.into_iter().take(13).map(|refusal| done(Outcome::Refused(refusal))));
    all.push(done(Outcome::Failed(error(ErrorClass::Refused))));
    all.extend([Outcome::Expired, Outcome::Cancelled, Outcome::Unknown("the BMC fell silent".into())].map(done));
    frozen_up("up-reports-operation", &reports(all));
}

#[test]
fn snapshots() {
    let report = |management, error| {
        Report::Snapshot(Snapshot {
            host: id(HOST),
            enablement: 0,
            power: PowerState::Off,
            power_since: AT,
            management,
            management_since: BEFORE_1970,
            error,
        })
    };
    let all = vec![report(None, None), report(Some(Management::Lost), Some(error(ErrorClass::Connection)))];
    frozen_up("up-reports-snapshot", &reports(all));
}

#[test]
fn heartbeat() {
    let heartbeat = |generation, overdue| {
        Up::Heartbeat(Heartbeat { session: SESSION, boot: BOOT, generation, next: 301, outbox: 2, overdue, nonce: u64::MAX })
    };
    frozen_up("up-heartbeat", &heartbeat(Some(generation(9)), vec![id(HOST), id("r07n02")]));
    frozen_up("up-heartbeat-first", &heartbeat(None, Vec::new()));
}

#[test]
fn hello() {
    let hello = |generation| Hello {
        session: SESSION,
        boot: BOOT,
        version: "0.1.0".into(),
        generation,
        oldest: 1,
        next: 301,
        nonce: 0x0102_0304_0506_0708,
    };
    frozen_up("hello", &hello(Some(generation(9))));
    frozen_up("hello-first", &hello(None));
}

#[test]
fn gone() {
    frozen_up("gone", &Gone { session: SESSION });
}

#[test]
fn replies() {
    frozen_down("ack", &Reply::Ack { boot: BOOT, up_to: 300 });
    frozen_down("resend", &Reply::Resend { boot: BOOT, from: 299 });
    frozen_down("clock", &Reply::Clock { nonce: 0x0102_0304_0506_0708, at: AT });
}

#[test]
fn commands() {
    for action in PowerOperation::ALL {
        let command = PowerCommand {
            operation: OPERATION,
            host: id(HOST),
            action: action.into(),
            on_if_off: action == PowerOperation::Cycle,
            deadline: AT,
            epoch: 1,
            generation: generation(9),
            enablement: 5,
        };
        frozen_down(&format!("power-{action}"), &Command::Power(command));
    }
    frozen_down("cancel", &Command::Cancel { operation: OPERATION, host: id(HOST) });
}

fn command(action: Action) -> PowerCommand {
    PowerCommand {
        operation: OPERATION,
        host: id(HOST),
        action,
        on_if_off: false,
        deadline: AT,
        epoch: 1,
        generation: generation(9),
        enablement: 5,
    }
}

#[test]
fn commands_beside_power() {
    let bootdev = |device, persistence| Action::Bootdev { device, persistence };
    for (name, action) in [
        ("identify", Action::Identify { seconds: 15 }),
        ("bootdev-none", bootdev(BootDevice::None, Persistence::Once)),
        ("bootdev-pxe", bootdev(BootDevice::Pxe, Persistence::Once)),
        ("bootdev-disk", bootdev(BootDevice::Disk, Persistence::Persistent)),
        ("bootdev-bios", bootdev(BootDevice::Bios, Persistence::Persistent)),
        ("test", Action::Test),
    ] {
        frozen_down(name, &Command::Power(command(action)));
    }
    let change = ChangePassword {
        command: command(Action::ChangePassword),
        password: Sealed(stored("sealed")),
        base_revision: 3,
        revision: 4,
    };
    frozen_down("change-password", &Command::ChangePassword(change));
}

#[test]
fn facts_and_passwords() {
    use Capability::{Bootdev, ChangePassword, Diag, Identify, Power, Reset, Soft};
    let facts = Facts {
        identity: Some("4c4c4544-0042".into()),
        manufacturer: Some("343".into()),
        product: Some("X".into()),
        firmware: Some("1.2".into()),
        protocol: Some("IPMI 2.0, cipher suite 17".into()),
        privilege: Some("operator".into()),
        certificate: Some("00ff".into()),
        latency_us: Some(700),
        capabilities: vec![Power, Soft, Reset, Diag, Identify, Bootdev, ChangePassword],
        quirks: vec!["opensesspriv".into()],
        warnings: vec!["cipher-suite-3".into()],
    };
    let learned = |facts| Report::Facts(FactsReport { host: id(HOST), revision: 3, observed_at: AT, facts });
    let password = |in_force| {
        Report::Password(PasswordReport { host: id(HOST), operation: OPERATION, revision: 4, observed_at: AT, in_force })
    };
    let mut all = vec![learned(facts), learned(Facts::default())];
    all.extend([InForce::New, InForce::Old, InForce::Neither].map(password));
    frozen_up("up-reports-facts", &reports(all));
}

/// A host whose BMC has everything set, its password sealed to a known key.
fn host() -> HostAssignment {
    HostAssignment {
        host: id(HOST),
        zone: id("z1"),
        cluster: id("c1"),
        enablement: 5,
        refusal: None,
        bmc: Some(BmcAssignment {
            driver: "ipmi".into(),
            address: ADDRESS.into(),
            port: Some(623),
            username: LOGIN.into(),
            password: Some(Sealed(stored("sealed"))),
            options: vec![("suite".into(), "17".into())],
            revision: 3,
        }),
        poll_interval_ms: 10_000,
    }
}

/// A host with as little as possible.
fn bare_host() -> HostAssignment {
    HostAssignment { host: id("r07n02"), refusal: Some(Refusal::HostNotConfigured), bmc: None, ..host() }
}

/// A host whose BMC has only what it must have.
fn plain_host() -> HostAssignment {
    let bmc = host().bmc.map(|bmc| BmcAssignment { port: None, password: None, options: Vec::new(), ..bmc });
    HostAssignment { host: id("r07n03"), refusal: Some(Refusal::PasswordNeeded), bmc, ..host() }
}

#[test]
fn assignments() {
    let part = Part { generation: generation(9), epoch: 1, part: 1, of: 2, hosts: vec![host(), bare_host(), plain_host()] };
    frozen_down("assign-part", &Assign::Part(part));
    let delta =
        Delta { base: generation(9), generation: generation(10), epoch: 1, upsert: vec![host()], remove: vec![id("r07n02")] };
    frozen_down("assign-delta", &Assign::Delta(delta));
    frozen_down("assign-settings", &Assign::Settings(SiteSettings { version: generation(11), max_in_flight: 50 }));
}

#[test]
fn a_password_sealed_by_an_earlier_release_opens() {
    let (private, _) = key_pair(&Secret::new([9; 32]));
    let host: HostId = id(HOST);
    let belongs = Belongs::Host { host: &host, address: ADDRESS, username: LOGIN };
    assert_eq!(open(&private, belongs, &Sealed(stored("sealed"))).unwrap().expose(), PASSWORD);
}

#[test]
fn the_key_id_is_frozen() {
    assert_eq!(hex::encode(key().verifying_key().id()), hex::encode(stored("key-id")));
}
