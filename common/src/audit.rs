//! The audit log's chain: each record names the hash of the one before it, so that none can be changed, removed or put in without
//! its followers showing it. Pure: the aggregator appends with it, and whoever has an export verifies with the same code.
//!
//! ```text
//! hash = SHA-256( the record as JSON without `hash`: keys sorted, no spaces, UTF-8 as it is )
//!
//! genesis ◀─previous── 1 ◀─previous── 2 ◀─previous── 3 ◀── …        genesis = SHA-256("picket-audit-1:" + the store's incarnation)
//! ```
//!
//! In Python: `sha256(json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()).hexdigest()`.
//! Records hold no floats. What was pruned for its age is named by a later record (`checkpoint`): the chain then begins there.

use ring::digest::{SHA256, digest};
use serde_json::{Map, Value};
use uuid::Uuid;

/// What is wrong with a chain, at the first record that shows it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Not the form of a record at all.
    #[error("record {0} of the export has no {1}")]
    Form(u64, &'static str),
    /// Its content is not what was hashed.
    #[error("record {0} was changed: its content does not match its hash")]
    Changed(u64),
    /// It does not follow the one before it.
    #[error("record {found} follows record {after}: records were removed or put in between")]
    Gap {
        /// The one before.
        after: u64,
        /// This one.
        found: u64,
    },
    /// It names another record before it than there is.
    #[error("record {0} does not name the hash of the record before it: one of the two was changed or replaced")]
    Previous(u64),
    /// The first record is of another store.
    #[error("record 1 does not begin this store's chain")]
    Genesis,
    /// The chain begins in the middle, and no record says that what came before was pruned.
    #[error("the log begins with record {0}, and no checkpoint in it says that those before were pruned")]
    NoCheckpoint(u64),
    /// It ends before the head that is known.
    #[error("the log ends with record {found}, but record {head} was written: the last ones were removed or replaced")]
    End {
        /// The last one there is.
        found: u64,
        /// The head.
        head: u64,
    },
}

/// What the first record of a store's chain names as the one before it.
#[must_use]
pub fn genesis(store: &Uuid) -> String {
    sha256(format!("picket-audit-1:{}", store.hyphenated()).as_bytes())
}

/// The hash of a record; its `hash` field, if it has one, is left out.
#[must_use]
pub fn hash(record: &Map<String, Value>) -> String {
    let mut text = String::new();
    write_object(record, Some("hash"), &mut text);
    sha256(text.as_bytes())
}

fn sha256(bytes: &[u8]) -> String {
    hex::encode(digest(&SHA256, bytes))
}

fn write_object(object: &Map<String, Value>, without: Option<&str>, text: &mut String) {
    let mut fields: Vec<_> = object.iter().filter(|(key, _)| Some(key.as_str()) != without).collect();
    fields.sort_by_key(|(key, _)| key.as_str());
    text.push('{');
    for (index, (key, value)) in fields.into_iter().enumerate() {
        if index > 0 {
            text.push(',');
        }
        text.push_str(&Value::from(key.as_str()).to_string());
        text.push(':');
        write(value, text);
    }
    text.push('}');
}

fn write(value: &Value, text: &mut String) {
    match value {
        Value::Object(object) => write_object(object, None, text),
        Value::Array(items) => {
            text.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                write(item, text);
            }
            text.push(']');
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => text.push_str(&value.to_string()),
    }
}

/// Walks a chain, oldest record first.
#[derive(Debug, Clone)]
pub struct Chain {
    genesis: String,
    last: Option<(u64, String)>,
    /// Where it began, when that was not the beginning: to be vouched for by a checkpoint.
    begun: Option<(u64, String)>,
    records: u64,
}

impl Chain {
    /// At the beginning of the chain with this genesis.
    #[must_use]
    pub const fn new(genesis: String) -> Self {
        Self { genesis, last: None, begun: None, records: 0 }
    }

    /// Takes the next record.
    ///
    /// # Errors
    /// The [`Fault`] it shows.
    pub fn take(&mut self, record: &Map<String, Value>) -> Result<(), Fault> {
        let at = self.records + 1;
        let text = |name: &'static str| record.get(name).and_then(Value::as_str).ok_or(Fault::Form(at, name));
        let sequence = record.get("sequence").and_then(Value::as_u64).ok_or(Fault::Form(at, "sequence"))?;
        let (previous, claimed) = (text("previous")?, text("hash")?);
        if hash(record) != claimed {
            return Err(Fault::Changed(sequence));
        }
        match &self.last {
            Some((last, _)) if last + 1 != sequence => return Err(Fault::Gap { after: *last, found: sequence }),
            Some((_, hash)) if hash != previous => return Err(Fault::Previous(sequence)),
            Some(_) => {}
            None if sequence == 1 && previous != self.genesis => return Err(Fault::Genesis),
            None if sequence == 1 => {}
            None => self.begun = Some((sequence, previous.to_owned())),
        }
        self.find_checkpoint(record);
        self.last = Some((sequence, claimed.to_owned()));
        self.records = at;
        Ok(())
    }

