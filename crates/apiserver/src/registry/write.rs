//! create and update: one road for every kind, from a decoded object to a durable one.

mod fields;
mod refusal;
mod state;

use api::apply::{Manager, track};
use api::schema::Schema;
use api::status::Status;
use api::strategy;
use bytes::Bytes;
use serde_json::{Value, json};
use store::{Entry, Expect, WriteError};

use super::allocation::{is_service, is_unresolved};
use super::call::{Call, Reply, Target};
use super::options::WriteOptions;
use super::{Outcome, Registry, codec, conversion, decode, meta, names, negotiate, signing};
use crate::admission::{self, Attributes, Operation};
use crate::authz::{self, escalation};
use crate::notes;
use crate::user::User;
pub use fields::check_fields;
use refusal::{invalid, modified};
pub use refusal::{may_be_stale, write_failure};
use state::{check_fresh, check_state, keep_metadata, same};

/// How often a name is generated before the server gives up (as upstream).
const GENERATE_ATTEMPTS: usize = 8;
/// How often a write is tried again because somebody else wrote meanwhile.
const WRITE_ATTEMPTS: usize = 64;

/// What comes of a write.
pub struct Written {
    /// The object's stored form with its resourceVersion (of a dry run: what it would be).
    pub value: Bytes,
    /// Whether it was not there before.
    pub created: bool,
    /// Whether the datastore has taken a write; where there was nothing to write, or nothing
    /// was to be written, this is what was known here.
    pub committed: bool,
}

/// On whose behalf and how a write is done.
pub struct Writer<'a> {
    /// The user.
    pub user: &'a User,
    /// Name of the field manager.
    pub manager: String,
    /// Do everything but the write.
    pub dry_run: bool,
}

/// A change of one object.
pub struct Change<'a> {
    /// Which.
    pub target: &'a Target,
    /// Through which view; decides what of the new state counts.
    pub subresource: &'a str,
    /// Makes the object where there is none.
    pub create: bool,
    /// The new state must name the resourceVersion it replaces, where the kind says so.
    pub conditional: bool,
    /// Whether field owners are recorded here (an apply does it itself).
    pub track: bool,
    /// The new state, in the client's version, from the present one.
    pub build: &'a (dyn Fn(Option<&Value>) -> Outcome<Value> + Send + Sync),
}

