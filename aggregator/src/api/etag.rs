//! What can be edited, shown with the entity tag that a change of it must name.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::fleet::Answer;
use crate::fleet::etag::ETag;

/// A resource with its tag. A conditional GET is not answered by 304: the tag of a host says nothing of its power.
#[derive(Debug)]
pub struct Tagged<T> {
    /// Of its settings.
    pub tag: ETag,
    /// As it is shown.
    pub shown: T,
}

impl<T: Serialize> IntoResponse for Tagged<T> {
    fn into_response(self) -> Response {
        let mut response = axum::Json(self.shown).into_response();
        if let Ok(tag) = HeaderValue::from_str(self.tag.as_str()) {
            response.headers_mut().insert(header::ETAG, tag);
        }
        response
    }
}

/// A resource after a change: 201 or 200 with it, 204 when it is gone again already.
pub fn changed<T: Serialize>(answer: &Answer, resource: Option<Tagged<T>>) -> Response {
    let status = if matches!(answer, Answer::Done { created: true }) { StatusCode::CREATED } else { StatusCode::OK };
    resource.map_or_else(|| StatusCode::NO_CONTENT.into_response(), |found| (status, found).into_response())
}
