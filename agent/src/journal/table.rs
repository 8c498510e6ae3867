//! The tables, and what each record does to them.

use redb::{ReadableTableMetadata, TableDefinition, WriteTransaction};

use super::row::encode;
use crate::rack::Record;

/// Most reports kept: over a day of a busy rack cut off; beyond it the oldest go, and the aggregator is told of the gap.
pub const MAX_OUTBOX: u64 = 250_000;

pub(super) const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
pub(super) const ASSIGNMENT: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("assignment");
pub(super) const HOST: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("host");
pub(super) const OPERATION: TableDefinition<'_, (u128, &str), &[u8]> = TableDefinition::new("operation");
pub(super) const SEEN: TableDefinition<'_, (u128, &str), i64> = TableDefinition::new("seen");
pub(super) const OUTBOX: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("outbox");
pub(super) const MEMORY: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("memory");
pub(super) const FACTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("facts");
pub(super) const PASSWORD: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("password");
pub(super) const HA_SETTINGS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("ha_settings");
pub(super) const HA: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("ha");

pub(super) struct Tables<'t> {
    pub(super) meta: redb::Table<'t, &'static str, &'static [u8]>,
    assignment: redb::Table<'t, &'static str, &'static [u8]>,
    host: redb::Table<'t, &'static str, &'static [u8]>,
    operation: redb::Table<'t, (u128, &'static str), &'static [u8]>,
    seen: redb::Table<'t, (u128, &'static str), i64>,
    pub(super) outbox: redb::Table<'t, u64, &'static [u8]>,
    memory: redb::Table<'t, &'static str, &'static [u8]>,
    facts: redb::Table<'t, &'static str, &'static [u8]>,
    password: redb::Table<'t, &'static str, &'static [u8]>,
    ha_settings: redb::Table<'t, &'static str, &'static [u8]>,
    ha: redb::Table<'t, &'static str, &'static [u8]>,
}

impl<'t> Tables<'t> {
    pub(super) fn open(transaction: &'t WriteTransaction) -> Result<Self, redb::Error> {
        Ok(Self {
            meta: transaction.open_table(META)?,
            assignment: transaction.open_table(ASSIGNMENT)?,
            host: transaction.open_table(HOST)?,
            operation: transaction.open_table(OPERATION)?,
            seen: transaction.open_table(SEEN)?,
            outbox: transaction.open_table(OUTBOX)?,
            memory: transaction.open_table(MEMORY)?,
            facts: transaction.open_table(FACTS)?,
            password: transaction.open_table(PASSWORD)?,
            ha_settings: transaction.open_table(HA_SETTINGS)?,
            ha: transaction.open_table(HA)?,
        })
    }

    pub(super) fn write(&mut self, record: &Record, next: &mut u64) -> Result<(), redb::Error> {
        match record {
            Record::Host(row) => drop(self.host.insert(row.host.as_str(), encode(row)?.as_slice())?),
            Record::Assignment(row) => drop(self.assignment.insert(row.host.as_str(), encode(row)?.as_slice())?),
            Record::Remove(host) => {
                self.assignment.remove(host.as_str())?;
                self.host.remove(host.as_str())?;
                self.memory.remove(host.as_str())?;
                self.facts.remove(host.as_str())?;
            }
            Record::Generation(generation, epoch) => {
                drop(self.meta.insert("generation", encode(&(*generation, *epoch))?.as_slice())?)
            }
            Record::Operation(row) => {
                let key = (row.command.operation.0.as_u128(), row.command.host.as_str());
                self.operation.insert(key, encode(row)?.as_slice())?;
            }
            Record::OperationEnded(operation, host) => drop(self.operation.remove((operation.0.as_u128(), host.as_str()))?),
            Record::Seen(operation, host, until) => drop(self.seen.insert((operation.0.as_u128(), host.as_str()), until.0)?),
            Record::Unseen(operation, host) => drop(self.seen.remove((operation.0.as_u128(), host.as_str()))?),
            Record::Facts(row) => drop(self.facts.insert(row.host.as_str(), encode(row.as_ref())?.as_slice())?),
            Record::Password(row) => drop(self.password.insert(row.host.as_str(), encode(row.as_ref())?.as_slice())?),
            Record::PasswordEnded(host) => drop(self.password.remove(host.as_str())?),
            Record::HaRules(rules) => drop(self.meta.insert("ha", encode(rules.as_ref())?.as_slice())?),
            Record::Brakes(row) => drop(self.meta.insert("brakes", encode(row.as_ref())?.as_slice())?),
            Record::Surroundings(told) => drop(self.meta.insert("surroundings", encode(told.as_ref())?.as_slice())?),
            Record::HostHa(row) => drop(self.ha_settings.insert(row.host.as_str(), encode(row.as_ref())?.as_slice())?),
            Record::HostHaGone(host) => drop(self.ha_settings.remove(host.as_str())?),
            Record::Ha(row) => drop(self.ha.insert(row.host.as_str(), encode(row.as_ref())?.as_slice())?),
            Record::HaGone(host) => drop(self.ha.remove(host.as_str())?),
            Record::Report(report) => {
                self.outbox.insert(*next, encode(report.as_ref())?.as_slice())?;
                *next += 1;
            }
            Record::Trim(up_to) => self.outbox.retain_in(..=*up_to, |_, _| false)?,
        }
        Ok(())
    }

    pub(super) fn bound_outbox(&mut self, next: u64) -> Result<(), redb::Error> {
        let kept_from = next.saturating_sub(MAX_OUTBOX);
        if self.outbox.len()? > MAX_OUTBOX {
            self.outbox.retain_in(..kept_from, |_, _| false)?;
        }
        Ok(())
    }
}