impl Registry {
    /// POST on a collection.
    pub(super) async fn post(&self, call: &Call) -> Outcome<Reply> {
        let options = WriteOptions::parse(&call.query, "CreateOptions")?;
        let (mut object, duplicates) = decode::object(call)?;
        let warnings = check_fields(&call.target, &options, &duplicates, &mut object)?;
        let namespace = meta::namespace(&object);
        if !namespace.is_empty() && namespace != call.target.namespace {
            return Err(Status::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
        let writer = Writer {
            user: &call.user,
            manager: call.field_manager(&options),
            dry_run: options.dry_run,
        };
        let written = self.create(&call.target, &writer, object, true).await?;
        Ok(Reply::written(written.value, true).with_warnings(warnings))
    }

    /// Creates an object in the client's version; a name is generated where one is asked for.
    pub(super) async fn create(
        &self,
        target: &Target,
        writer: &Writer<'_>,
        object: Value,
        record: bool,
    ) -> Outcome<Written> {
        let base = meta::text(&object, "generateName").to_owned();
        if !meta::name(&object).is_empty() || base.is_empty() {
            return self.create_named(target, writer, object, record).await;
        }
        let mut name = String::new();
        for _ in 0..GENERATE_ATTEMPTS {
            name = names::generate(&base);
            let mut named = object.clone();
            meta::set(&mut named, "name", name.as_str());
            match self.create_named(target, writer, named, record).await {
                Err(status) if status.reason == "AlreadyExists" => {}
                other => return other,
            }
        }
        Err(Status::generate_name_conflict(&*target.resource, &name))
    }

    /// What is refused for what is known here is tried once more behind the barrier: the
    /// namespace may have been made at another server just now.
    async fn create_named(
        &self,
        target: &Target,
        writer: &Writer<'_>,
        object: Value,
        record: bool,
    ) -> Outcome<Written> {
        let mut fresh = !self.store().is_shared();
        if fresh && !is_service(target) {
            // There is no second attempt that would need the object.
            let written = self.create_once(target, writer, object, record).await?;
            return written.ok_or_else(|| modified(target));
        }
        for _ in 0..WRITE_ATTEMPTS {
            match self.create_once(target, writer, object.clone(), record).await {
                Ok(Some(written)) => return Ok(written),
                Err(status) if fresh || !may_be_stale(&status) => return Err(status),
                Ok(None) | Err(_) => self.context.fresh().await?,
            }
            fresh = true;
        }
        Err(modified(target))
    }

    /// One attempt; `None` where another Service was given the same address or port meanwhile.
    async fn create_once(
        &self,
        target: &Target,
        writer: &Writer<'_>,
        object: Value,
        record: bool,
    ) -> Outcome<Option<Written>> {
        let resource = &*target.resource;
        if meta::revision(&object).is_some() {
            return Err(Status::new(
                500,
                "",
                "resourceVersion should not be set on objects to be created",
            ));
        }
        let mut object = self.to_storage(target, object).await?;
        let now = names::time(self.now());
        let target = target.named(meta::name(&object));
        for field in
            ["deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "resourceVersion"]
        {
            meta::set(&mut object, field, Value::Null);
        }
        meta::set(&mut object, "uid", base::names::uuid());
        meta::set(&mut object, "creationTimestamp", now.as_str());
        let namespace = if resource.namespaced { json!(target.namespace) } else { Value::Null };
        meta::set(&mut object, "namespace", namespace);

        strategy::default(resource, &resource.storage_version, &mut object);
        // Before admission: what the cluster adds belongs to nobody.
        if record {
            let api_version = target.api_version();
            let manager = Manager {
                name: &writer.manager,
                api_version: &api_version,
                subresource: "",
                time: &now,
            };
            track(resource, None, &mut object, &manager);
        }
        let attributes = self.attributes((Operation::Create, ""), &target, writer, None);
        self.admit(&attributes, &mut object).await?;
        strategy::default(resource, &resource.storage_version, &mut object);
        self.choose_numbers(&target, &mut object, None)?;
        if !writer.dry_run {
            self.complete_token(&target, &mut object);
        }
        strategy::prepare_create(resource, &mut object);
        signing::note_requester(resource, &mut object, writer.user);
        let mut errors = strategy::validate(resource, &object);
        signing::check_request(resource, &object, &mut errors);
        if !errors.is_empty() {
            return Err(invalid(&target, &errors));
        }
        strategy::warnings(resource, &object, None).into_iter().for_each(notes::warn);
        self.admission.validate(&attributes, &object).await?;
        let charged = self.charge(&attributes, &object).await?;
        let written = self.put_new(&target, writer, &object).await;
        if let (Some(charged), Ok(Some(_))) = (charged, &written) {
            charged.written();
        }
        written
    }

    /// Writes a new object, with the numbers that it has.
    async fn put_new(
        &self,
        target: &Target,
        writer: &Writer<'_>,
        object: &Value,
    ) -> Outcome<Option<Written>> {
        let key = target.key();
        let exists = || Status::already_exists(&*target.resource, &target.name);
        let value: Bytes = codec::encode(object).into();
        if writer.dry_run {
            return match self.store().get(&key) {
                Some(_) => Err(exists()),
                None => Ok(Some(Written { value, created: true, committed: false })),
            };
        }
        let Some(claims) = self.claim(target, object, None).await? else { return Ok(None) };
        let refused = match self.store().put(key, Expect::Absent, value).await {
            Ok(entry) => {
                let value = entry.value.clone();
                return Ok(Some(Written { value, created: true, committed: true }));
            }
            Err(WriteError::Conflict { .. }) => exists(),
            Err(error) => write_failure(target, error),
        };
        if !is_unresolved(&refused) {
            self.give_back(target, claims).await;
        }
        Err(refused)
    }

    /// PUT on an object or one of its views.
    pub(super) async fn put(&self, call: &Call) -> Outcome<Reply> {
        let options = WriteOptions::parse(&call.query, "UpdateOptions")?;
        let (mut object, duplicates) = decode::object(call)?;
        let warnings = check_fields(&call.target, &options, &duplicates, &mut object)?;
        call.check_names(&object)?;
        let writer = Writer {
            user: &call.user,
            manager: call.field_manager(&options),
            dry_run: options.dry_run,
        };
        let change = Change {
            target: &call.target,
            subresource: &call.subresource,
            create: call.subresource.is_empty()
                && strategy::allows_create_on_update(&call.target.resource),
            conditional: true,
            track: true,
            build: &|_| Ok(object.clone()),
        };
        let written = self.change(&change, &writer).await?;
        Ok(Reply::written(written.value, written.created).with_warnings(warnings))
    }

    /// Changes an object, again and again until nobody else wrote in between.
    pub(super) async fn change(
        &self,
        change: &Change<'_>,
        writer: &Writer<'_>,
    ) -> Outcome<Written> {
        let target = change.target;
        let mut fresh = !self.store().is_shared();
        for _ in 0..WRITE_ATTEMPTS {
            let done = match self.store().get(&target.key()) {
                Some(entry) => self.change_once(change, writer, &entry).await,
                None => self.change_into_being(change, writer).await,
            };
            match done {
                Ok(Some(written)) if fresh || written.committed => return Ok(written),
                Err(status) if fresh || !may_be_stale(&status) => return Err(status),
                // Somebody else wrote meanwhile, or what is known here may be behind.
                Ok(_) | Err(_) => self.context.fresh().await?,
            }
            fresh = true;
        }
        Err(modified(target))
    }

    /// Makes the object that was to be changed, where that is allowed; `None` where somebody
    /// else made it meanwhile, so that it is to be changed.
    async fn change_into_being(
        &self,
        change: &Change<'_>,
        writer: &Writer<'_>,
    ) -> Outcome<Option<Written>> {
        let target = change.target;
        if !change.create {
            return Err(Status::not_found(&*target.resource, &target.name));
        }
        self.may_create(target, writer.user).await?;
        let mut object = (change.build)(None)?;
        check_fresh(target, &object)?;
        meta::set(&mut object, "resourceVersion", Value::Null);
        match self.create(target, writer, object, change.track).await {
            Err(status) if status.reason == "AlreadyExists" && !writer.dry_run => Ok(None),
            other => other.map(Some),
        }
    }

    /// An update or an apply that makes the object takes the right to create it.
    async fn may_create(&self, target: &Target, user: &User) -> Outcome<()> {
        let resource = &target.resource;
        let attributes = authz::Attributes {
            namespace: &target.namespace,
            name: &target.name,
            ..authz::Attributes::on(user, "create", &resource.group, &resource.plural)
        };
        let decision = self.context.decide(&attributes).await;
        if decision.allowed { Ok(()) } else { Err(attributes.forbidden(&decision.reason)) }
    }

    /// One attempt; `None` where somebody else wrote meanwhile.
    async fn change_once(
        &self,
        change: &Change<'_>,
        writer: &Writer<'_>,
        entry: &Entry,
    ) -> Outcome<Option<Written>> {
        let target = change.target;
        let resource = &*target.resource;
        let live = negotiate::parse(&entry.value)?;
        let shown = self.translated(target, live.clone(), target.api_version()).await?;
        let object = (change.build)(Some(&target.present(shown)?))?;
        check_state(change, &object, &live)?;
        let mut object = self.to_storage(target, object).await?;
        keep_metadata(&mut object, &live, resource.namespaced);

        strategy::default(resource, &resource.storage_version, &mut object);
        // A binding is made, whatever becomes of the pod.
        let (operation, old) = match change.subresource {
            "binding" => (Operation::Create, None),
            _ => (Operation::Update, Some(&live)),
        };
        let operation = (operation, change.subresource);
        let attributes = self.attributes(operation, target, writer, old);
        self.admit(&attributes, &mut object).await?;
        if change.subresource.is_empty() {
            self.choose_numbers(target, &mut object, Some(&live))?;
        }
        strategy::prepare_update(resource, change.subresource, &mut object, &live);
        strategy::date_conditions(resource, &mut object, &live, &names::time(self.now()));
        let errors = strategy::validate_update(resource, change.subresource, &object, &live);
        if !errors.is_empty() {
            return Err(invalid(target, &errors));
        }
        if change.track {
            let (api_version, time) = (target.api_version(), names::time(self.now()));
            let subresource = change.subresource;
            let manager = Manager {
                name: &writer.manager,
                api_version: &api_version,
                subresource,
                time: &time,
            };
            track(resource, Some(&live), &mut object, &manager);
        }
        if !writer.dry_run && !meta::deleting(&object) && object["immutable"] != true {
            self.complete_token(target, &mut object);
        }
        if change.subresource.is_empty() {
            strategy::warnings(resource, &object, Some(&live)).into_iter().for_each(notes::warn);
        }
        self.admission.validate(&attributes, &object).await?;
        let charged = self.charge(&attributes, &object).await?;
        let written = self.commit(target, writer, entry, &live, object).await;
        if let (Some(charged), Ok(Some(_))) = (charged, &written) {
            charged.written();
        }
        written
    }

    /// Writes a changed object, unless nothing changed; removes it where the change was the
    /// last thing its deletion waited for.
    async fn commit(
        &self,
        target: &Target,
        writer: &Writer<'_>,
        entry: &Entry,
        live: &Value,
        mut object: Value,
    ) -> Outcome<Option<Written>> {
        let gone = super::deletion::is_complete(&target.resource, &object);
        meta::set(&mut object, "resourceVersion", entry.revision.to_string());
        if !gone && same(&object, live) {
            let value = entry.value.clone();
            return Ok(Some(Written { value, created: false, committed: false }));
        }
        let encoded: Bytes = codec::encode(&object).into();
        if writer.dry_run {
            let value = store::Codec::stamp(&codec::JsonCodec, &encoded, entry.revision);
            return Ok(Some(Written { value, created: false, committed: false }));
        }
        let expect = Expect::Revision(entry.revision);
        let Some(claims) = self.claim(target, &object, Some(live)).await? else { return Ok(None) };
        let done = if gone {
            let value = store::Codec::stamp(&codec::JsonCodec, &encoded, entry.revision);
            self.store().delete(&entry.key, expect).await.map(|_| value)
        } else {
            self.store()
                .put(entry.key.clone(), expect, encoded)
                .await
                .map(|entry| entry.value.clone())
        };
        let refused = match done {
            Ok(value) => {
                self.release(target, live, (!gone).then_some(&object)).await;
                return Ok(Some(Written { value, created: false, committed: true }));
            }
            Err(WriteError::Conflict { .. } | WriteError::NotFound) => None,
            Err(error) => Some(write_failure(target, error)),
        };
        if !refused.as_ref().is_some_and(is_unresolved) {
            self.give_back(target, claims).await;
        }
        refused.map_or(Ok(None), Err)
    }

    pub(super) fn attributes<'a>(
        &'a self,
        (operation, subresource): (Operation, &'a str),
        target: &'a Target,
        writer: &Writer<'a>,
        old: Option<&'a Value>,
    ) -> Attributes<'a> {
        let options = match operation {
            Operation::Create => "CreateOptions",
            _ => "UpdateOptions",
        };
        Attributes {
            operation,
            resource: &target.resource,
            version: &target.version,
            subresource,
            namespace: &target.namespace,
            name: &target.name,
            user: writer.user,
            old,
            dry_run: writer.dry_run,
            options: admission::options(options, &writer.manager, writer.dry_run),
            cluster: self,
            translations: Default::default(),
        }
    }

    /// An object of a client's in the version that is stored.
    async fn to_storage(&self, target: &Target, object: Value) -> Outcome<Value> {
        let wanted = target.resource.storage_api_version();
        Ok(target.to_storage(self.translated(target, object, wanted).await?))
    }

    /// An object in another version, where a webhook translates the kind.
    async fn translated(&self, target: &Target, object: Value, to: String) -> Outcome<Value> {
        let mut one =
            conversion::translate(&self.context, &target.resource, &to, vec![object]).await?;
        Ok(one.pop().unwrap_or_default())
    }

    /// What may change the object, and behind it the rule that nobody grants more than they have.
    async fn admit(&self, attributes: &Attributes<'_>, object: &mut Value) -> Outcome<()> {
        let resource = attributes.resource;
        let settle = |object: &mut Value| {
            let (group, version) = (&resource.storage_group, &resource.storage_version);
            if let Some(custom) = &resource.custom {
                custom.prune(version, object);
            } else if let Some(schema) = Schema::of(group, version, &resource.kind) {
                schema.prune(object);
            }
            strategy::default(resource, version, object);
        };
        let identity = ["name", "namespace", "uid"].map(|field| object["metadata"][field].clone());
        self.provide_namespace(attributes).await?;
        self.admission.mutate(attributes, object, &settle).await?;
        for (field, value) in ["name", "namespace", "uid"].into_iter().zip(identity) {
            meta::set(object, field, value);
        }
        signing::check(&self.context, attributes, object).await?;
        escalation::check(&self.context, attributes, object).await
    }
}
