//! Answers of upstreams, kept for as long as their records allow.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{Name, RData, Record, RecordType};

/// The longest that an answer with records is kept.
const POSITIVE_SECS_MAX: u32 = 3600;
/// The longest that the absence of one is kept.
const NEGATIVE_SECS_MAX: u32 = 30;

/// What makes two questions the same. Answers with signatures differ from those without.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    /// The name in lower case.
    pub name: Name,
    /// The type asked for.
    pub kind: RecordType,
    /// Whether signatures were asked for.
    pub signed: bool,
}

struct Entry {
    message: Arc<Message>,
    stored: Instant,
    expires: Instant,
}

/// The cache. Nothing happens in it by itself: what has expired goes when room is needed.
pub(super) struct Cache {
    limit: usize,
    entries: Mutex<HashMap<Key, Entry>>,
}

impl Cache {
    /// A cache of at most `limit` answers.
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, entries: Mutex::default() }
    }

    /// The answer as it would be now, its records' times run down.
    pub(super) fn get(&self, key: &Key, now: Instant) -> Option<Message> {
        let (message, age) = {
            let mut entries = self.lock();
            let entry = entries.get(key)?;
            if entry.expires <= now {
                entries.remove(key);
                return None;
            }
            (entry.message.clone(), now.saturating_duration_since(entry.stored))
        };
        let mut message = Message::clone(&message);
        let age = u32::try_from(age.as_secs()).unwrap_or(u32::MAX);
        let sections = [&mut message.answers, &mut message.authorities, &mut message.additionals];
        for record in sections.into_iter().flatten() {
            record.ttl = record.ttl.saturating_sub(age);
        }
        Some(message)
    }

    /// Keeps the answer, if it may be kept.
    pub(super) fn put(&self, key: Key, message: &Message, now: Instant) {
        let Some(lifetime) = lifetime(message) else { return };
        let mut entries = self.lock();
        if entries.len() >= self.limit {
            entries.retain(|_, entry| entry.expires > now);
        }
        if entries.len() >= self.limit {
            let Some(any) = entries.keys().next().cloned() else { return };
            entries.remove(&any);
        }
        let entry =
            Entry { message: Arc::new(message.clone()), stored: now, expires: now + lifetime };
        entries.insert(key, entry);
    }

    /// Forgets everything, for when upstreams change.
    pub(super) fn clear(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Entry>> {
        // A map of whole entries is sound whatever its last user was doing.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long an answer may be kept (RFC 2308 for those without records); `None` means not at all.
fn lifetime(message: &Message) -> Option<Duration> {
    let metadata = &message.metadata;
    let definite = matches!(metadata.response_code, ResponseCode::NoError | ResponseCode::NXDomain);
    if metadata.truncation || !definite {
        return None;
    }
    let negative = metadata.response_code == ResponseCode::NXDomain || message.answers.is_empty();
    let seconds = if negative {
        message.authorities.iter().find_map(negative_ttl)?.min(NEGATIVE_SECS_MAX)
    } else {
        message.answers.iter().map(|record| record.ttl).min()?.min(POSITIVE_SECS_MAX)
    };
    (seconds > 0).then(|| Duration::from_secs(seconds.into()))
}

fn negative_ttl(record: &Record) -> Option<u32> {
    match &record.data {
        RData::SOA(soa) => Some(record.ttl.min(soa.minimum)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use hickory_proto::op::{MessageType, OpCode};
    use hickory_proto::rr::rdata::{A, SOA};

    use super::*;

    fn key(name: &str) -> Key {
        Key { name: Name::from_ascii(name).unwrap(), kind: RecordType::A, signed: false }
    }

    fn answer(name: &str, ttl: u32) -> Message {
        let mut message = Message::new(1, MessageType::Response, OpCode::Query);
        let data = RData::A(A(Ipv4Addr::LOCALHOST));
        message.add_answer(Record::from_rdata(Name::from_ascii(name).unwrap(), ttl, data));
        message
    }

    #[test]
    fn runs_down_and_expires() {
        let cache = Cache::new(10);
        let start = Instant::now();
        cache.put(key("a."), &answer("a.", 10), start);
        let later = cache.get(&key("a."), start + Duration::from_secs(4)).unwrap();
        assert_eq!(later.answers[0].ttl, 6);
        assert!(cache.get(&key("a."), start + Duration::from_secs(10)).is_none());
        assert!(cache.get(&Key { signed: true, ..key("a.") }, start).is_none());
    }

    #[test]
    fn stays_within_its_limit() {
        let cache = Cache::new(2);
        let now = Instant::now();
        for name in ["a.", "b.", "c.", "d."] {
            cache.put(key(name), &answer(name, 10), now);
        }
        assert_eq!(cache.lock().len(), 2);
        assert!(cache.get(&key("d."), now).is_some());
    }

    #[test]
    fn keeps_absence_as_long_as_its_soa_says_and_failures_never() {
        let mut absent = Message::new(1, MessageType::Response, OpCode::Query);
        absent.metadata.response_code = ResponseCode::NXDomain;
        assert_eq!(lifetime(&absent), None);
        let root = Name::root();
        let soa = SOA::new(root.clone(), root.clone(), 1, 1, 1, 1, 20);
        absent.add_authority(Record::from_rdata(root, 300, RData::SOA(soa)));
        assert_eq!(lifetime(&absent), Some(Duration::from_secs(20)));
        absent.metadata.response_code = ResponseCode::ServFail;
        assert_eq!(lifetime(&absent), None);
        assert_eq!(lifetime(&answer("a.", 0)), None);
    }
}
