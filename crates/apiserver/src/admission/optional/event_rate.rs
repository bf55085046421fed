//! EventRateLimit: how many Events a second the server, a namespace, a user or a source may
//! write, by token buckets in this server's memory.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use api::status::Status;
use serde_json::Value;

use super::super::{Attributes, Operation};
use crate::registry::Outcome;

/// Buckets of one limit that are remembered where the file does not say it.
const CACHE_SIZE: usize = 4096;

/// The limits of the plugin's configuration.
#[derive(Debug, Default)]
pub(in super::super) struct EventLimits(Vec<Limit>);

#[derive(Debug)]
struct Limit {
    of: String,
    each_second: f64,
    burst: f64,
    size: usize,
    buckets: Mutex<HashMap<String, Bucket>>,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    left: f64,
    at: Instant,
}

impl EventLimits {
    /// Reads the plugin's configuration.
    pub fn read(config: &Value) -> Result<Self, String> {
        let limits = config["limits"].as_array().map(Vec::as_slice).unwrap_or_default();
        if limits.is_empty() {
            return Err("limits: Invalid value: []: must not be empty".to_owned());
        }
        limits
            .iter()
            .enumerate()
            .map(|(index, one)| Limit::read(one, index))
            .collect::<Result<_, _>>()
            .map(EventLimits)
    }
}

impl Limit {
    fn read(limit: &Value, index: usize) -> Result<Self, String> {
        let of = limit["type"].as_str().unwrap_or_default();
        if !["Server", "Namespace", "User", "SourceAndObject"].contains(&of) {
            return Err(format!(
                "limits[{index}].type: Unsupported value: {of:?}: supported values: \"Namespace\", \"Server\", \"SourceAndObject\", \"User\""
            ));
        }
        let number = |field: &str| {
            let given = limit[field].as_u64().filter(|number| *number > 0);
            given.ok_or_else(|| format!("limits[{index}].{field}: Invalid value: must be positive"))
        };
        Ok(Limit {
            of: of.to_owned(),
            each_second: number("qps")? as f64,
            burst: number("burst")? as f64,
            size: limit["cacheSize"].as_u64().map_or(CACHE_SIZE, |size| size.max(1) as usize),
            buckets: Mutex::default(),
        })
    }

    fn key(&self, attributes: &Attributes<'_>, event: &Value) -> String {
        match self.of.as_str() {
            "Namespace" => attributes.namespace.to_owned(),
            "User" => attributes.user.name.clone(),
            "SourceAndObject" => {
                let (source, about) = (&event["source"], &event["involvedObject"]);
                let fields = ["kind", "namespace", "name", "uid", "apiVersion"];
                let about = fields.map(|field| &about[field]);
                let parts = [&source["component"], &source["host"]].into_iter().chain(about);
                parts.map(|part| part.as_str().unwrap_or_default()).collect::<Vec<_>>().join("")
            }
            _ => String::new(),
        }
    }

    fn take(&self, key: &str, now: Instant) -> bool {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= self.size && !buckets.contains_key(key) {
            // Whoever was silent longest has a full bucket anyway.
            let oldest =
                buckets.iter().min_by_key(|(_, bucket)| bucket.at).map(|(key, _)| key.clone());
            oldest.map(|oldest| buckets.remove(&oldest));
        }
        let full = Bucket { left: self.burst, at: now };
        let bucket = buckets.entry(key.to_owned()).or_insert(full);
        let passed = now.saturating_duration_since(bucket.at).as_secs_f64();
        bucket.left = (bucket.left + passed * self.each_second).min(self.burst);
        bucket.at = now;
        let enough = bucket.left >= 1.0;
        if enough {
            bucket.left -= 1.0;
        }
        enough
    }
}

/// Counts an event, or refuses it.
pub(in super::super) fn admit(attributes: &Attributes<'_>, event: &mut Value) -> Outcome<()> {
    let written = matches!(attributes.operation, Operation::Create | Operation::Update);
    if !written || attributes.resource.collection() != "events" || attributes.dry_run {
        return Ok(());
    }
    let now = Instant::now();
    for limit in &attributes.cluster.plugins().events.0 {
        let key = limit.key(attributes, event);
        if !limit.take(&key, now) {
            let message = format!("limit reached on type {} for key {key}", limit.of);
            return Err(Status::too_many_requests(message, 1));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use serde_json::json;

    #[test]
    fn a_bucket_gives_its_burst_and_then_so_many_a_second() {
        let limits = json!({"limits": [{"type": "User", "qps": 2, "burst": 3, "cacheSize": 2}]});
        let limits = EventLimits::read(&limits).unwrap();
        let limit = &limits.0[0];
        let now = Instant::now();
        let taken = (0..5).filter(|_| limit.take("a", now)).count();
        assert_eq!(taken, 3);
        let later = now + Duration::from_secs(1);
        assert_eq!((0..5).filter(|_| limit.take("a", later)).count(), 2);
        // Of others it knows only so many.
        assert!(limit.take("b", later) && limit.take("c", later));
        assert_eq!(limit.buckets.lock().unwrap().len(), 2);
        assert!(
            EventLimits::read(&json!({"limits": [{"type": "Odd", "qps": 1, "burst": 1}]})).is_err()
        );
    }
}
