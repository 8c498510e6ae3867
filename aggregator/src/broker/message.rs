//! What is said on a topic, rendered once for everybody who hears it, whatever version of MQTT he speaks.

use std::ops::Range;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// A message's payload and what it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    payload: Bytes,
    form: Form,
}

/// What a payload is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Form {
    /// Bytes of the internal tree.
    Opaque,
    /// A JSON document.
    Json,
    /// A CloudEvent in structured mode, with what binary mode needs of it.
    Event {
        /// Its attributes but the content type of its data, which is JSON.
        attributes: Vec<(String, String)>,
        /// Where its data lies in the payload.
        data: Range<usize>,
    },
}

impl Message {
    /// Bytes of the internal tree.
    #[must_use]
    pub const fn opaque(payload: Bytes) -> Self {
        Self { payload, form: Form::Opaque }
    }

    /// A JSON document; an empty one is the end of the document.
    #[must_use]
    pub const fn document(payload: Bytes) -> Self {
        Self { payload, form: Form::Json }
    }

    /// A CloudEvent: `structured` (CloudEvents JSON event format §3), its attributes, and where its `data` lies in it.
    #[must_use]
    pub const fn event(structured: Bytes, attributes: Vec<(String, String)>, data: Range<usize>) -> Self {
        Self { payload: structured, form: Form::Event { attributes, data } }
    }

    pub(super) const fn new(payload: Bytes, form: Form) -> Self {
        Self { payload, form }
    }

    /// The payload as a whole: of an event, its structured mode.
    #[must_use]
    pub const fn payload(&self) -> &Bytes {
        &self.payload
    }

    /// The payload, of an event its data alone: the payload of its binary mode.
    #[must_use]
    pub fn data(&self) -> &[u8] {
        match &self.form {
            Form::Event { data, .. } => self.payload.get(data.clone()).unwrap_or_default(),
            Form::Opaque | Form::Json => &self.payload,
        }
    }

    /// What it is.
    #[must_use]
    pub const fn form(&self) -> &Form {
        &self.form
    }

    /// About as many bytes as it takes.
    pub(super) fn weight(&self) -> usize {
        let attributes = match &self.form {
            Form::Event { attributes, .. } => attributes.iter().map(|(name, value)| name.len() + value.len()).sum(),
            Form::Opaque | Form::Json => 0,
        };
        self.payload.len() + attributes
    }
}
