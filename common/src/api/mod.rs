//! The JSON of the HTTP API and of the public MQTT tree, as both ends of each speak it. Names here are stable; changes only add.
//!
//! Times are RFC 3339 UTC, durations are whole seconds unless the name says otherwise, states are lower case.

mod agent;
mod alert;
mod audit;
mod consumer;
mod driver;
mod event;
mod field;
pub mod ha;
mod host;
mod operation;
mod problem;
mod secret;
mod settings;
mod site;
mod summary;
mod token;
mod transfer;

pub use agent::{Agent, JoinRequest, JoinResponse, JoinToken, JoinTokenRequest};
pub use alert::{
    AckRequest, Alert, AlertSilenceRequest, Change, News, Notification, Receiver, ReceiverTest, Silence, SilenceRequest,
};
pub use audit::{AuditCheckpoint, AuditEntry, AuditRecord, AuditResult, AuditVerdict};
pub use consumer::{ConsumerCertificate, ConsumerRequest};
pub use driver::{DriverInfo, DriverOption};
pub use event::{CloudEvent, EventData, EventWhat, HistoryEntry, HistoryWhat, StateDocument};
pub use field::Field;
pub use ha::HostHa;
pub use host::{
    Bmc, BmcBody, BmcPatch, Effective, EffectiveBmc, Host, HostBody, HostFacts, HostPatch, Origin, PasswordChange,
    PasswordChangeState, Valued,
};
pub use operation::{
    BootdevRequest, BulkDryRun, ChangePasswordRequest, DryRun, IdentifyRequest, Operation, OperationCounts, OperationHost,
    OperationRequest, OperationWord, PowerRequest, ResolvePasswordRequest, TestRequest,
};
pub use problem::{Page, Problem};
pub use secret::{RackSecret, RackSecrets, ResealAnswer, ResealRequest, Resealed, SecretOwner};
pub use settings::{Setting, SettingSource, SettingValue, Settings, SettingsPatch};
pub use site::{
    BmcDefaults, BmcDefaultsBody, Cluster, ClusterBody, ClusterPatch, ClusterSettings, Enablement, Rack, RackBody, Zone, ZoneBody,
};
pub use summary::{Counts, Summary};
pub use token::{NewToken, Role, Scope, Token, TokenRequest};
pub use transfer::{BmcRecord, HostRecord, ImportLine, ImportResult, LineError, MAX_IMPORT, MAX_IMPORT_HOSTS};
