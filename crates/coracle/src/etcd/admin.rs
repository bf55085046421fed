//! Asking etcd about its members and changing them.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use etcd_client::{
    AlarmAction, AlarmOptions, AlarmType, Certificate, Client, CompactionOptions, Compare,
    CompareOp, ConnectOptions, GetOptions, Identity, MemberAddOptions, PutOptions, TlsOptions, Txn,
    TxnOp,
};

use super::line::TlsFiles;
use crate::failure::{Outcome, While};

/// How long a member may take to take a connection.
const CONNECT_PATIENCE: Duration = Duration::from_millis(1500);
/// How long it may take to answer. A change of members takes a round among them and a sync of
/// each log.
const ANSWER_PATIENCE: Duration = Duration::from_secs(7);
/// How long rewriting the database may take; it is a few hundred MB at the most.
const DEFRAGMENT_PATIENCE: Duration = Duration::from_secs(120);
/// What etcd answers where somebody has compacted to that revision already.
const COMPACTED: &str = "required revision has been compacted";

/// Below this key members say whom they trust; apart from the keys of the store.
const TRUST: &str = "coracle/trust/";
/// Held by the member that may start again.
const TURN: &str = "coracle/trust/turn";
/// How long it may hold it. A start takes under a second, and longer where files are checked.
const TURN_SECONDS: i64 = 120;

/// A member, as the cluster has it on its list.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Member {
    /// Its number.
    pub id: u64,
    /// The name of its node; empty until it has started for the first time.
    pub name: String,
    /// Where other members reach it.
    pub peer_url: String,
    /// Where clients reach it; none until it has started for the first time.
    pub client_url: Option<String>,
    /// Whether it is still catching up and has no vote.
    pub learner: bool,
}

impl Member {
    /// Its name, or where it will be.
    pub fn label(&self) -> &str {
        if self.name.is_empty() { &self.peer_url } else { &self.name }
    }
}

/// How a member is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// Its number.
    pub id: u64,
    /// The number of the leader it follows; 0 where it knows none.
    pub leader: u64,
    /// Bytes of its database.
    pub size: u64,
    /// Bytes of that in use.
    pub used: u64,
    /// The newest revision it has.
    pub revision: u64,
    /// Whether it is still catching up and has no vote.
    pub learner: bool,
    /// How long the answer took.
    pub took: Duration,
}

/// Whom members trust, as they say it, and whose turn it is to start again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trust {
    /// By a member's number, the digest of the authorities that it trusts.
    pub of: BTreeMap<u64, String>,
    /// The member that may start again.
    pub turn: Option<u64>,
}

/// What a member holds, up to a revision that all were asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Content {
    /// A checksum of it.
    pub hash: u32,
    /// From where on it is counted.
    pub compacted: i64,
}

/// What etcd has given the alarm for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alarm {
    /// The database of this member is full: nothing is written any more.
    NoSpace(u64),
    /// This member holds something else than the others. etcd 3.4 says 0, since it does not know
    /// who; the number of a later one is a guess, since it takes the leader's side.
    Corrupt(u64),
}

/// A client of some members, for what is not reading and writing.
#[derive(Clone)]
pub struct Admin(Client);

impl Admin {
    /// A client of the members at these URLs. They need not answer yet.
    pub async fn new(urls: &[String], tls: &TlsFiles) -> Outcome<Self> {
        let read = |path: &Path| {
            std::fs::read(path).doing(|| format!("reading the certificate {}", path.display()))
        };
        let identity = Identity::from_pem(read(&tls.cert)?, read(&tls.key)?);
        let trust = Certificate::from_pem(read(&tls.ca)?);
        let options = ConnectOptions::new()
            .with_tls(TlsOptions::new().ca_certificate(trust).identity(identity))
            .with_connect_timeout(CONNECT_PATIENCE);
        let client = Client::connect(urls, Some(options)).await;
        Ok(Admin(client.doing(|| format!("connecting to etcd at {}", urls.join(", ")))?))
    }

    /// All members.
    pub async fn members(&self) -> Outcome<Vec<Member>> {
        let mut client = self.0.cluster_client();
        let answer = within(client.member_list(), || "listing etcd's members".into()).await?;
        Ok(answer.members().iter().map(member).collect())
    }

