//! What the port answers before there is a server behind it.

use std::sync::{Arc, Mutex, PoisonError};

use api::status::Status;
use http::{HeaderValue, StatusCode, header};

use crate::health::Health;
use crate::request::Response;
use crate::response;

/// What a caller is told to wait. Clients that obey it, such as kubectl, ask again by themselves.
const RETRY_AFTER_SECONDS: u32 = 1;

/// The reason, as it is at this moment.
#[derive(Clone, Default)]
pub(crate) struct Reason(Arc<Mutex<String>>);

impl Reason {
    pub(crate) fn set(&self, why: &str) {
        why.clone_into(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn get(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Says to everybody that there is no server yet, and why.
pub(crate) struct Waiting {
    health: Health,
    reason: Reason,
}

impl Waiting {
    pub(crate) fn new(reason: Reason) -> Self {
        let health = Health::default();
        health.add("ping", true, || Ok(()));
        let why = reason.clone();
        health.add("datastore", false, move || Err(why.get()));
        Waiting { health, reason }
    }

    pub(crate) fn answer(&self, path: &str, query: &str) -> Response {
        match self.health.answer(path, query) {
            // A check that fails is a fault of the server; this one only wants time.
            Some(mut failed) if failed.status().is_server_error() => {
                *failed.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
                let seconds = HeaderValue::from(RETRY_AFTER_SECONDS);
                failed.headers_mut().insert(header::RETRY_AFTER, seconds);
                failed
            }
            Some(answer) => answer,
            None => {
                let message = format!("this server is starting: {}", self.reason.get());
                let status = Status::unavailable(message).with_retry_after(RETRY_AFTER_SECONDS);
                response::status(&status)
            }
        }
    }
}