    fn find_checkpoint(&mut self, record: &Map<String, Value>) {
        let Some((first, previous)) = &self.begun else { return };
        let Some(checkpoint) = record.get("checkpoint") else { return };
        let through = checkpoint.get("through").and_then(Value::as_u64);
        let hash = checkpoint.get("hash").and_then(Value::as_str);
        if through == first.checked_sub(1) && hash == Some(previous) {
            self.begun = None;
        }
    }

    /// How many records were taken.
    #[must_use]
    pub const fn records(&self) -> u64 {
        self.records
    }

    /// Sequence and hash of the last record taken; zero and the genesis before the first.
    #[must_use]
    pub fn head(&self) -> (u64, &str) {
        self.last.as_ref().map_or((0, &*self.genesis), |(sequence, hash)| (*sequence, hash))
    }

    /// Ends the walk. `head` is what is known to have been written last, if that is known.
    ///
    /// # Errors
    /// [`Fault::NoCheckpoint`], [`Fault::End`].
    pub fn end(&self, head: Option<(u64, &str)>) -> Result<(), Fault> {
        if let Some((first, _)) = &self.begun {
            return Err(Fault::NoCheckpoint(*first));
        }
        match head {
            Some(head) if head != self.head() => Err(Fault::End { found: self.head().0, head: head.0 }),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const STORE: Uuid = Uuid::from_u128(0x570e);

    fn chain(from: u64, to: u64, mut previous: String, checkpoint: Option<(u64, &str)>) -> Vec<Map<String, Value>> {
        let record = |sequence| {
            let mut record = json!({"sequence": sequence, "principal": "ann", "summary": "é \"x\" \u{1}", "previous": previous});
            if let Some((through, hash)) = checkpoint.filter(|_| sequence == to) {
                record["checkpoint"] = json!({"through": through, "hash": hash});
            }
            let Value::Object(mut record) = record else { panic!() };
            previous = hash(&record);
            record.insert("hash".into(), previous.clone().into());
            record
        };
        (from..=to).map(record).collect()
    }

    fn verdict(records: &[Map<String, Value>], head: Option<(u64, &str)>) -> Result<(), Fault> {
        let mut chain = Chain::new(genesis(&STORE));
        records.iter().try_for_each(|record| chain.take(record))?;
        chain.end(head)
    }

    #[test]
    fn a_hash_is_what_anybody_can_compute() {
        let Value::Object(record) = json!({"b": [1, {"z": null, "a": true}], "a": "é\n\u{1}\"", "hash": "left out"}) else {
            panic!()
        };
        // python3: sha256(json.dumps(…, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()).hexdigest()
        assert_eq!(hash(&record), "a5065e93cb0d58c76bfcdab0263607ae6b83f0fad4b926293b6f66223f02f6c3");
    }

    #[test]
    fn whatever_is_done_to_a_chain_shows() {
        let good = chain(1, 5, genesis(&STORE), None);
        let hash_of = |n: usize| good[n]["hash"].as_str().unwrap().to_owned();
        let head = hash_of(4);
        assert_eq!(verdict(&good, Some((5, &head))), Ok(()));
        assert_eq!(verdict(&[], Some((0, &genesis(&STORE)))), Ok(()));
        let with = |change: fn(&mut Vec<Map<String, Value>>)| {
            let mut records = good.clone();
            change(&mut records);
            verdict(&records, Some((5, &head)))
        };
        let rehash = |records: &mut Vec<Map<String, Value>>| {
            let new = hash(&records[2]);
            records[2].insert("hash".into(), new.into());
        };
        assert_eq!(with(|r| drop(r[2].insert("principal".into(), "bob".into()))), Err(Fault::Changed(3)));
        assert_eq!(with(|r| drop(r[2].insert("reason".into(), "x".into()))), Err(Fault::Changed(3)));
        assert_eq!(with(|r| drop(r.remove(2))), Err(Fault::Gap { after: 2, found: 4 }));
        assert_eq!(with(|r| r.swap(1, 2)), Err(Fault::Gap { after: 1, found: 3 }));
        assert_eq!(with(|r| drop(r.pop())), Err(Fault::End { found: 4, head: 5 }));
        assert_eq!(with(|r| drop(r.remove(0))), Err(Fault::NoCheckpoint(2)));
        assert_eq!(with(|r| drop(r[0].remove("hash"))), Err(Fault::Form(1, "hash")));
        let mut forged = good.clone();
        forged[2].insert("principal".into(), "bob".into());
        rehash(&mut forged);
        assert_eq!(verdict(&forged, None), Err(Fault::Previous(4)));
        let other = chain(1, 5, genesis(&Uuid::nil()), None);
        assert_eq!(verdict(&other, None), Err(Fault::Genesis));
    }

    #[test]
    fn what_was_pruned_is_vouched_for() {
        let gone = chain(1, 3, genesis(&STORE), None);
        let last = gone[2]["hash"].as_str().unwrap().to_owned();
        assert_eq!(verdict(&chain(4, 9, last.clone(), Some((3, &last))), None), Ok(()));
        assert_eq!(verdict(&chain(4, 9, last.clone(), Some((2, &last))), None), Err(Fault::NoCheckpoint(4)));
        assert_eq!(verdict(&chain(4, 9, last, None), None), Err(Fault::NoCheckpoint(4)));
    }
}