    /// Adds a member without a vote. Gives its number and all members there are then.
    pub async fn add_learner(&self, peer_url: &str) -> Outcome<(u64, Vec<Member>)> {
        let mut client = self.0.cluster_client();
        let options = MemberAddOptions::new().with_is_learner();
        let adding = client.member_add([peer_url.to_owned()], Some(options));
        let answer = within(adding, || format!("adding the member at {peer_url}")).await?;
        let id = answer.member().map_or(0, etcd_client::Member::id);
        Ok((id, answer.member_list().iter().map(member).collect()))
    }

    /// Gives a member its vote.
    pub async fn promote(&self, id: u64) -> Outcome {
        let mut client = self.0.cluster_client();
        within(client.member_promote(id), || format!("giving member {id:x} its vote")).await?;
        Ok(())
    }

    /// Removes a member for good.
    pub async fn remove(&self, member: &Member) -> Outcome {
        let mut client = self.0.cluster_client();
        let doing = || format!("removing the member {} ({:x})", member.label(), member.id);
        within(client.member_remove(member.id), doing).await?;
        Ok(())
    }

    /// Tells the others where a member is now.
    pub async fn moved(&self, id: u64, peer_url: &str) -> Outcome {
        let mut client = self.0.cluster_client();
        let doing = || format!("telling etcd that this server is at {peer_url} now");
        within(client.member_update(id, [peer_url.to_owned()]), doing).await?;
        Ok(())
    }

    /// How the member that this client reaches is.
    pub async fn status(&self) -> Outcome<Status> {
        let begin = Instant::now();
        let mut client = self.0.maintenance_client();
        let answer = within(client.status(), || "asking etcd how it is".into()).await?;
        let bytes = |size: i64| size.max(0).unsigned_abs();
        let header = answer.header();
        Ok(Status {
            id: header.map_or(0, etcd_client::ResponseHeader::member_id),
            leader: answer.leader(),
            size: bytes(answer.db_size()),
            used: bytes(answer.raft_used_db_size()),
            revision: bytes(header.map_or(0, etcd_client::ResponseHeader::revision)),
            learner: answer.is_learner(),
            took: begin.elapsed(),
        })
    }

    /// What the member that this client reaches holds up to a revision.
    pub async fn content(&self, revision: u64) -> Outcome<Content> {
        let mut client = self.0.maintenance_client();
        let asking = client.hash_kv(revision.cast_signed());
        let answer = within(asking, || "asking etcd what it holds".into()).await?;
        Ok(Content { hash: answer.hash(), compacted: answer.compact_version() })
    }

    /// Whether a majority of the members answers through this one, by a read that needs it.
    pub async fn has_quorum(&self) -> bool {
        let mut client = self.0.kv_client();
        within(client.get("coracle/none", None), String::new).await.is_ok()
    }

    /// Has the member that this client reaches hand the lead to another.
    pub async fn hand_over(&self, to: u64) -> Outcome {
        let mut client = self.0.maintenance_client();
        within(client.move_leader(to), || format!("handing etcd's lead to {to:x}")).await?;
        Ok(())
    }

    /// What the members say of whom they trust.
    pub async fn trust(&self) -> Outcome<Trust> {
        let mut client = self.0.kv_client();
        let asking = client.get(TRUST, Some(GetOptions::new().with_prefix()));
        let answer = within(asking, || "asking etcd whom its members trust".into()).await?;
        let mut trust = Trust::default();
        for pair in answer.kvs() {
            let [key, value] = [pair.key(), pair.value()].map(String::from_utf8_lossy);
            match key.strip_prefix(TRUST).and_then(|id| u64::from_str_radix(id, 16).ok()) {
                Some(id) => drop(trust.of.insert(id, value.into_owned())),
                None if key == TURN => trust.turn = u64::from_str_radix(&value, 16).ok(),
                None => {}
            }
        }
        Ok(trust)
    }

    /// Says whom a member trusts.
    pub async fn say_trust(&self, id: u64, digest: &str) -> Outcome {
        let mut client = self.0.kv_client();
        let saying = client.put(format!("{TRUST}{id:x}"), digest, None);
        within(saying, || "telling etcd whom this member trusts".into()).await?;
        Ok(())
    }

