//! Answers kept under idempotency keys: (token, key) → version byte and JSON. Bounded per token by count and age, in the
//! transaction that adds one; those of a revoked token go with it.

use jiff::{SignedDuration, Timestamp};
use redb::{ReadTransaction, ReadableTable as _, Table, TableDefinition, WriteTransaction};

use super::{Cause, StoreError};
use crate::fleet::view::{RowKey, token_id};
use crate::fleet::{AnswerKey, KeptAnswer, Record};

/// (token id, key) → [`VERSION`], JSON.
const ANSWERS: TableDefinition<'_, (&str, &str), &[u8]> = TableDefinition::new("answers");
/// (token id, microseconds, key): the oldest of each token.
const AGES: TableDefinition<'_, (&str, i64, &str), ()> = TableDefinition::new("answer_ages");
/// Token id → answers kept, so that nobody has to count.
const COUNTS: TableDefinition<'_, &str, u64> = TableDefinition::new("answer_counts");
const VERSION: u8 = 1;

/// How long an answer is kept.
pub(super) const KEEP: SignedDuration = SignedDuration::from_hours(24);
/// Most answers of a token: at 2 KB each 20 MB.
pub(super) const MAX_ANSWERS: u64 = 10_000;
/// Most old answers of a token dropped in one commit.
const MAX_DROPPED: usize = 64;

pub(super) fn make(transaction: &WriteTransaction) -> Result<(), StoreError> {
    transaction.open_table(ANSWERS).map(drop).map_err(StoreError::failed("making"))?;
    transaction.open_table(AGES).map(drop).map_err(StoreError::failed("making"))?;
    transaction.open_table(COUNTS).map(drop).map_err(StoreError::failed("making"))
}

struct Tables<'txn> {
    answers: Table<'txn, (&'static str, &'static str), &'static [u8]>,
    ages: Table<'txn, (&'static str, i64, &'static str), ()>,
    counts: Table<'txn, &'static str, u64>,
}

pub(super) fn append(transaction: &WriteTransaction, records: &[Record]) -> Result<(), StoreError> {
    let concerned = |record: &&Record| matches!(record, Record::Answer(_) | Record::Remove(RowKey::ApiToken(_)));
    let mut records = records.iter().filter(concerned).peekable();
    if records.peek().is_none() {
        return Ok(());
    }
    let mut tables = Tables {
        answers: transaction.open_table(ANSWERS).map_err(StoreError::failed("writing"))?,
        ages: transaction.open_table(AGES).map_err(StoreError::failed("writing"))?,
        counts: transaction.open_table(COUNTS).map_err(StoreError::failed("writing"))?,
    };
    for record in records {
        match record {
            Record::Answer(answer) => tables.put(answer)?,
            Record::Remove(RowKey::ApiToken(hash)) => tables.forget(token_id(hash))?,
            Record::Put(_) | Record::Remove(_) | Record::History(..) | Record::Audit(_) => {}
        }
    }
    Ok(())
}

impl Tables<'_> {
    /// Keeps an answer: over the promise of it, when that was made before.
    fn put(&mut self, kept: &KeptAnswer) -> Result<(), StoreError> {
        let AnswerKey { token, key } = &kept.key;
        let mut bytes = vec![VERSION];
        serde_json::to_writer(&mut bytes, kept).map_err(StoreError::failed("encoding an answer of"))?;
        let place = (token.as_str(), key.as_str());
        let before = self.answers.insert(place, bytes.as_slice()).map_err(StoreError::failed("writing"))?;
        let before = before.and_then(|before| decode(before.value()).ok());
        let mut count = self.counts.get(token.as_str()).map_err(StoreError::failed("reading"))?.map_or(0, |count| count.value());
        match before {
            Some(before) => {
                let age = (token.as_str(), before.at.as_microsecond(), key.as_str());
                self.ages.remove(age).map_err(StoreError::failed("writing"))?;
            }
            None => count += 1,
        }
        self.ages.insert((token.as_str(), kept.at.as_microsecond(), key.as_str()), ()).map_err(StoreError::failed("writing"))?;
        count = self.trim(token, count, kept.at)?;
        self.counts.insert(token.as_str(), count).map_err(StoreError::failed("writing"))?;
        Ok(())
    }

    /// Drops a token's oldest answers that are too many or too old; how many are left.
    fn trim(&mut self, token: &str, mut count: u64, now: Timestamp) -> Result<u64, StoreError> {
        let oldest = now.checked_sub(KEEP).unwrap_or(Timestamp::MIN).as_microsecond();
        for _ in 0..MAX_DROPPED {
            let first = {
                let mut range = self.ages.range((token, i64::MIN, "")..).map_err(StoreError::failed("reading"))?;
                let Some(first) = range.next() else { break };
                let (key, _) = first.map_err(StoreError::failed("reading"))?;
                let (of, at, key) = key.value();
                if of != token || (at > oldest && count <= MAX_ANSWERS) {
                    break;
                }
                (at, key.to_owned())
            };
            let (at, key) = first;
            self.ages.remove((token, at, key.as_str())).map_err(StoreError::failed("writing"))?;
            self.answers.remove((token, key.as_str())).map_err(StoreError::failed("writing"))?;
            count = count.saturating_sub(1);
        }
        Ok(count)
    }

    fn forget(&mut self, token: &str) -> Result<(), StoreError> {
        // `\u{10FFFF}` is behind every key, for keys are hexadecimal.
        let keys = (token, "")..=(token, "\u{10FFFF}");
        self.answers.retain_in(keys, |_, _| false).map_err(StoreError::failed("writing"))?;
        let ages = (token, i64::MIN, "")..=(token, i64::MAX, "\u{10FFFF}");
        self.ages.retain_in(ages, |_, ()| false).map_err(StoreError::failed("writing"))?;
        self.counts.remove(token).map_err(StoreError::failed("writing"))?;
        Ok(())
    }
}

/// What is kept under a key and still young enough.
pub(super) fn find(transaction: &ReadTransaction, key: &AnswerKey, now: Timestamp) -> Result<Option<KeptAnswer>, StoreError> {
    let table = transaction.open_table(ANSWERS).map_err(StoreError::failed("reading"))?;
    let Some(found) = table.get((&*key.token, key.key.as_str())).map_err(StoreError::failed("reading"))? else { return Ok(None) };
    let damaged = |source| StoreError::Damaged { kind: "answer".into(), id: format!("{}/{}", key.token, key.key), source };
    let kept = decode(found.value()).map_err(damaged)?;
    Ok(Some(kept).filter(|kept| now.duration_since(kept.at) <= KEEP))
}

fn decode(bytes: &[u8]) -> Result<KeptAnswer, Cause> {
    match bytes.split_first() {
        Some((&VERSION, json)) => Ok(serde_json::from_slice(json)?),
        Some((version, _)) => Err(format!("answer version {version} is not known here").into()),
        None => Err("the answer is empty".into()),
    }
}