    /// Takes the turn to start again; false where another member has it. It ends by itself after
    /// [`TURN_SECONDS`], should its holder die.
    pub async fn take_turn(&self, id: u64) -> Outcome<bool> {
        match self.trust().await?.turn {
            Some(holder) if holder != id => return Ok(false),
            _ => {}
        }
        let doing = || "asking etcd for the turn to start again".to_owned();
        let (mut kv, mut leases) = (self.0.kv_client(), self.0.lease_client());
        let lease = within(leases.grant(TURN_SECONDS, None), doing).await?.id();
        let options = Some(PutOptions::new().with_lease(lease));
        let id = format!("{id:x}");
        // Its own turn of before may end at any moment, so it is taken anew.
        let free = Txn::new()
            .when([Compare::version(TURN, CompareOp::Equal, 0)])
            .and_then([TxnOp::put(TURN, id.clone(), options.clone())]);
        let own = Txn::new()
            .when([Compare::value(TURN, CompareOp::Equal, id.clone())])
            .and_then([TxnOp::put(TURN, id, options)]);
        let taken = within(kv.txn(free), doing).await?.succeeded()
            || within(kv.txn(own), doing).await?.succeeded();
        if !taken {
            // It would end by itself, too.
            let _ = leases.revoke(lease).await;
        }
        Ok(taken)
    }

    /// Gives the turn back, if it is this member's.
    pub async fn end_turn(&self, id: u64) -> Outcome {
        let mut client = self.0.kv_client();
        let own = Txn::new()
            .when([Compare::value(TURN, CompareOp::Equal, format!("{id:x}"))])
            .and_then([TxnOp::delete(TURN, None)]);
        within(client.txn(own), || "giving the turn to start again back".into()).await?;
        Ok(())
    }

    /// The alarms that are on.
    pub async fn alarms(&self) -> Outcome<Vec<Alarm>> {
        let mut client = self.0.maintenance_client();
        let asking = client.alarm(AlarmAction::Get, AlarmType::None, None);
        let answer = within(asking, || "asking etcd for its alarms".into()).await?;
        let alarm = |alarm: &etcd_client::AlarmMember| match alarm.alarm() {
            AlarmType::Nospace => Some(Alarm::NoSpace(alarm.member_id())),
            AlarmType::Corrupt => Some(Alarm::Corrupt(alarm.member_id())),
            AlarmType::None => None,
        };
        Ok(answer.alarms().iter().filter_map(alarm).collect())
    }

    /// Takes an alarm back.
    pub async fn disarm(&self, alarm: Alarm) -> Outcome {
        let (kind, member) = match alarm {
            Alarm::NoSpace(member) => (AlarmType::Nospace, member),
            Alarm::Corrupt(member) => (AlarmType::Corrupt, member),
        };
        let mut options = AlarmOptions::new();
        options.with_member(member);
        let mut client = self.0.maintenance_client();
        let asking = client.alarm(AlarmAction::Deactivate, kind, Some(options));
        within(asking, || "taking etcd's alarm back".into()).await?;
        Ok(())
    }

    /// Forgets what was before a revision.
    pub async fn compact(&self, revision: u64) -> Outcome {
        let mut client = self.0.kv_client();
        let options = CompactionOptions::new().with_physical();
        let compacting = client.compact(revision.cast_signed(), Some(options));
        let doing = || format!("compacting etcd to revision {revision}");
        match within_time(DEFRAGMENT_PATIENCE, compacting, doing).await {
            Err(failure) if base::chain(&failure).to_string().contains(COMPACTED) => Ok(()),
            other => other.map(drop),
        }
    }

    /// Rewrites the database of the member that this client reaches. It does not answer
    /// meanwhile.
    pub async fn defragment(&self) -> Outcome {
        let mut client = self.0.maintenance_client();
        let doing = || "defragmenting etcd's database".to_owned();
        within_time(DEFRAGMENT_PATIENCE, client.defragment(), doing).await?;
        Ok(())
    }
}

fn member(member: &etcd_client::Member) -> Member {
    Member {
        id: member.id(),
        name: member.name().to_owned(),
        peer_url: member.peer_urls().first().cloned().unwrap_or_default(),
        client_url: member.client_urls().first().cloned(),
        learner: member.is_learner(),
    }
}

async fn within<T>(
    call: impl Future<Output = Result<T, etcd_client::Error>>,
    doing: impl Fn() -> String,
) -> Outcome<T> {
    within_time(ANSWER_PATIENCE, call, doing).await
}

async fn within_time<T>(
    patience: Duration,
    call: impl Future<Output = Result<T, etcd_client::Error>>,
    doing: impl Fn() -> String,
) -> Outcome<T> {
    let answer = tokio::time::timeout(patience, call).await;
    let answer = answer.doing(&doing)?;
    answer.map_err(|error| said(&error)).doing(doing)
}

/// What etcd itself said, without the frame that the client puts around it.
fn said(error: &etcd_client::Error) -> String {
    match error {
        etcd_client::Error::GRpcStatus(status) => status.message().to_owned(),
        other => other.to_string(),
    }
}
